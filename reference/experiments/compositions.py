"""Runs of other stages than Figure 2's, for the experiments; each takes what it can from the run it is a variant of.

Each composition has its plan beside it: the names of its stages in order, which `--dry-run` needs beforehand.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from reference.config import Config
from reference.connect import World
from reference.engines.run_folder import RunFolder
from reference.paper.bridge import acquisition_set, bridge_set, full_example, medium_set, training_order
from reference.paper.curricula import CURRICULA, phases_of, shuffled
from reference.records import DifficultyGroup, ExampleKind, Problem, SFTExample, Trace
from reference.seeds import seed_of
from reference.stages.build_bridge import build_bridge
from reference.stages.distill_pools import distill_pools
from reference.stages.distill_traces import distill_traces
from reference.stages.estimate_difficulty import estimate_difficulty
from reference.stages.evaluate import evaluate
from reference.stages.filter_rewards import filter_rewards
from reference.stages.plan import evaluation_of, sft_stages
from reference.stages.train_grpo import train_grpo
from reference.stages.train_sft import train_sft

FIRST = ("1_difficulty", "2_traces", "3_bridge")


def motivation_plan(config: Config) -> list[str]:
    """The stages of `motivation`, in order."""
    names = ["1_difficulty", "2_pools", *evaluation_of(config, "base")]
    for curriculum in CURRICULA:
        for budget in config.motivation.budgets:
            phases = ("medium", "hard") if curriculum == "medium_hard" else (curriculum,)
            names += [f"{curriculum}/{budget}/{phase}" for phase in phases]
            names += evaluation_of(config, f"{curriculum}/{budget}")
    return names


def motivation(run: RunFolder, config: Config, world: World) -> None:
    """Figures 1, 6 and 7: five curricula at five budgets of supervised tokens; pass@8 on the in-domain benchmark.

    Raises:
        ValueError: one of the three groups is empty.
    """
    problems, student = world.problems, world.student
    in_domain = {name: tests[: config.motivation.test_limit] for name, tests in list(world.benchmarks.items())[:1]}
    evaluate(run, config, "base", student.base, in_domain, student, world.judge)
    graded = estimate_difficulty(run, config, problems, student)
    if empty := [str(group) for group in DifficultyGroup if all(record.group is not group for record in graded)]:
        raise ValueError(
            f"the motivating experiment needs problems of all three groups, and for the model of seed {config.seed} "
            f"none is {empty[0]}; take more of them (--data.limit), or leave `motivation` out: the other experiments "
            "that were asked for are done for this seed"
        )
    pools = distill_pools(
        run, config, "2_pools", max(config.motivation.budgets), problems, graded, student, world.teacher
    )
    for curriculum in CURRICULA:
        for budget in config.motivation.budgets:
            rng = Random(seed_of(config.seed, "curriculum", curriculum, budget))
            policy = student.base
            for phase, traces in phases_of(curriculum, pools.traces, pools.sizes, budget, rng):
                examples = _examples(problems, traces, world)
                policy = train_sft(run, config, f"{curriculum}/{budget}/{phase}", policy, examples, student)
            evaluate(run, config, f"{curriculum}/{budget}", policy, in_domain, student, world.judge)


def sft_mixed_plan(config: Config) -> list[str]:
    """The stages of `sft_mixed`, in order."""
    return ["1_difficulty", "2_all_traces", "sft_mixed", *evaluation_of(config, "sft_mixed")]


def sft_mixed(run: RunFolder, config: Config, world: World) -> None:
    """Table 10's SFT-Mixed: all groups in their own proportions, with the tokens of medium and hard (ambiguity A57)."""
    problems, student = world.problems, world.student
    graded = estimate_difficulty(run, config, problems, student)
    pools = distill_pools(run, config, "2_all_traces", 0, problems, graded, student, world.teacher)
    budget = pools.sizes[DifficultyGroup.MEDIUM] + pools.sizes[DifficultyGroup.HARD]
    rng = Random(seed_of(config.seed, "curriculum", "sft_mixed"))
    if pools.sizes[DifficultyGroup.SIMPLE]:
        ((_, traces),) = phases_of("mixed", pools.traces, pools.sizes, budget, rng)
    else:  # nothing but medium and hard: they fill the budget exactly
        traces = shuffled([trace for group in pools.traces.values() for trace in group], rng)
    policy = train_sft(run, config, "sft_mixed", student.base, _examples(problems, traces, world), student)
    evaluate(run, config, "sft_mixed", policy, world.benchmarks, student, world.judge)


def local_only_plan(config: Config) -> list[str]:
    """The stages of `local_only`, in order."""
    name = "iter1/1_sft/2_local"
    return [*FIRST, "iter1/1_sft/1_medium", name, *evaluation_of(config, name)]


