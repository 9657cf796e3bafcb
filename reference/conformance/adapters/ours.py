"""This project's own equations, for the vectors."""

from collections.abc import Callable, Sequence

import torch

from reference.paper import answers, bridge, grpo, recycling, sft
from reference.paper import pass_at_k as passes
from reference.records import Completion, StepScores, Thresholds

Rows = Sequence[Sequence[float]]


def tensor(values: Sequence, grad: bool = False) -> torch.Tensor:
    """A tensor in float64."""
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def with_gradient(loss_of: Callable[[torch.Tensor], torch.Tensor], logprobs: Rows) -> dict:
    """A loss and its gradient with respect to the log-probabilities."""
    logprobs_BT = tensor(logprobs, grad=True)
    loss = loss_of(logprobs_BT)
    (gradient_BT,) = torch.autograd.grad(loss, logprobs_BT)
    return {"loss": loss.item(), "gradient": gradient_BT.tolist()}


def values_with_gradient(values_of: Callable[[torch.Tensor], torch.Tensor], inputs: Rows) -> dict:
    """Values token by token, each with its derivative with respect to its own input."""
    inputs_BT = tensor(inputs, grad=True)
    values_BT = values_of(inputs_BT)
    (gradient_BT,) = torch.autograd.grad(values_BT.sum(), inputs_BT)
    return {"values": values_BT.tolist(), "gradient": gradient_BT.tolist()}


def extract_answer(text: str) -> dict:
    """Ans(o) of Eq. 2."""
    return {"answer": answers.extract_answer(text)}


def choose_action(
    importance: float,
    jumpiness: float,
    difficulty: float,
    tau_importance: float,
    tau_jumpiness: float,
    tau_difficulty: float,
) -> dict:
    """Algorithm 1, lines 11 to 29."""
    scores, taus = (
        StepScores(importance, jumpiness, difficulty),
        Thresholds(tau_importance, tau_jumpiness, tau_difficulty),
    )
    action, local = bridge.choose_action(scores, taus)
    return {"action": str(action), "local": local}


def mean_nll(logprobs: Sequence[float]) -> dict:
    """Eq. 8, in nats per token."""
    return {"difficulty": bridge.mean_nll(logprobs)}


def sft_loss(logprobs: Rows, mask: Sequence[Sequence[int]]) -> dict:
    """Eq. 21 and its gradient."""
    return with_gradient(lambda logprobs_BT: sft.sft_loss(logprobs_BT, tensor(mask)), logprobs)


def group_advantages(rewards: Rows, eps: float) -> dict:
    """Eq. 23."""
    return {"advantages": grpo.group_advantages(tensor(rewards), eps=eps).tolist()}


def policy_ratio(logprobs: Rows, old_logprobs: Rows) -> dict:
    """Eq. 24."""
    return {"ratio": grpo.policy_ratio(tensor(logprobs), tensor(old_logprobs)).tolist()}


def clipped_term(ratio: Rows, advantages: Sequence[float], clip_eps: float) -> dict:
    """Eq. 25, token by token, and its gradient with respect to the ratio."""
    return values_with_gradient(lambda ratio_BT: grpo.clipped_term(ratio_BT, tensor(advantages), clip_eps), ratio)


def low_variance_kl(logprobs: Rows, ref_logprobs: Rows) -> dict:
    """The estimator of Eq. 26, token by token, and its gradient."""
    return values_with_gradient(lambda logprobs_BT: grpo.low_variance_kl(logprobs_BT, tensor(ref_logprobs)), logprobs)


def grpo_loss(
    logprobs: Rows,
    old_logprobs: Rows,
    ref_logprobs: Rows,
    advantages: Sequence[float],
    mask: Sequence[Sequence[int]],
    clip_eps: float,
    kl_coef: float,
) -> dict:
    """Eq. 28 and its gradient."""
    others = (tensor(old_logprobs), tensor(ref_logprobs), tensor(advantages), tensor(mask))
    return with_gradient(
        lambda logprobs_BT: grpo.grpo_loss(logprobs_BT, *others, clip_eps=clip_eps, kl_coef=kl_coef), logprobs
    )


def near_miss_score(
    num_tokens: int,
    num_steps: int,
    has_answer: bool,
    tau_length: float,
    tau_steps: float,
    weights: Sequence,
) -> dict:
    """Eq. 30, with its parts of Eqs. 31 to 33."""
    parts = [
        recycling.length_score(num_tokens, tau_length),
        recycling.step_score(num_steps, tau_steps),
        recycling.format_score(has_answer),
    ]
    score = recycling.near_miss_score(
        num_tokens, num_steps, has_answer, tau_length=tau_length, tau_steps=tau_steps, weights=tuple(weights)
    )
    return {"parts": parts, "score": score}


def select_near_miss(
    num_tokens: Sequence[int],
    num_steps: Sequence[int],
    has_answer: Sequence[bool],
    tau_length: float,
    tau_steps: float,
    weights: Sequence,
) -> dict:
    """Eq. 34, over responses that have these lengths, units and answers."""
    responses = []
    for tokens, steps, answered in zip(num_tokens, num_steps, has_answer, strict=True):
        units = [f"Step {at}: and so on." for at in range(1, steps + 1)]
        text = "\n\n".join(units) + ("\n#### 5" if answered else "")
        responses.append(Completion((0,) * tokens, text, True))
    index, score = recycling.select_near_miss(
        responses, tau_length=tau_length, tau_steps=tau_steps, weights=tuple(weights)
    )
    return {"index": index, "score": score}


def pass_at_k(num_samples: int, num_correct: int, k: int) -> dict:
    """pass@k of Chen et al. (2021)."""
    return {"pass_at_k": passes.pass_at_k(num_samples, num_correct, k)}


def cosine_schedule(step: int, total_steps: int, warmup_ratio: float, min_lr_ratio: float) -> dict:
    """Table 5's schedule: the factor of the learning rate."""
    return {"scale": sft.cosine_schedule(step, total_steps, warmup_ratio, min_lr_ratio)}
