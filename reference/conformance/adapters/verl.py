"""verl 0.9.1 for the vectors: its own functions, with its own defaults wherever the inputs do not say otherwise.

The keywords beyond a vector's inputs are verl's settings under verl's names, so that the oracle tests can set them to
what the paper's equations need. docs/peers.md has what differs and by how much; `.ci/install_oracles` installs verl.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, compute_policy_loss_vanilla, kl_penalty
from verl.trainer.ppo.metric_utils import bootstrap_metric
from verl.utils import tensordict_utils
from verl.utils.reward_score import gsm8k
from verl.utils.torch_functional import get_cosine_schedule_with_warmup
from verl.workers.config import FSDPActorConfig
from verl.workers.utils import losses

from reference.conformance.adapters.ours import Rows, tensor, values_with_gradient, with_gradient

FILLER = torch.zeros(1, dtype=torch.float64)  # the log-probability behind a row's last token: verl never reads it


def actor_config(clip_eps: float, **settings: object) -> FSDPActorConfig:
    """The actor's settings: one clip range on both sides as in Eq. 25, the rest verl's defaults or `settings`."""
    clips = {"clip_ratio": clip_eps, "clip_ratio_low": clip_eps, "clip_ratio_high": clip_eps}
    sizes = {"rollout_n": 8, "ppo_mini_batch_size": 8, "ppo_micro_batch_size_per_gpu": 2}
    return FSDPActorConfig(strategy="fsdp", **sizes, **(clips | settings))


def ragged(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of unequal length as one jagged tensor, verl's form of a batch without padding."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def extract_answer(text: str, method: str = "strict") -> dict:
    """verl's GSM8K scorer, strict as its default is."""
    return {"answer": gsm8k.extract_solution(text, method)}


def sft_loss(logprobs: Rows, mask: Sequence[Sequence[int]], micro_batches: Sequence[Sequence[int]] = ()) -> dict:
    """Each of the `micro_batches` (lists of rows; all in one by default) as verl's engine passes it on.

    verl's mask has an entry for each token, its log-probabilities stand one place earlier: a row begins with a token
    of a prompt.
    """
    mask_BT = tensor(mask)

    def loss_of(logprobs_BT: torch.Tensor) -> torch.Tensor:
        parts = []
        for rows in micro_batches or [range(len(mask))]:
            output = {"log_probs": ragged([torch.cat([logprobs_BT[row], FILLER]) for row in rows])}
            data = TensorDict({"loss_mask": ragged([torch.cat([FILLER, mask_BT[row]]) for row in rows])}, [len(rows)])
            tensordict_utils.assign_non_tensor(data, dp_size=1, batch_num_tokens=int(mask_BT.sum()))
            parts.append(losses.sft_loss(None, output, data)[0])
        return torch.stack(parts).sum()

    return with_gradient(loss_of, logprobs)


def group_advantages(rewards: Rows, eps: float) -> dict:
    """verl's GRPO advantage of whole responses."""
    rewards_NG = tensor(rewards)
    groups = np.repeat(np.arange(len(rewards)), rewards_NG.shape[1])
    ones_B1 = torch.ones(rewards_NG.numel(), 1, dtype=torch.float64)
    advantages_B1, _ = compute_grpo_outcome_advantage(rewards_NG.reshape(-1, 1), ones_B1, groups, epsilon=eps)
    return {"advantages": advantages_B1.reshape(rewards_NG.shape).tolist()}


def surrogates(
    logprobs_BT: torch.Tensor, old_BT: torch.Tensor, advantages_B: torch.Tensor, config: FSDPActorConfig
) -> torch.Tensor:
    """verl's policy loss of each token alone, to be maximised: its function gives only means."""
    ones = torch.ones(1, 1, dtype=torch.float64)
    terms = [
        -compute_policy_loss_vanilla(
            old_BT[at].reshape(1, 1), logprobs_BT[at].reshape(1, 1), advantages_B[at[0]] * ones, ones, config=config
        )[0]
        for at in np.ndindex(*logprobs_BT.shape)
    ]
    return torch.stack(terms).reshape(logprobs_BT.shape)