def local_only(run: RunFolder, config: Config, world: World) -> None:
    """The local samples of the Bridge without the traces they come from, after the same medium phase."""
    acquired, policy = _medium(run, config, world)
    local = [example for example in acquired if example.kind is ExampleKind.LOCAL]
    policy = train_sft(run, config, "iter1/1_sft/2_local", policy, local, world.student)
    evaluate(run, config, "iter1/1_sft/2_local", policy, world.benchmarks, world.student, world.judge)


REPEATED = "iter2/1_sft/repeated"


def repeated_plan(config: Config) -> list[str]:
    """The stages of `repeated`, in order."""
    sft = [*sft_stages(config, 1), "iter1/2_filter", "iter1/3_grpo", *sft_stages(config, 2)[:-1], REPEATED]
    last = ["iter2/2_filter", "iter2/3_grpo"]
    return [*FIRST, *sft, *evaluation_of(config, REPEATED), *last, *evaluation_of(config, last[-1])]


def repeated(run: RunFolder, config: Config, world: World) -> None:
    """A second iteration without recycling and with as many optimizer steps: samples of D_acq once more instead."""
    student, t = world.student, "iter2"
    acquired, policy = _medium(run, config, world)
    bridge = dict(training_order(acquired, 1))["2_bridge"]
    policy = train_sft(run, config, "iter1/1_sft/2_bridge", policy, bridge, student)
    policy = _grpo(run, config, "iter1", policy, world)
    count = run.original_counts("iter1/4_recycle")["examples"]
    again = Random(seed_of(config.seed, "repeated")).choices(acquired, k=count) if acquired else []
    if config.readings.later_sft == "phases":
        for phase, examples in training_order(acquired, 1):
            policy = train_sft(run, config, f"{t}/1_sft/{phase}", policy, examples, student)
        policy = train_sft(run, config, REPEATED, policy, again, student)
    else:
        policy = train_sft(run, config, REPEATED, policy, [*acquired, *again], student)
    evaluate(run, config, REPEATED, policy, world.benchmarks, student, world.judge)
    num_steps = run.original_counts(f"{t}/3_grpo")["steps"]
    policy = _grpo(run, config, t, policy, world, num_steps)
    evaluate(run, config, f"{t}/3_grpo", policy, world.benchmarks, student, world.judge)


def grpo_plan(config: Config) -> list[str]:
    """The stages of `grpo_alone` and `grpo_plain`, in order."""
    return ["iter1/2_filter", "iter1/3_grpo", *evaluation_of(config, "iter1/3_grpo")]


def grpo_alone(run: RunFolder, config: Config, world: World) -> None:
    """GRPO from the base model on the problems that Eq. 14 leaves, for as many steps as the method's two iterations."""
    num_steps = sum(run.original_counts(f"iter{t}/3_grpo")["steps"] for t in (1, 2))
    policy = _grpo(run, config, "iter1", world.student.base, world, num_steps)
    evaluate(run, config, "iter1/3_grpo", policy, world.benchmarks, world.student, world.judge)


def grpo_plain(run: RunFolder, config: Config, world: World) -> None:
    """Ordinary GRPO: from the base model over all problems, for Table 6's one epoch."""
    policy = _grpo(run, config, "iter1", world.student.base, world)
    evaluate(run, config, "iter1/3_grpo", policy, world.benchmarks, world.student, world.judge)


def _medium(run: RunFolder, config: Config, world: World) -> tuple[list[SFTExample], Path]:
    """D_acq (Eq. 12), and the policy after its medium phase."""
    problems, student = world.problems, world.student
    graded = estimate_difficulty(run, config, problems, student)
    traces = distill_traces(run, config, problems, graded, student, world.teacher)
    bridged, _ = build_bridge(run, config, problems, graded, traces, student, world.teacher)
    medium_ids = {record.problem_id for record in graded if record.group is DifficultyGroup.MEDIUM}
    medium = medium_set(problems, [trace for trace in traces if trace.problem_id in medium_ids], student.prompts)
    bridge = bridge_set(problems, bridged, student.prompts, config.readings.local_samples)
    acquired = acquisition_set(medium, bridge)
    name, examples = training_order(acquired, 1)[0]
    return acquired, train_sft(run, config, f"iter1/1_sft/{name}", student.base, examples, student)


def _grpo(run: RunFolder, config: Config, t: str, policy: Path, world: World, num_steps: int | None = None) -> Path:
    consolidation, _ = filter_rewards(run, config, f"{t}/2_filter", policy, world.problems, world.student)
    kept_ids = {group.problem_id for group in consolidation}
    kept = [problem for problem in world.problems if problem.id in kept_ids]
    return train_grpo(run, config, f"{t}/3_grpo", policy, kept, world.student, num_steps)


def _examples(problems: Sequence[Problem], traces: Sequence[Trace], world: World) -> list[SFTExample]:
    by_id = {problem.id: problem for problem in problems}
    prompts = world.student.prompts
    return [full_example(by_id[trace.problem_id], trace.text, ExampleKind.TRACE, prompts) for trace in traces]
