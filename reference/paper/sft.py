"""Appendix B.3, the supervised objective (Eq. 21).

verl and TRL average over all supervised tokens of a batch, so that a long response outvotes a short one; Eq. 21 takes
each response's own mean first, and so do we (ambiguity A31).

Shapes: B samples, T positions, right-padded.
"""

import math

import torch

from reference.paper.tokens import mean_over_tokens


def sft_loss(logprobs_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Eq. (21): L_SFT = -E_(x,y)[ (1/|y|) sum_k log pi_theta(y_k | x, y_<k) ], [B, T], [B, T] -> scalar.

    In nats per token. `mask_BT` is 1 on y (the assistant's tokens and the end of its turn) and 0 elsewhere.
    """
    return -mean_over_tokens(logprobs_BT, mask_BT).mean()


def cosine_schedule(step: int, total_steps: int, warmup_ratio: float = 0.2, min_lr_ratio: float = 0.1) -> float:
    """Table 5's schedule: what the learning rate is multiplied by in optimizer step `step` of 1..total_steps.

    Linear to 1 over the first int(warmup_ratio * total_steps) steps, at least one, then half a cosine down to
    `min_lr_ratio` at the last one. Steps count from 1, so that the first step moves the weights (verl counts from 0)
    and a phase of a single step has the whole learning rate (ambiguity A30).

    Raises:
        ValueError: `step` is not one of 1..total_steps.
    """
    if not 1 <= step <= total_steps:
        raise ValueError(f"the schedule has the steps 1 to {total_steps}, got {step}")
    warmup = max(1, int(warmup_ratio * total_steps))
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
