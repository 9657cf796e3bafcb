"""TRL 1.16.0 for the vectors: its own methods, with its own defaults wherever the inputs do not say otherwise.

TRL's equations stand inside methods of its trainers. They are called here on a stand-in for the trainer that has what
they read: no model, no data, and the methods as they are. The keywords beyond a vector's inputs are TRL's settings
under TRL's names. docs/peers.md has what differs and by how much; `.ci/install_oracles` installs TRL.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, get_scheduler
from trl import GRPOConfig, SFTConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from reference.conformance.adapters.ours import Rows, tensor, values_with_gradient, with_gradient

ONE_PROCESS = SimpleNamespace(
    num_processes=1,
    process_index=0,
    is_main_process=True,
    device=torch.device("cpu"),
    parallelism_config=None,
    gather=lambda values: values,
    gather_for_metrics=lambda values: values,
    reduce=lambda values, reduction: values,
)


def defaults(config: type) -> dict[str, object]:
    """Every setting of a TRL configuration and its default."""
    return {one.name: one.default for one in fields(config)}


def grpo_trainer(num_micro_batches: int = 1, **settings: object) -> SimpleNamespace:
    """What the GRPO trainer's methods read of it, at TRL's defaults or `settings`."""
    args = SimpleNamespace(**(defaults(GRPOConfig) | {"steps_per_generation": num_micro_batches} | settings))
    args.gradient_accumulation_steps = num_micro_batches
    return SimpleNamespace(
        args=args,
        accelerator=ONE_PROCESS,
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        current_gradient_accumulation_steps=num_micro_batches,
        beta=args.beta,
        loss_type=args.loss_type,
        epsilon_low=args.epsilon,
        epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
        num_iterations=args.num_iterations,
        num_generations=args.num_generations,
        scale_rewards=args.scale_rewards,
        importance_sampling_level=args.importance_sampling_level,
        top_entropy_quantile=args.top_entropy_quantile,
        off_policy_mask_threshold=args.off_policy_mask_threshold,
        multi_objective_aggregation=args.multi_objective_aggregation,
        mask_truncated_completions=args.mask_truncated_completions,
        pad_to_multiple_of=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        log_multimodal=False,
        environments=None,
        environment_factories=None,
        tools=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _logs=defaultdict(lambda: defaultdict(list)) | {name: [] for name in ("prompt", "completion", "advantages")},
        _pending_extra_logs={},
        _pending_metrics={},
    )


def group_advantages(rewards: Rows, eps: float) -> dict:
    """TRL's epsilon stands in its code, 1e-4: `eps` is not asked for."""
    rewards_NG = tensor(rewards)
    count = rewards_NG.numel()
    trainer = grpo_trainer(num_generations=rewards_NG.shape[1], beta=0.0)
    trainer.reward_func_names = ["reward"]
    trainer.reward_weights = torch.ones(1, dtype=torch.float64)
    responses = [[1]] * count
    trainer._generate = lambda prompts: (responses, responses, None, ["1"] * count, None, {}, None, None)
    trainer._calculate_rewards = lambda *arguments: rewards_NG.reshape(-1, 1)
    batch = GRPOTrainer._generate_and_score_completions(trainer, [{"prompt": "1"}] * count)
    return {"advantages": batch["advantages"].reshape(rewards_NG.shape).tolist()}


def loss_of_batch(
    trainer: SimpleNamespace,
    logprobs_BT: torch.Tensor,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    num_tokens: int,
    **known: torch.Tensor,
) -> torch.Tensor:
    """TRL's loss of one micro-batch. `known`: old_per_token_logps and ref_per_token_logps where there are any."""
    trainer._get_per_token_logps_and_entropies = lambda *arguments, **more: (
        logprobs_BT,
        torch.zeros_like(logprobs_BT),
        None,
    )
    ids_BT = torch.ones_like(mask_BT, dtype=torch.long)
    inputs = {"prompt_ids": ids_BT[:, :1], "prompt_mask": ids_BT[:, :1], "completion_ids": ids_BT}
    inputs |= {"completion_mask": mask_BT, "advantages": advantages_B, "num_items_in_batch": torch.tensor(num_tokens)}
    return GRPOTrainer._compute_loss(trainer, None, inputs | known)


def each_token(
    trainer: SimpleNamespace, logprobs_BT: torch.Tensor, advantages_B: torch.Tensor, **known: torch.Tensor
) -> torch.Tensor:
    """TRL's loss of each token alone: its method gives only means."""
    one = torch.ones(1, 1, dtype=torch.float64)
    losses = [
        loss_of_batch(
            trainer,
            logprobs_BT[at].reshape(1, 1),
            advantages_B[at[0]].reshape(1),
            one,
            1,
            **{name: values_BT[at].reshape(1, 1) for name, values_BT in known.items()},
        )
        for at in np.ndindex(*logprobs_BT.shape)
    ]
    return torch.stack(losses).reshape(logprobs_BT.shape)


