"""Sequences of unequal length -> forwards of about equal cost, shared out over the processes.

Shapes: B sequences, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from reference.interfaces import Share

Item = TypeVar("Item")
# Sequences share a padded forward as long as the padding stays below this share of it: it is computed for nothing.
MAX_PADDING = 0.1


@dataclass(frozen=True)
class Turn:
    """One forward of one process. Weight 0: it only keeps the others company, who would wait for it."""

    rows: tuple[int, ...]
    weight: float = 1.0


def in_batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive batches of `size`; the last may be smaller."""
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def token_batches(lengths: Sequence[int], max_tokens: int, packed: bool = False) -> list[list[int]]:
    """Indices of the sequences that share a forward of at most `max_tokens`, padding included.

    Padded, they have similar lengths; packed, each goes into the first forward that has room. A sequence longer than
    `max_tokens` goes alone. Which sequences share a forward changes speed, never the loss.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        open_batches = batches if packed else batches[-1:]
        fitting = (batch for batch in open_batches if _fits([lengths[i] for i in (*batch, index)], max_tokens, packed))
        batch = next(fitting, None)
        if batch is None:
            batches.append([index])
        else:
            batch.append(index)
    return batches


def _fits(lengths: Sequence[int], max_tokens: int, packed: bool) -> bool:
    total, padded = sum(lengths), len(lengths) * max(lengths)
    return total <= max_tokens if packed else padded <= max_tokens and total >= (1 - MAX_PADDING) * padded


def turns_of(lengths: Sequence[int], max_tokens: int, share: Share, packed: bool = False) -> list[Turn]:
    """This process's forwards; together the processes go through every sequence once.

    Under FSDP all processes have to do each forward and each backward together. So the largest forwards are halved
    until each process has equally many; where single sequences are left over, the shortest is repeated with weight 0.
    """
    batches = token_batches(lengths, max_tokens, packed)
    while len(batches) % share.count and any(len(batch) > 1 for batch in batches):
        largest = max((batch for batch in batches if len(batch) > 1), key=lambda batch: sum(lengths[i] for i in batch))
        batches.remove(largest)
        batches += [largest[::2], largest[1::2]]
    batches.sort(key=lambda batch: -sum(lengths[i] for i in batch))  # neighbours cost about the same
    turns = [Turn(tuple(batch)) for batch in batches]
    shortest = min(range(len(lengths)), key=lambda index: lengths[index])
    turns += [Turn((shortest,), weight=0.0)] * (-len(turns) % share.count)
    return list(share.of(turns))


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
