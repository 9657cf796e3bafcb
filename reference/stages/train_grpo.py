"""Appendix B.3: GRPO on the Consolidation Set (Eqs. 22-28, Table 6)."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from reference.config import Config, Equations, GRPOConfig
from reference.engines.batches import Turn, in_batches, pad_right, response_mask
from reference.engines.learner import Learner, compute_type, free_memory, frozen_policy
from reference.engines.policy import Policy
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder, StageFolder
from reference.engines.student import Student
from reference.paper import verl
from reference.paper.grpo import (
    group_advantages,
    grpo_loss,
    is_clipped,
    low_variance_kl,
    policy_ratio,
)
from reference.paper.tokens import mean_over_tokens
from reference.records import Problem, RolloutGroup
from reference.seeds import seed_of
from reference.stages.filter_rewards import rollout_groups
from reference.stages.plan import filter_of
from reference.stages.train_sft import learner_of

# Where the sampler's own log-probabilities are further from the trainer's, it does not sample from this policy.
LARGE_GAP = 0.05  # nats


@dataclass(frozen=True)
class Rollout:
    """One response as the trainer sees it: ids as sampled, and what the sampler thought of each of its tokens."""

    token_ids: tuple[int, ...]
    prompt_length: int
    advantage: float
    sampler_logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Before:
    """Per-token log-probabilities of a turn's responses before the first update, [B, T]: pi_old's and pi_ref's."""

    old_BT: torch.Tensor
    ref_BT: torch.Tensor


def train_grpo(
    run: RunFolder,
    config: Config,
    name: str,
    start: Path,
    problems: Sequence[Problem],
    student: Student,
    num_steps: int | None = None,
) -> Path:
    """Train `start` on the Consolidation Set `problems` and return the new checkpoint; with none it stays as it was.

    As many epochs as Table 6 says, or as many as `num_steps` rollout batches take. The reference policy is `start`
    itself (ambiguity A29).
    """
    rollouts = run.folder(filter_of(name)) / "rollouts.jsonl"
    inputs = {"start": start, "train": run.problems_path, "prompts": run.prompts_path, "rollouts": rollouts}
    trained = " ".join([*(problem.id for problem in problems), f"{num_steps or ''}"])
    reads = ("seed", "sampler", "vllm", "model", "equations", "grpo")
    stage = run.stage(name, reads, {**inputs, "trained": trained})
    checkpoint = stage.path / "checkpoint"
    if stage.is_done:
        stage.forget_state()  # of a stage that was killed behind its receipt
        return checkpoint if stage.counts["steps"] else start
    if not problems:
        stage.finish({"problems": 0, "steps": 0}, note="no response was ever right, the model stays as it was")
        return start
    batches = _batches(problems, config.grpo, config.seed, name, num_steps)
    rows = _train(stage, config, start, batches, student)
    free_memory(student.process)
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
    stage.forget_state()
    return checkpoint


def _train(
    stage: StageFolder,
    config: Config,
    start: Path,
    batches: Sequence[tuple[int, Sequence[Problem]]],
    student: Student,
) -> list[dict]:
    """All rollout batches, from the last saved one on. Writes the checkpoint; returns the metrics of each batch."""
    settings = config.grpo
    student.sampler.load(start)  # first: vLLM, as it starts, takes from the collector for good what is there
    learner = learner_of(start, student.process, config.model, settings)
    reference = frozen_policy(start, student.device, config.model.packing)
    first = (learner.load_state(stage.state_path) or {"steps": 0})["steps"]
    log, clock = stage.steps("metrics.jsonl", first), stage.steps("timing.jsonl", first)
    for step, (epoch, batch) in with_progress(
        list(enumerate(batches, start=1))[first:], len(batches) - first, stage.name
    ):
        began = time.monotonic()
        student.sampler.sync(learner.policy.named_weights())
        groups = _sample(batch, config, f"{stage.name}/{epoch}", student)
        prompts = [student.prompt_ids(problem) for problem in batch]
        metrics = grpo_step(learner, reference, prompts, groups, settings, config.equations)
        log.add({"step": step, **metrics})
        clock.add(_timing(step, groups, time.monotonic() - began))
        if metrics["sampler_gap"] > LARGE_GAP:
            stage.warn(
                f"step {step}: the sampler's log-probabilities are {metrics['sampler_gap']:.3f} nats from the trainer's"
            )
        if step % settings.save_every == 0:
            log.flush()
            clock.flush()
            learner.save_state(stage.state_path, {"steps": step})
    learner.save_checkpoint(stage.path / "checkpoint", student.chat)
    clock.finish()
    return log.finish()


