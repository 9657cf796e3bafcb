"""What verl, the framework that the paper was run on, computes in place of the equations: `--equations verl`.

One function for each departure, all switched on together; what is not here is as the paper has it. They are equal to
verl 0.9.1's own functions (tests/oracle/test_verl_preset.py); docs/peers.md says how far they are from the paper.

Shapes as in grpo.py: B responses, T positions, right-padded. Log-probabilities in nats.
"""

import math
import re

import torch

from reference.paper.answers import gold_number

SECOND_CLIP = 3.0
LOG_RATIO_LIMIT = 20.0
KL_LIMIT = 10.0
LAST_CHARACTERS = 300
_STRICT_ANSWER = re.compile(r"#### (-?[0-9.,]+)")


def token_mean(x_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """In place of Eqs. 21 and 27's two means (ambiguity A31): one mean over all tokens, [B, T], [B, T] -> scalar.

    A part of a larger batch has the share of its tokens in it, not of its responses.
    """
    mask_BT = mask_BT.to(torch.bool)
    return x_BT.masked_fill(~mask_BT, 0.0).sum() / mask_BT.sum().clamp(min=1)


def sft_loss(logprobs_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """In place of Eq. 21 (ambiguity A31): nats per token over all supervised tokens, [B, T], [B, T] -> scalar."""
    return -token_mean(logprobs_BT, mask_BT)


def policy_ratio(logprobs_BT: torch.Tensor, old_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """In place of Eq. 24 (ambiguity A34): the ratio's logarithm is clamped to +-20, [B, T] -> [B, T]."""
    return torch.exp((logprobs_BT - old_logprobs_BT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def clipped_term(ratio_BT: torch.Tensor, advantages_B: torch.Tensor, clip_eps: float = 0.2) -> torch.Tensor:
    """In place of Eq. 25 (ambiguity A34): for a negative advantage never below 3 A, [B, T], [B] -> [B, T].

    There the token has no gradient, however far its ratio has grown.
    """
    advantages_B1 = advantages_B.unsqueeze(1)
    clipped_BT = ratio_BT.clamp(1 - clip_eps, 1 + clip_eps)
    term_BT = torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)
    return torch.where(advantages_B1 < 0, torch.maximum(term_BT, SECOND_CLIP * advantages_B1), term_BT)


def low_variance_kl(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """In place of Eq. 26 (ambiguity A33): d clamped to +-20, the term to 10, no gradient beyond: [B, T] -> [B, T]."""
    delta_BT = (ref_logprobs_BT - logprobs_BT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    return (torch.expm1(delta_BT) - delta_BT).clamp(max=KL_LIMIT)


def grpo_loss(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    ref_logprobs_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    clip_eps: float = 0.2,
    kl_coef: float = 0.001,
) -> torch.Tensor:
    """In place of Eq. 28: all of the above; arguments and shapes as `reference.paper.grpo.grpo_objective`."""
    clip_BT = clipped_term(policy_ratio(logprobs_BT, old_logprobs_BT), advantages_B, clip_eps)
    kl_BT = low_variance_kl(logprobs_BT, ref_logprobs_BT)
    return -token_mean(clip_BT - kl_coef * kl_BT, mask_BT)


def cosine_schedule(step: int, total_steps: int, warmup_ratio: float = 0.2, min_lr_ratio: float = 0.1) -> float:
    """In place of Table 5's schedule (ambiguity A30): step 1 of `total_steps` is verl's step 0.

    So the first step of a warm-up moves nothing, and the last step does not reach `min_lr_ratio`.
    """
    warmup = int(warmup_ratio * total_steps)
    if step - 1 < warmup:
        return (step - 1) / warmup
    progress = (step - 1 - warmup) / max(1, total_steps - warmup)
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


def extract_answer(response: str) -> str | None:
    """In place of Eq. 2's Ans (ambiguity A48): the characters behind the last `#### ` of the last 300, commas out."""
    found = _STRICT_ANSWER.findall(response[-LAST_CHARACTERS:])
    return found[-1].replace(",", "") if found else None


def reward(response: str, gold: str) -> float:
    """In place of Eq. 2 (ambiguity A48): 1.0 where answer and gold answer are the same characters, else 0.0.

    Raises:
        ValueError: `gold` is not a decimal number.
    """
    return float(extract_answer(response) == gold_number(gold))
