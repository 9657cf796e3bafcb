"""Section 3.2 and Appendix C.1: hard traces through Algorithm 1, thresholds measured on this model (Tables 8, 9)."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from reference.config import Config
from reference.engines.artifacts import read_json, read_records
from reference.engines.learner import frozen_policy
from reference.engines.progress import with_progress
from reference.engines.run_folder import RunFolder
from reference.engines.student import PolicyStepScorer, Student
from reference.interfaces import Teacher
from reference.paper.bridge import bridge_trace, split_steps
from reference.records import (
    Action,
    BridgedTrace,
    DifficultyGroup,
    Graded,
    Problem,
    Thresholds,
    Trace,
)
from reference.stages.ask_teacher import ask_teacher

STAGE = "3_bridge"


@dataclass(frozen=True)
class Calibration:
    """What the teacher's traces of hard problems are like for this student (of all its traces where none is hard).

    `tau_difficulty` is in nats per token, `tau_length` in the student's tokens, `tau_steps` in units. None where the
    teacher has written no trace at all.
    """

    tau_difficulty: float | None
    tau_length: float | None
    tau_steps: float | None


def build_bridge(
    run: RunFolder,
    config: Config,
    problems: Sequence[Problem],
    graded: Sequence[Graded],
    traces: Sequence[Trace],
    student: Student,
    teacher: Teacher,
) -> tuple[list[BridgedTrace], Calibration]:
    """Bridge every hard trace; also the thresholds of near-miss scoring, which Table 9 takes from the same traces."""
    inputs = {"train": run.problems_path, "traces": run.folder("2_traces") / "traces.jsonl", "base": student.base}
    inputs["prompts"] = run.prompts_path
    reads = (
        "seed",
        "model",
        "teacher",
        "bridge",
        "readings.scores_after",
        "recycling.tau_length",
        "recycling.tau_steps",
    )
    stage = run.stage(STAGE, reads, inputs)
    calibration_path = stage.path / "calibration.json"
    if stage.is_done:
        taus = read_json(calibration_path)["used"]
        return read_records(stage.path / "bridged.jsonl", BridgedTrace), Calibration(**taus)
    by_id = {problem.id: problem for problem in problems}
    hard_ids = {record.problem_id for record in graded if record.group is DifficultyGroup.HARD}
    hard = [trace for trace in traces if trace.problem_id in hard_ids]
    scorer = PolicyStepScorer(frozen_policy(student.base, student.device), student)
    calibration, measured = _calibrate(config, by_id, hard or traces, scorer)
    used = {"used": asdict(calibration), "measured": measured}
    stage.write("calibration.json", json.dumps(used, indent=1) + "\n")

    without = [Action(name) for name in config.bridge.without]

    def bridged(trace: Trace) -> BridgedTrace:
        assert calibration.tau_difficulty is not None  # measured on this trace too, or given
        thresholds = Thresholds(config.bridge.tau_importance, config.bridge.tau_jumpiness, calibration.tau_difficulty)
        problem, scores_after = by_id[trace.problem_id], config.readings.scores_after
        return bridge_trace(problem, trace.text, teacher, scorer, thresholds, without, scores_after)

    items = {trace.problem_id: trace for trace in hard}
    limit = config.teacher.max_rejected
    records, rejected = ask_teacher(stage, "bridged.jsonl", BridgedTrace, items, bridged, teacher, limit)
    actions = Counter(step.action for record in records for step in record.steps)
    counts = {"hard traces": len(hard), **{str(action): actions[action] for action in Action}}
    local = sum(step.is_local for record in records for step in record.steps)
    bare = sum(all(step.action is Action.DROP for step in record.steps) for record in records)  # ambiguity A19
    stage.finish({**counts, "local samples": local, "all dropped": bare, "rejected": len(rejected)})
    return records, calibration


def _calibrate(
    config: Config, by_id: dict[str, Problem], traces: Sequence[Trace], scorer: PolicyStepScorer
) -> tuple[Calibration, dict]:
    """Tables 8 and 9 for this student: the mean of each is the threshold unless one is given (ambiguity A16).

    tau_D is measured over the tokens that the D_i of Eq. 8 are measured over.
    """
    process = scorer.student.process
    own = process.share.of(traces)
    logprobs = []
    for trace in with_progress(own, len(own), f"{STAGE}: token losses"):
        steps = scorer.step_logprobs(by_id[trace.problem_id], split_steps(trace.text))
        logprobs.append([logprob for of_step in steps for logprob in of_step])
    losses = [-logprob for of_trace in process.merge(process.share, logprobs) for logprob in of_trace]
    measured = {
        "token_loss": _distribution(losses),
        "tokens": _distribution([trace.num_tokens for trace in traces]),
        "steps": _distribution([trace.num_steps for trace in traces]),
    }
    given = (config.bridge.tau_difficulty, config.recycling.tau_length, config.recycling.tau_steps)
    taus = [
        given_tau if given_tau is not None else table["mean"] if table else None
        for given_tau, table in zip(given, measured.values(), strict=True)
    ]
    return Calibration(*taus), measured


def _distribution(values: Sequence[float]) -> dict[str, float] | None:
    """The columns of Tables 8 and 9."""
    if not values:
        return None
    low, quarter, half, three_quarters, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    mean = float(np.mean(values))
    return {"mean": mean, "min": low, "25%": quarter, "50%": half, "75%": three_quarters, "max": high}
