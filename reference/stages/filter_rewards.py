"""Section 3.3: G rollouts of every training problem, split by reward (Eq. 14), before reinforcement learning begins."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reference.config import Config, Equations, GRPOConfig
from reference.engines.artifacts import read_records
from reference.engines.batches import in_batches
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder
from reference.engines.student import Student
from reference.interfaces import Sampling
from reference.paper import verl
from reference.paper.answers import reward
from reference.paper.difficulty import sample_responses
from reference.paper.recycling import split_by_reward
from reference.records import Problem, RolloutGroup
from reference.seeds import seed_of

# What `rollout_groups` reads: a change of the learning rate needs no new rollouts.
ROLLOUT_SETTINGS = tuple(f"grpo.{name}" for name in ("num_rollouts", "temperature", "top_p", "max_new_tokens"))

LOGPROB_DECIMALS = 4


def filter_rewards(
    run: RunFolder, config: Config, name: str, policy: Path, problems: Sequence[Problem], student: Student
) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
    """D_con and D_fail over all training problems (D_cand, ambiguity A26), once per iteration (ambiguity A25).

    Without `grpo.exclude_all_zero` D_con has all problems, those of D_fail too.
    """
    inputs = {"train": run.problems_path, "prompts": run.prompts_path, "policy": policy}
    stage = run.stage(name, ("seed", "sampler", "vllm", "model", "equations", *ROLLOUT_SETTINGS), inputs)
    if stage.is_done:
        groups = read_records(stage.path / "rollouts.jsonl", RolloutGroup)
        consolidation, failed = split_by_reward(groups)
        return consolidation if config.grpo.exclude_all_zero else groups, failed
    student.sampler.load(policy)
    share = student.sampler.share
    log = stage.log("rollouts.jsonl", RolloutGroup, share)
    batches = share.of(in_batches(problems, max(1, config.sampler_rows // config.grpo.num_rollouts)))
    for batch in with_progress(batches, len(batches), name):
        if not all(problem.id in log for problem in batch):
            log.add(map(_rounded, rollout_groups(batch, config.grpo, config.seed, name, student, config.equations)))
    groups = log.finish()
    consolidation, failed = split_by_reward(groups)
    all_one = sum(all(reward == 1 for reward in group.rewards) for group in groups)
    stage.finish(
        {
            "problems": len(groups),
            "all-zero": len(failed),
            "mixed": len(consolidation) - all_one,
            "all-one": all_one,
            "truncated responses": sum(not response.finished for group in groups for response in group.responses),
        }
    )
    return consolidation if config.grpo.exclude_all_zero else groups, failed


def rollout_groups(
    problems: Sequence[Problem],
    settings: GRPOConfig,
    seed: int,
    where: str,
    student: Student,
    equations: Equations = "paper",
) -> list[RolloutGroup]:
    """Eq. (22): G responses to each problem from the sampler's present weights, with their rewards (Eq. 2, or verl's).

    With the sampler's log-probability of each token.
    """
    reward_of = verl.reward if equations == "verl" else reward
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, with_logprobs=True)
    seeds = [[seed_of(seed, where, problem.id, i) for i in range(settings.num_rollouts)] for problem in problems]
    groups = sample_responses(student.sampler, [student.prompt_ids(problem) for problem in problems], seeds, sampling)
    return [
        RolloutGroup(
            problem.id, tuple(responses), tuple(reward_of(response.text, problem.gold) for response in responses)
        )
        for problem, responses in zip(problems, groups, strict=True)
    ]


def _rounded(group: RolloutGroup) -> RolloutGroup:
    """For reading, not for training: with all their digits the log-probabilities would be most of the file.

    Certain tokens have 0.0, not -0.0.
    """
    responses = tuple(
        replace(response, logprobs=tuple(round(known, LOGPROB_DECIMALS) or 0.0 for known in response.known_logprobs()))
        for response in group.responses
    )
    return replace(group, responses=responses)