def policy_ratio(logprobs: Rows, old_logprobs: Rows) -> dict:
    """TRL's loss with an advantage of 1 and a clip that is never reached."""
    trainer = grpo_trainer(beta=0.0, epsilon_high=1e9)
    ones_B = torch.ones(len(logprobs), dtype=torch.float64)
    losses = each_token(trainer, tensor(logprobs), ones_B, old_per_token_logps=tensor(old_logprobs))
    return {"ratio": (-losses).tolist()}


def clipped_term(ratio: Rows, advantages: Sequence[float], clip_eps: float) -> dict:
    """TRL's loss of each token without its KL term, to be maximised."""
    trainer = grpo_trainer(beta=0.0, epsilon=clip_eps)

    def values_of(ratio_BT: torch.Tensor) -> torch.Tensor:
        old_BT = torch.zeros_like(ratio_BT)
        return -each_token(trainer, ratio_BT.log(), tensor(advantages), old_per_token_logps=old_BT)

    return values_with_gradient(values_of, ratio)


def low_variance_kl(logprobs: Rows, ref_logprobs: Rows, **settings: object) -> dict:
    """The KL term on policy, where the ratio that it is multiplied by by default is 1 and has a gradient."""
    trainer = grpo_trainer(1, beta=1.0, **settings)
    nothing_B = torch.zeros(len(logprobs), dtype=torch.float64)
    return values_with_gradient(
        lambda logprobs_BT: each_token(trainer, logprobs_BT, nothing_B, ref_per_token_logps=tensor(ref_logprobs)),
        logprobs,
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
    """Summed over the `micro_batches` (lists of rows; all in one by default), as gradient accumulation does."""
    parts = [list(rows) for rows in micro_batches or [range(len(mask))]]
    trainer = grpo_trainer(len(parts), beta=kl_coef, epsilon=clip_eps, **settings)
    old_BT, ref_BT, advantages_B, mask_BT = (
        tensor(old_logprobs),
        tensor(ref_logprobs),
        tensor(advantages),
        tensor(mask),
    )

    def loss_of(logprobs_BT: torch.Tensor) -> torch.Tensor:
        losses = [
            loss_of_batch(
                trainer,
                logprobs_BT[rows],
                advantages_B[rows],
                mask_BT[rows],
                int(mask_BT.sum()),
                old_per_token_logps=old_BT[rows],
                ref_per_token_logps=ref_BT[rows],
            )
            for rows in parts
        ]
        return torch.stack(losses).sum()

    return with_gradient(loss_of, logprobs)


def given(outputs: SimpleNamespace) -> Callable[..., SimpleNamespace]:
    """A model whose outputs are known."""
    return lambda **inputs: outputs


def sft_loss(logprobs: Rows, mask: Sequence[Sequence[int]], micro_batches: Sequence[Sequence[int]] = ()) -> dict:
    """Summed over the `micro_batches`, each of which knows how many supervised tokens the whole batch has."""
    trainer = SimpleNamespace(
        args=SimpleNamespace(**defaults(SFTConfig)),
        accelerator=ONE_PROCESS,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        compute_loss_func=None,
        label_smoother=None,
        get_tp_size=lambda: 1,
        _tp_size=1,
        _total_train_tokens=0,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    mask_BT = tensor(mask)

    def loss_of(logprobs_BT: torch.Tensor) -> torch.Tensor:
        losses = []
        for rows in [list(rows) for rows in micro_batches or [range(len(mask))]]:
            inside = mask_BT[rows]
            outputs = SimpleNamespace(log_probs=logprobs_BT[rows] * inside, label_mask=inside.bool())
            outputs.entropy = outputs.is_top1 = torch.zeros_like(inside)
            inputs = {"labels": None, "attention_mask": torch.ones_like(inside)}
            losses.append(SFTTrainer.compute_loss(trainer, given(outputs), inputs, False, mask_BT.sum()))
        return torch.stack(losses).sum()

    return with_gradient(loss_of, logprobs)


def cosine_schedule(step: int, total_steps: int, warmup_ratio: float, min_lr_ratio: float) -> dict:
    """Transformers' schedule, which TRL's trainers take by name; the scale in the `step`-th step, counted from 1."""
    arguments: Any = SimpleNamespace(warmup_steps=warmup_ratio)
    warmup = TrainingArguments.get_warmup_steps(arguments, total_steps)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    least = {"min_lr_rate": min_lr_ratio}
    schedule = get_scheduler("cosine_with_min_lr", optimizer, warmup, total_steps, scheduler_specific_kwargs=least)
    return {"scale": schedule.lr_lambdas[0](step - 1)}
