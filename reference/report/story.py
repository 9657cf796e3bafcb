"""A run's folder as plain data: what each stage did, and the records that it left.

Works from the files alone, of a finished run or of one that has got anywhere. What is not there is empty here; whoever
shows it says so.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from reference.config import Config, DataConfig, ReadingsConfig
from reference.engines.artifacts import Record, read_json, read_records
from reference.paper.prompts import Prompts
from reference.records import (
    BridgedTrace,
    Diagnosed,
    Evaluation,
    Graded,
    Problem,
    Rejected,
    RolloutGroup,
    Trace,
    from_json,
)
from reference.stages.plan import stage_names

# What a stage does, by the last part of its name, in the paper's words.
DOES = {
    "base": "greedy accuracy of the base model",
    "1_difficulty": "samples every problem and groups it by its rate of right answers (Eqs. 1-3)",
    "2_traces": "asks the teacher for a trace of each medium and hard problem (Eq. 4)",
    "3_bridge": "scores each step of the hard traces and rewrites it (Eqs. 5-11, Algorithm 1)",
    "1_medium": "trains on the teacher's traces of the medium problems (Eqs. 13, 21)",
    "2_bridge": "trains on the bridged traces and their local samples (Eqs. 13, 21)",
    "union": "trains on both sets again and on what the failures taught, all shuffled into one (Eqs. 20, 21)",
    "3_recycled": "trains on what the failures taught (Eqs. 20, 21)",
    "2_filter": "samples every problem; those with no right answer leave (Eq. 14)",
    "3_grpo": "trains by reward on the rest (Eqs. 22-28)",
    "4_recycle": "has the failures diagnosed and makes samples of them (Eqs. 15-19, 29-34)",
}


@dataclass(frozen=True)
class Stage:
    """One stage of the plan. `state` is done, begun or missing; counts and seconds are those of its receipt."""

    name: str
    state: str
    counts: Mapping[str, object]
    seconds: float | None
    rejected: Sequence[Rejected]

    @property
    def does(self) -> str:
        """One line about it."""
        kind = self.name.rsplit("/", 1)[-1]
        if self.name.startswith("eval/") and kind != "base":
            return f"greedy accuracy of {evaluated_by(self.name)}"
        return DOES[kind]


class Outcome(NamedTuple):
    """A rollout group's rewards, and where its line begins in the file, in bytes.

    The tokens of all groups of a real run are gigabytes: they stay in the file until one is looked at.
    """

    problem_id: str
    rewards: Sequence[float]
    place: int

    @property
    def kind(self) -> str:
        """Eq. (14)'s side, and whether there is anything to compare in the group."""
        if sum(self.rewards) == 0:
            return "all-zero"
        return "all-one" if all(reward == 1 for reward in self.rewards) else "mixed"


@dataclass(frozen=True)
class Iteration:
    """What one SFT-then-RL iteration left. `recycles`: whether its failures were recycled."""

    number: int
    outcomes: Sequence[Outcome] = ()
    diagnosed: Sequence[Diagnosed] = ()
    rejected: Sequence[Rejected] = ()
    recycles: bool = False
    sft: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    grpo: Sequence[Mapping[str, float]] = ()


class Spent(NamedTuple):
    """A chat teacher's answered calls of one kind, and their tokens."""

    verb: str
    calls: int
    tokens_read: int
    tokens_written: int


@dataclass(frozen=True)
class Run:
    """A run's folder. Records are in the order of their files; `calibration` is None before the Bridge stage."""

    path: Path
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    stages: Sequence[Stage]
    problems: Mapping[str, Problem]
    prompts: Prompts
    graded: Sequence[Graded]
    traces: Sequence[Trace]
    bridged: Sequence[BridgedTrace]
    calibration: Mapping[str, Mapping[str, Any]] | None
    iterations: Sequence[Iteration]
    results: Sequence[Evaluation]
    spent: Sequence[Spent]
    tokenizer: Path | None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def unfinished(self) -> list[Stage]:
        """Stages of the plan that are not done."""
        return [stage for stage in self.stages if stage.state != "done"]

    @property
    def seconds(self) -> float:
        """All done stages together."""
        return sum(stage.seconds or 0.0 for stage in self.stages)


def evaluated_by(name: str) -> str:
    """`eval/iter1-3_grpo` evaluates `iter1/3_grpo`."""
    return name.removeprefix("eval/").replace("-", "/")