def policy_ratio(logprobs: Rows, old_logprobs: Rows) -> dict:
    """verl's policy loss with an advantage of 1 and a clip that is never reached."""
    config = actor_config(0.2, clip_ratio_high=1e9)
    ones_B = torch.ones(len(logprobs), dtype=torch.float64)
    return {"ratio": surrogates(tensor(logprobs), tensor(old_logprobs), ones_B, config).tolist()}


def clipped_term(ratio: Rows, advantages: Sequence[float], clip_eps: float, clip_ratio_c: float = 3.0) -> dict:
    """verl's policy loss of each token, second clip included."""
    config = actor_config(clip_eps, clip_ratio_c=clip_ratio_c)

    def values_of(ratio_BT: torch.Tensor) -> torch.Tensor:
        return surrogates(ratio_BT.log(), torch.zeros_like(ratio_BT), tensor(advantages), config)

    return values_with_gradient(values_of, ratio)


def low_variance_kl(logprobs: Rows, ref_logprobs: Rows, kl_loss_type: str = "low_var_kl") -> dict:
    """verl's KL penalty of the given type."""
    return values_with_gradient(
        lambda logprobs_BT: kl_penalty(logprobs_BT, tensor(ref_logprobs), kl_loss_type), logprobs
    )


def grpo_loss(
    logprobs: Rows,
    old_logprobs: Rows,
    ref_logprobs: Rows,
    advantages: Sequence[float],
    mask: Sequence[Sequence[int]],
    clip_eps: float,
    kl_coef: float,
    micro_batches: Sequence[Sequence[int]] = (),
    **settings: object,
) -> dict:
    """verl's actor loss with the KL term on, summed over the `micro_batches` (all rows in one by default).

    As verl's engine does, each knows how many tokens and responses the whole batch has.
    """
    config = actor_config(clip_eps, use_kl_loss=True, kl_loss_coef=kl_coef, **settings)
    lengths, advantages_B = [sum(row) for row in mask], tensor(advantages)
    old_BT, ref_BT = tensor(old_logprobs), tensor(ref_logprobs)

    def loss_of(logprobs_BT: torch.Tensor) -> torch.Tensor:
        parts = []
        for rows in micro_batches or [range(len(mask))]:
            ones = [torch.ones(lengths[row], dtype=torch.float64) for row in rows]
            responses = {
                "response_mask": ones,
                "responses": ones,
                "advantages": [advantages_B[row] * one for row, one in zip(rows, ones, strict=True)],
                "old_log_probs": [old_BT[row, : lengths[row]] for row in rows],
                "ref_log_prob": [ref_BT[row, : lengths[row]] for row in rows],
                "prompts": [FILLER for _ in rows],
            }
            data = TensorDict({name: ragged(values) for name, values in responses.items()}, [len(rows)])
            sizes = {"dp_size": 1, "batch_num_tokens": sum(lengths), "global_batch_size": len(mask)}
            tensordict_utils.assign_non_tensor(data, **sizes)
            output = {"log_probs": ragged([torch.cat([logprobs_BT[row, : lengths[row]], FILLER]) for row in rows])}
            parts.append(losses.ppo_loss(config, output, data)[0])
        return torch.stack(parts).sum()

    return with_gradient(loss_of, logprobs)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> dict:
    """best@k of verl's validation: resampled with replacement, 1000 times, from a fixed seed."""
    scores = [1.0] * num_correct + [0.0] * (num_samples - num_correct)
    [(mean, _)] = bootstrap_metric(scores, k, [np.max])
    return {"pass_at_k": float(mean)}


def cosine_schedule(
    step: int, total_steps: int, warmup_ratio: float, min_lr_ratio: float, zero_indexed_step: bool = True
) -> dict:
    """The scale in the optimizer's `step`-th step, counted from 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    warmup = int(warmup_ratio * total_steps)
    schedule = get_cosine_schedule_with_warmup(
        optimizer, warmup, total_steps, min_lr_ratio, zero_indexed_step=zero_indexed_step
    )
    return {"scale": schedule.lr_lambdas[0](step - 1)}