def _sample(problems: Sequence[Problem], config: Config, where: str, student: Student) -> list[RolloutGroup]:
    """The batch's rollouts, sampled in shares; every process gets them all."""
    share = student.sampler.share
    own = share.of(problems)
    groups = rollout_groups(own, config.grpo, config.seed, where, student, config.equations) if own else []
    return student.process.merge(share, groups)


def _timing(step: int, groups: Sequence[RolloutGroup], seconds: float) -> dict[str, float]:
    tokens = sum(len(response.token_ids) for group in groups for response in group.responses)
    return {"step": step, "seconds": round(seconds, 3), "tokens_per_second": round(tokens / seconds, 1)}


def _batches(
    problems: Sequence[Problem], settings: GRPOConfig, seed: int, stage: str, num_steps: int | None
) -> list[tuple[int, Sequence[Problem]]]:
    """(epoch, problems of one rollout batch): each epoch in an order of its own; its last batch may be smaller."""
    steps_an_epoch = math.ceil(len(problems) / settings.batch_size)
    epochs = settings.epochs if num_steps is None else math.ceil(num_steps / steps_an_epoch)
    batches = []
    for epoch in range(epochs):
        order = list(problems)
        Random(seed_of(seed, stage, "order", epoch)).shuffle(order)
        batches += [(epoch, batch) for batch in in_batches(order, settings.batch_size)]
    return batches[:num_steps]


def grpo_step(
    learner: Learner,
    reference: Policy,
    prompts: Sequence[Sequence[int]],
    groups: Sequence[RolloutGroup],
    settings: GRPOConfig,
    equations: Equations = "paper",
) -> dict[str, float]:
    """One rollout batch: advantages, old and reference log-probabilities once, then an update per mini-batch.

    Mini-batches are whole groups (Table 6: 8 of the 16 prompts). Only from the second update on can the ratio leave 1.
    """
    rewards_NG = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
    advantages_NG = group_advantages(rewards_NG, eps=settings.advantage_eps)
    rollouts = [
        Rollout((*prompt, *response.token_ids), len(prompt), advantage, response.known_logprobs())
        for prompt, group, advantages in zip(prompts, groups, advantages_NG.tolist(), strict=True)
        for response, advantage in zip(group.responses, advantages, strict=True)
    ]
    mini_batches = in_batches(rollouts, settings.mini_batch_size * settings.num_rollouts)
    turns = [
        learner.turns([len(rollout.token_ids) for rollout in mini_batch], settings.max_tokens_per_batch)
        for mini_batch in mini_batches
    ]
    before: list[dict[Turn, Before]] = [{} for _ in mini_batches]  # by the turn that an update will take again
    sums = []
    for mini_batch, its_turns, known in zip(mini_batches, turns, before, strict=True):
        for turn in its_turns:
            known[turn], sampled = _before(learner, reference, [mini_batch[row] for row in turn.rows], settings)
            sums.append({name: turn.weight * value for name, value in sampled.items()})
    totals = learner.process.total({name: sum(values[name] for values in sums) for name in sums[0]})
    updates = [
        _update(learner, mini_batch, its_turns, known, settings, equations)
        for mini_batch, its_turns, known in zip(mini_batches, turns, before, strict=True)
    ]
    means = {name: sum(update[name] for update in updates) / len(updates) for name in updates[0]}
    return {
        **_rollout_metrics(groups),
        "entropy": totals["entropy"] / len(rollouts),
        "sampler_gap": totals["gap"] / totals["tokens"],
        **means,
        "updates": len(updates),
    }


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