def read_run(path: Path) -> Run:
    """Everything of a run's folder that a report shows.

    Raises:
        ValueError: it is no run's folder, or one of its files is damaged.
    """
    if not (path / "config.json").exists():
        raise ValueError(f"{path} has no config.json; give the folder of a run, such as runs/tiny")
    settings = read_json(path / "config.json")
    if not {"iterations", "data.tests"} <= settings.keys():
        raise ValueError(f"{path / 'config.json'} is not a run's, a model's perhaps; give the folder of a run")
    if "readings.later_sft" not in settings:
        raise ValueError(f"{path} is a run of an older version of this project; make its report with that version")
    stages = [_stage(path, name) for name in _plan(settings)]
    done = [stage.name for stage in stages if stage.state == "done"]
    bridge = path / "3_bridge"
    environment = path / "environment.json"
    prompts = _records(path / "prompts.json", Prompts)
    return Run(
        path=path,
        settings=settings,
        environment=read_json(environment) if environment.exists() else {},
        stages=stages,
        problems={problem.id: problem for problem in _records(path / "problems.jsonl", Problem)},
        prompts=prompts[0] if prompts else Prompts(),
        graded=_records(path / "1_difficulty" / "difficulty.jsonl", Graded, "1_difficulty" in done),
        traces=_records(path / "2_traces" / "traces.jsonl", Trace, "2_traces" in done),
        bridged=_records(bridge / "bridged.jsonl", BridgedTrace, "3_bridge" in done),
        calibration=read_json(bridge / "calibration.json") if "3_bridge" in done else None,
        iterations=[_iteration(path, number, done) for number in range(1, int(settings["iterations"]) + 1)],
        results=_records(path / "eval" / "results.jsonl", Evaluation),
        spent=_spent(path / "teacher"),
        tokenizer=next(iter(sorted(path.glob("iter*/*/**/checkpoint/tokenizer.json"))), None),
    )


def _plan(settings: Mapping[str, Any]) -> list[str]:
    """The stages that these settings mean."""
    data = DataConfig(tests=tuple(settings["data.tests"]))
    readings = ReadingsConfig(later_sft=settings["readings.later_sft"])
    return stage_names(replace(Config(), iterations=settings["iterations"], data=data, readings=readings))


def _stage(path: Path, name: str) -> Stage:
    receipt = path / name / "receipt.json"
    if not receipt.exists():
        return Stage(name, "missing", {}, None, ())
    values = read_json(receipt)
    if not values.get("done"):
        return Stage(name, "begun", {}, None, ())
    rejected = _records(path / name / "rejected.jsonl", Rejected)
    return Stage(name, "done", values["counts"], values["seconds"], rejected)


def _iteration(path: Path, number: int, done: Iterable[str]) -> Iteration:
    name = f"iter{number}"
    folder, recycle = path / name, f"{name}/4_recycle" in done
    phases = [stage.rsplit("/", 1)[-1] for stage in done if stage.startswith(f"{name}/1_sft/")]
    return Iteration(
        number=number,
        outcomes=_outcomes(_rollouts(path, number)) if f"{name}/2_filter" in done else (),
        diagnosed=_records(folder / "4_recycle" / "diagnosed.jsonl", Diagnosed, recycle),
        rejected=_records(folder / "4_recycle" / "rejected.jsonl", Rejected, recycle),
        recycles=recycle,
        sft={phase: _rows(folder / "1_sft" / phase / "metrics.jsonl") for phase in phases},
        grpo=_rows(folder / "3_grpo" / "metrics.jsonl") if f"{name}/3_grpo" in done else (),
    )


def _records(path: Path, record_type: type[Record], done: bool = True) -> list[Record]:
    """The records of a finished stage's file; none where it is not there."""
    return read_records(path, record_type) if done and path.exists() else []


def _rollouts(path: Path, iteration: int) -> Path:
    return path / f"iter{iteration}" / "2_filter" / "rollouts.jsonl"


def _outcomes(path: Path) -> list[Outcome]:
    """What the rewards of each group are. Raises ValueError where a line is no rollout group."""
    found, place = [], 0
    with open(path, "rb") as file:
        for line in file:
            try:
                values = json.loads(line)
                found.append(Outcome(values["problem_id"], tuple(values["rewards"]), place))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged ({error!r}); --redo its stage, or take another --out") from error
            place += len(line)
    return found


def read_group(run: Run, iteration: int, outcome: Outcome) -> RolloutGroup:
    """The whole group of an outcome. Raises ValueError as `from_json`."""
    with open(_rollouts(run.path, iteration), "rb") as file:
        file.seek(outcome.place)
        return from_json(RolloutGroup, file.readline().decode("utf-8"))


def _spent(folder: Path) -> list[Spent]:
    """By verb, in the order of the method's first calls. A line that a kill cut off is no answered call."""
    found: dict[str, Spent] = {}
    for path in sorted(folder.glob("calls-*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                call = json.loads(line)
                before = found.get(call["verb"], Spent(call["verb"], 0, 0, 0))
                read, written = before.tokens_read + call["tokens_read"], before.tokens_written + call["tokens_written"]
                found[call["verb"]] = Spent(before.verb, before.calls + 1, read, written)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} is damaged ({error!r}); remove the damaged line") from error
    return list(found.values())


def _rows(path: Path) -> list[dict[str, float]]:
    """A training stage's metrics; a stage with nothing to train on has none."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); --redo its stage, or take another --out") from error
