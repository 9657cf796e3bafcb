"""Appendix A.1: traces of each group for a budget of supervised tokens, fresh ones where the group is small."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from reference.config import Config
from reference.engines.artifacts import read_records
from reference.engines.run_folder import RunFolder, StageFolder
from reference.engines.student import Student
from reference.interfaces import Teacher
from reference.paper.curricula import supervised_tokens
from reference.records import DifficultyGroup, Graded, Problem, Trace
from reference.seeds import seed_of
from reference.stages.ask_teacher import ask_teacher
from reference.stages.distill_traces import trace_of


@dataclass(frozen=True)
class Pools:
    """Traces of each group in the order in which they are drawn; `sizes`: tokens of the first pass over the group."""

    traces: Mapping[DifficultyGroup, Sequence[Trace]]
    sizes: Mapping[DifficultyGroup, int]


def distill_pools(
    run: RunFolder,
    config: Config,
    name: str,
    budget: int,
    problems: Sequence[Problem],
    graded: Sequence[Graded],
    student: Student,
    teacher: Teacher,
) -> Pools:
    """One trace of every problem, then fresh ones of resampled problems until each group has more than `budget` tokens.

    A group without problems has an empty pool. Each pass over a group is a file `GROUP.PASS.jsonl`.
    """
    difficulty = run.folder("1_difficulty") / "difficulty.jsonl"
    inputs = {"train": run.problems_path, "prompts": run.prompts_path, "difficulty": difficulty, "base": student.base}
    stage = run.stage(name, ("seed", "model", "teacher"), {**inputs, "budget": str(budget)})
    by_id = {problem.id: problem for problem in problems}
    traces: dict[DifficultyGroup, list[Trace]] = {}
    sizes, num_rejected = {}, 0
    for group in DifficultyGroup:
        members = [by_id[record.problem_id] for record in graded if record.group is group]
        if stage.is_done:
            passes = _read(stage, group)
        else:
            passes, rejected = _distill(stage, config, group, members, budget, student, teacher)
            num_rejected += rejected
        traces[group] = []
        for attempt, found in enumerate(passes):
            by_problem = {trace.problem_id: trace for trace in found}
            drawn = _drawn(members, config.seed, group, attempt)
            traces[group] += [by_problem[problem.id] for problem in drawn if problem.id in by_problem]
        sizes[group] = sum(map(supervised_tokens, passes[0])) if passes else 0
    if not stage.is_done:
        counts = {f"{group} traces": len(traces[group]) for group in DifficultyGroup}
        stage.finish({**counts, "rejected": num_rejected})
    return Pools(traces, sizes)


def _drawn(members: Sequence[Problem], seed: int, group: DifficultyGroup, attempt: int) -> list[Problem]:
    """The group in the order in which a pass draws from it: each pass resamples in an order of its own."""
    order = list(members)
    Random(seed_of(seed, "pools", str(group), attempt)).shuffle(order)
    return order


def _read(stage: StageFolder, group: DifficultyGroup) -> list[list[Trace]]:
    count = len(list(stage.path.glob(f"{group}.*.jsonl")))
    return [read_records(stage.path / f"{group}.{attempt}.jsonl", Trace) for attempt in range(count)]


def _distill(
    stage: StageFolder,
    config: Config,
    group: DifficultyGroup,
    members: Sequence[Problem],
    budget: int,
    student: Student,
    teacher: Teacher,
) -> tuple[list[list[Trace]], int]:
    """The passes over one group: the first over all of it, later ones over as many problems as are still needed.

    Each has a random order of its own. Returns them, and how many traces were rejected in all.
    """
    passes: list[list[Trace]] = []
    wanted, tokens, num_rejected = list(members), 0, 0
    while wanted:
        attempt = len(passes)
        found, rejected = ask_teacher(
            stage,
            f"{group}.{attempt}.jsonl",
            Trace,
            {problem.id: problem for problem in wanted},
            partial(trace_of, student=student, teacher=teacher, attempt=attempt),
            teacher,
            config.teacher.max_rejected,
            rejections=f"rejected.{group}.{attempt}.jsonl",
        )
        passes.append(found)
        num_rejected += len(rejected)
        if not found:
            break
        tokens += sum(map(supervised_tokens, found))
        lacking = max(0, budget + 1 - tokens)
        mean = tokens / max(1, sum(map(len, passes)))
        needed = math.ceil(1.1 * lacking / mean)  # a pass may be rejected in part
        wanted = _drawn(members, config.seed, group, len(passes))[:needed]
    return passes, num_rejected