def _tensors(rollouts: Sequence[Rollout], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and response mask of a turn, [B, T] each."""
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    ids_BT = pad_right([rollout.token_ids for rollout in rollouts], device)
    return ids_BT, response_mask([rollout.prompt_length for rollout in rollouts], lengths, device)


@torch.no_grad()
def _before(
    learner: Learner, reference: Policy, rollouts: Sequence[Rollout], settings: GRPOConfig
) -> tuple[Before, dict[str, float]]:
    """pi_old and pi_ref at the sampling temperature, once for all updates of the rollout batch; and what was measured.

    `entropy`: the sum over responses of each one's mean. `gap`: the sum over `tokens` of how far the sampler's own
    log-probabilities, at temperature 1, are from the trainer's.
    """
    ids_BT, mask_BT = _tensors(rollouts, learner.device)
    with compute_type(learner.device):
        old = learner.policy(ids_BT, mask_BT, settings.temperature, measure=True)
        ref = reference(ids_BT, mask_BT, settings.temperature)
    sampler_BT = _at_response([rollout.sampler_logprobs for rollout in rollouts], mask_BT)
    measured = {
        "entropy": mean_over_tokens(old.entropy, mask_BT).sum().item(),
        "gap": (sampler_BT - old.plain_logprobs).abs().sum().item(),  # both 0 outside the responses
        "tokens": mask_BT.sum().item(),
    }
    return Before(old.logprobs, ref.logprobs), measured


def _update(
    learner: Learner,
    rollouts: Sequence[Rollout],
    turns: Sequence[Turn],
    before: Mapping[Turn, Before],
    settings: GRPOConfig,
    equations: Equations,
) -> dict[str, float]:
    """One optimizer step on Eq. (28) over a mini-batch, exactly, whatever the micro-batches; and what it was like.

    A micro-batch has its share of the responses; of verl's loss, of the tokens (ambiguity A31). The rest of what is
    measured is the paper's in both cases.
    """
    lengths = [len(rollout.token_ids) - rollout.prompt_length for rollout in rollouts]
    loss_of = verl.grpo_loss if equations == "verl" else grpo_loss

    def share_of_loss(turn: Turn) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        batch, known = [rollouts[row] for row in turn.rows], before[turn]
        ids_BT, mask_BT = _tensors(batch, learner.device)
        advantages_B = known.old_BT.new_tensor([rollout.advantage for rollout in batch])
        logprobs_BT = learner.policy(ids_BT, mask_BT, settings.temperature).logprobs
        loss = loss_of(
            logprobs_BT,
            known.old_BT,
            known.ref_BT,
            advantages_B,
            mask_BT,
            clip_eps=settings.clip_eps,
            kl_coef=settings.kl_coef,
        )
        share = len(batch) / len(rollouts)
        loss_share = sum(lengths[row] for row in turn.rows) / sum(lengths) if equations == "verl" else share
        measured = _diagnostics(logprobs_BT.detach(), known, advantages_B, mask_BT, settings.clip_eps)
        shares = {name: value * share for name, value in measured.items()}
        return loss * loss_share, {"loss": loss.detach() * loss_share, **shares}

    return learner.step(turns, share_of_loss)


def _at_response(values: Sequence[Sequence[float]], mask_BT: torch.Tensor) -> torch.Tensor:
    """Put each response's values where the mask is 1, 0 elsewhere: -> [B, T]."""
    flat = torch.tensor([value for row in values for value in row], device=mask_BT.device)
    return torch.zeros(mask_BT.shape, device=mask_BT.device).masked_scatter(mask_BT, flat)


def _diagnostics(
    logprobs_BT: torch.Tensor, before: Before, advantages_B: torch.Tensor, mask_BT: torch.Tensor, clip_eps: float
) -> dict[str, torch.Tensor]:
    """Means over responses of means over tokens, as in Eq. 27."""
    ratio_BT = policy_ratio(logprobs_BT, before.old_BT)
    tokenwise = {
        "kl": low_variance_kl(logprobs_BT, before.ref_BT),
        "ratio": ratio_BT,
        "clip_fraction": is_clipped(ratio_BT, advantages_B, clip_eps).float(),
    }
    return {name: mean_over_tokens(values_BT, mask_BT).mean() for name, values_BT in tokenwise.items()}
