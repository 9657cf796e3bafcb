"""Sequences of unequal length -> forwards of about equal cost.

Shapes: B sequences, T positions.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


def in_batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive batches of `size`; the last may be smaller."""
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def token_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of the sequences that share a forward: similar lengths, at most `max_tokens` with the padding.

    A sequence longer than that goes alone. Which sequences share a forward changes speed, never the loss.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad_right(sequences: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Rows of ids, filled up with 0 on the right: [B, T]. What fills them is never looked at."""
    longest = max(len(sequence) for sequence in sequences)
    return torch.tensor([list(s) + [0] * (longest - len(s)) for s in sequences], device=device)


def response_mask(prompt_lengths: Sequence[int], lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """1 from the end of the prompt to the end of the sequence, from lengths and never from ids: [B, T]."""
    at_T = torch.arange(max(lengths), device=device)
    begin_B1 = torch.tensor(prompt_lengths, device=device)[:, None]
    end_B1 = torch.tensor(lengths, device=device)[:, None]
    return (at_T >= begin_B1) & (at_T < end_B1)
