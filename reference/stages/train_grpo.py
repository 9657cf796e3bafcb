"""Appendix B.3: GRPO on the Consolidation Set (Eqs. 22-28, Table 6)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from reference.config import Config, GRPOConfig
from reference.engines.artifacts import StepLog
from reference.engines.batches import in_batches, pad_right, response_mask, token_batches
from reference.engines.learner import Learner, compute_type, frozen_policy
from reference.engines.policy import Policy
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder, StageFolder
from reference.engines.student import Student
from reference.paper.grpo import group_advantages, grpo_loss, is_clipped, low_variance_kl, policy_ratio
from reference.paper.tokens import mean_over_tokens
from reference.records import Problem, RolloutGroup
from reference.seeds import seed_of
from reference.stages.filter_rewards import rollout_groups


@dataclass(frozen=True)
class Rollout:
    """One response as the trainer sees it: ids as sampled, and per-token log-probabilities of the response."""

    token_ids: tuple[int, ...]
    prompt_length: int
    advantage: float
    old_logprobs: tuple[float, ...]
    ref_logprobs: tuple[float, ...]


def train_grpo(
    run: RunFolder, config: Config, name: str, start: Path, problems: Sequence[Problem], student: Student
) -> Path:
    """Train `start` on the Consolidation Set `problems` and return the new checkpoint; with none it stays as it was.

    The reference policy is `start` itself (ambiguity A29).
    """
    rollouts = run.path / name.replace("3_grpo", "2_filter") / "rollouts.jsonl"
    inputs = {"start": start, "train": run.problems_path, "prompts": run.prompts_path, "rollouts": rollouts}
    stage = run.stage(name, ("seed", "sampler_rows", "model", "grpo"), inputs)
    checkpoint = stage.path / "checkpoint"
    if stage.is_done:
        stage.path.joinpath("state.pt").unlink(missing_ok=True)  # of a stage that was killed behind its receipt
        return checkpoint if stage.counts["steps"] else start
    if not problems:
        stage.finish({"problems": 0, "steps": 0}, note="no response was ever right, the model stays as it was")
        return start
    rows = _train(stage, config.seed, config.grpo, start, problems, student)
    tenth = max(1, len(rows) // 10)
    stage.finish(
        {
            "problems": len(problems),
            "steps": len(rows),
            "reward in the first tenth": round(sum(row["reward"] for row in rows[:tenth]) / tenth, 3),
            "in the last": round(sum(row["reward"] for row in rows[-tenth:]) / tenth, 3),
            "truncated responses": sum(row["num_truncated"] for row in rows),
        }
    )
    (stage.path / "state.pt").unlink(missing_ok=True)
    return checkpoint


def _train(
    stage: StageFolder, seed: int, settings: GRPOConfig, start: Path, problems: Sequence[Problem], student: Student
) -> list[dict]:
    """All rollout batches, from the last saved one on. Writes the checkpoint; returns the metrics of each batch."""
    learner = Learner(
        start,
        student.device,
        lr=settings.lr,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
    )
    reference = frozen_policy(start, student.device)
    student.sampler.load(start)
    state_path = stage.path / "state.pt"
    first = (learner.load_state(state_path) or {"steps": 0})["steps"]
    log, clock = StepLog(stage.path / "metrics.jsonl", first), StepLog(stage.path / "timing.jsonl", first)
    batches = _batches(problems, settings, seed, stage.name)
    for step, (epoch, batch) in with_progress(
        list(enumerate(batches, start=1))[first:], len(batches) - first, stage.name
    ):
        began = time.monotonic()
        student.sampler.sync(learner.policy.named_weights())
        groups = rollout_groups(batch, settings, seed, f"{stage.name}/{epoch}", student)
        metrics = grpo_step(learner, reference, [student.prompt_ids(problem) for problem in batch], groups, settings)
        log.add({"step": step, **metrics})
        clock.add(_timing(step, groups, time.monotonic() - began))
        if step % settings.save_every == 0:
            log.flush()
            clock.flush()
            learner.save_state(state_path, {"steps": step})
    learner.save_checkpoint(stage.path / "checkpoint", student.chat)
    clock.finish()
    return log.finish()


def _timing(step: int, groups: Sequence[RolloutGroup], seconds: float) -> dict[str, float]:
    tokens = sum(len(response.token_ids) for group in groups for response in group.responses)
    return {"step": step, "seconds": round(seconds, 3), "tokens_per_second": round(tokens / seconds, 1)}


def _batches(
    problems: Sequence[Problem], settings: GRPOConfig, seed: int, stage: str
) -> list[tuple[int, Sequence[Problem]]]:
    """(epoch, problems of one rollout batch): each epoch in an order of its own; its last batch may be smaller."""
    batches = []
    for epoch in range(settings.epochs):
        order = list(problems)
        Random(seed_of(seed, stage, "order", epoch)).shuffle(order)
        batches += [(epoch, batch) for batch in in_batches(order, settings.batch_size)]
    return batches


def grpo_step(
    learner: Learner,
    reference: Policy,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[RolloutGroup],
    settings: GRPOConfig,
) -> dict[str, float]:
    """One rollout batch: advantages, old and reference log-probabilities once, then an update per mini-batch.

    Mini-batches are whole groups (Table 6: 8 of the 16 prompts). Only from the second update on can the ratio leave 1.
    """
    rewards_NG = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
    advantages_NG = group_advantages(rewards_NG, eps=settings.advantage_eps)
    sequences = [
        (*prompt, *response.token_ids)
        for prompt, group in zip(prompts, groups, strict=True)
        for response in group.responses
    ]
    prompt_lengths = [len(prompt) for prompt, group in zip(prompts, groups, strict=True) for _ in group.responses]
    old, entropy = _logprobs(learner.policy, sequences, prompt_lengths, settings, with_entropy=True)
    ref, _ = _logprobs(reference, sequences, prompt_lengths, settings)
    rollouts = [
        Rollout(*fields)
        for fields in zip(sequences, prompt_lengths, advantages_NG.flatten().tolist(), old, ref, strict=True)
    ]
    updates = [
        _update(learner, mini_batch, settings)
        for mini_batch in in_batches(rollouts, settings.mini_batch_size * settings.num_rollouts)
    ]
    means = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
    return {**_rollout_metrics(groups), "entropy": sum(entropy) / len(entropy), **means, "updates": len(updates)}


def _rollout_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """What the rewards and the responses are like, before any update."""
    responses = [response for group in groups for response in group.responses]
    all_zero = sum(sum(group.rewards) == 0 for group in groups) / len(groups)
    all_one = sum(sum(group.rewards) == len(group.rewards) for group in groups) / len(groups)
    return {
        "reward": sum(sum(group.rewards) for group in groups) / len(responses),
        "all_zero": all_zero,
        "all_one": all_one,
        "mixed": 1 - all_zero - all_one,
        "response_length": sum(len(response.token_ids) for response in responses) / len(responses),
        "num_truncated": sum(not response.finished for response in responses),
    }


@torch.no_grad()
def _logprobs(
    policy: Policy,
    sequences: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    settings: GRPOConfig,
    with_entropy: bool = False,
) -> tuple[list[tuple[float, ...]], list[float]]:
    """Log-probabilities of every response's tokens at the sampling temperature, and each response's mean entropy."""
    device = next(policy.parameters()).device
    lengths = [len(sequence) for sequence in sequences]
    logprobs: list[tuple[float, ...]] = [()] * len(sequences)
    entropies = [0.0] * len(sequences)
    for rows in token_batches(lengths, settings.max_tokens_per_batch):
        ids_BT = pad_right([sequences[row] for row in rows], device)
        mask_BT = response_mask([prompt_lengths[row] for row in rows], [lengths[row] for row in rows], device)
        with compute_type(device):
            logprobs_BT, entropy_BT = policy(ids_BT, mask_BT, settings.temperature, with_entropy)
        for at, row in enumerate(rows):
            logprobs[row] = tuple(logprobs_BT[at][mask_BT[at]].tolist())
        if with_entropy:
            for row, mean in zip(rows, mean_over_tokens(entropy_BT, mask_BT).tolist(), strict=True):
                entropies[row] = mean
    return logprobs, entropies


def _update(learner: Learner, rollouts: Sequence[Rollout], settings: GRPOConfig) -> dict[str, float]:
    """One optimizer step on Eq. (28) over a mini-batch, exactly, whatever the micro-batches; and what it was like."""
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    totals = {"loss": 0.0, "kl": 0.0, "ratio": 0.0, "clip_fraction": 0.0}

    def share_of_loss(rows: Sequence[int]) -> torch.Tensor:
        batch = [rollouts[row] for row in rows]
        prompts, ends = [rollout.prompt_length for rollout in batch], [lengths[row] for row in rows]
        ids_BT = pad_right([rollout.token_ids for rollout in batch], learner.device)
        mask_BT = response_mask(prompts, ends, learner.device)
        old_BT = _at_response([rollout.old_logprobs for rollout in batch], mask_BT)
        ref_BT = _at_response([rollout.ref_logprobs for rollout in batch], mask_BT)
        advantages_B = torch.tensor([rollout.advantage for rollout in batch], device=learner.device)
        logprobs_BT, _ = learner.policy(ids_BT, mask_BT, settings.temperature)
        loss = grpo_loss(
            logprobs_BT,
            old_BT,
            ref_BT,
            advantages_B,
            mask_BT,
            clip_eps=settings.clip_eps,
            kl_coef=settings.kl_coef,
        )
        share = len(batch) / len(rollouts)
        measured = _diagnostics(logprobs_BT.detach(), old_BT, ref_BT, advantages_B, mask_BT, settings.clip_eps)
        for name, value in {"loss": loss.item(), **measured}.items():
            totals[name] += value * share
        return loss * share

    norm = learner.step(token_batches(lengths, settings.max_tokens_per_batch), share_of_loss)
    return {**totals, "grad_norm": norm}


def _at_response(values: Sequence[Sequence[float]], mask_BT: torch.Tensor) -> torch.Tensor:
    """Put each response's values where the mask is 1, 0 elsewhere: -> [B, T]."""
    flat = torch.tensor([value for row in values for value in row], device=mask_BT.device)
    return torch.zeros(mask_BT.shape, device=mask_BT.device).masked_scatter(mask_BT, flat)


def _diagnostics(logprobs_BT, old_BT, ref_BT, advantages_B, mask_BT, clip_eps: float) -> dict[str, float]:
    """Means over responses of means over tokens, as in Eq. 27."""
    ratio_BT = policy_ratio(logprobs_BT, old_BT)
    tokenwise = {
        "kl": low_variance_kl(logprobs_BT, ref_BT),
        "ratio": ratio_BT,
        "clip_fraction": is_clipped(ratio_BT, advantages_B, clip_eps).float(),
    }
    return {name: mean_over_tokens(values_BT, mask_BT).mean().item() for name, values_BT in tokenwise.items()}
