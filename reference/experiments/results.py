"""From the folders of several seeds to tables: every row with its interval, every claim with its verdict."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from reference.engines.artifacts import read_json, read_records
from reference.engines.run_folder import ELSEWHERE, is_done
from reference.experiments.statistics import Estimate, estimate, verdict
from reference.experiments.variants import ALL_ZERO, AVERAGE, FORMAT, FULL, PASS, Experiment, Row
from reference.paper.pass_at_k import pass_at_k
from reference.records import Evaluated, Evaluation, RolloutGroup, Sampled
from reference.stages.evaluate import K
from reference.stages.plan import filter_of

SEED = "seed-"  # and its number: the folder of a seed


@dataclass(frozen=True)
class Line:
    """One number of a table, in percent: the mean over problems and seeds, its interval, and each seed's own."""

    experiment: str
    label: str
    metric: str
    percent: float
    low: float
    high: float
    num_problems: int
    seeds: str
    by_seed: str


@dataclass(frozen=True)
class ClaimLine:
    """What the paper claims, and what was seen: the paired difference in percentage points."""

    experiment: str
    source: str
    claim: str
    metric: str
    difference: float
    low: float
    high: float
    num_problems: int
    seeds: str
    verdict: str


@dataclass(frozen=True)
class Claim:
    """`better` is above `worse` by `metric`, as the paper has it; several labels stand for their mean."""

    experiment: str
    source: str
    claim: str
    metric: str
    better: tuple[str, ...]
    worse: tuple[str, ...]


def find_stage(seed_folder: Path, variant: str, stage: str) -> Path | None:
    """Where a variant's finished stage lies: in its own folder, or where it was taken from; None before it is done."""
    own = seed_folder if variant == FULL else seed_folder / "variants" / variant
    elsewhere = read_json(own / ELSEWHERE) if variant != FULL and (own / ELSEWHERE).exists() else {}
    folders = [own / stage, *([own / elsewhere[stage]] if stage in elsewhere else [])]
    return next((folder.resolve() for folder in folders if is_done(folder)), None)


def folder_of(seed_folder: Path, variant: str, stage: str) -> Path:
    """As `find_stage`. Raises ValueError before it is done."""
    found = find_stage(seed_folder, variant, stage)
    if found is None:
        name = stage if variant == FULL else f"variants/{variant}/{stage}"
        raise ValueError(f"{seed_folder / name} is not done yet; run the experiment to its end")
    return found


def outcomes(seed_folders: Sequence[Path], row: Row, metric: str) -> list[np.ndarray]:
    """[S, N] of each benchmark that the metric is about: right or wrong, a pass@8, with a readable answer or without.

    `metric` is a benchmark's name, `format` with or without one behind it, or another of the names in `variants.py`.
    """
    if metric == ALL_ZERO:
        stage = filter_of(row.checkpoint)
        return [np.array([_all_zero(folder_of(folder, row.variant, stage)) for folder in seed_folders])]
    stage = f"eval/{row.checkpoint.replace('/', '-')}"
    folders = [folder_of(folder, row.variant, stage) for folder in seed_folders]
    names = benchmarks(folders[0])
    if metric == PASS:
        return [np.array([_passed(folder / f"{names[0]}.samples.jsonl") for folder in folders])]
    of_format = metric.split(" ")[0] == FORMAT
    chosen = names if metric in (AVERAGE, FORMAT) else [metric.removeprefix(f"{FORMAT} ")]
    return [np.array([_judged(folder / f"{name}.jsonl", of_format) for folder in folders]) for name in chosen]


def benchmarks(evaluation: Path) -> list[str]:
    """The benchmarks of an evaluation, the in-domain one first."""
    return [result.benchmark for result in read_records(evaluation / "results.jsonl", Evaluation)]


def _judged(path: Path, of_format: bool) -> list[float]:
    """Whether each greedy response is right, or whether it has an answer that can be read."""
    return [float(one.has_answer if of_format else one.correct) for one in read_records(path, Evaluated)]


def _passed(path: Path) -> list[float]:
    return [pass_at_k(count.num_samples, count.num_correct, K) for count in read_records(path, Sampled)]


def _all_zero(stage: Path) -> list[float]:
    return [float(sum(group.rewards) == 0) for group in read_records(stage / "rollouts.jsonl", RolloutGroup)]


def lines_of(name: str, experiment: Experiment, seed_folders: Sequence[Path]) -> list[Line]:
    """Every row by every metric of an experiment."""
    lines = []
    for row in experiment.rows:
        for metric in _metrics(experiment, row, seed_folders[0]):
            found = outcomes(seed_folders, row, metric)
            by_seed = np.mean([outcome.mean(axis=1) for outcome in found], axis=0)
            lines.append(_line(name, row.label, metric, estimate(found), by_seed, seed_folders))
    for label, labels in experiment.means:
        metric = experiment.metrics[0]
        found = mean_outcomes(labels, metric, experiment, seed_folders)
        by_seed = np.mean([outcome.mean(axis=1) for outcome in found], axis=0)
        lines.append(_line(name, label, metric, estimate(found), by_seed, seed_folders))
    return lines


def _metrics(experiment: Experiment, row: Row, seed_folder: Path) -> list[str]:
    if experiment.metrics == (PASS,):
        return [PASS]
    names = benchmarks(folder_of(seed_folder, row.variant, f"eval/{row.checkpoint.replace('/', '-')}"))
    counted = [ALL_ZERO] if ALL_ZERO in experiment.metrics and row.checkpoint.endswith("3_grpo") else []
    return [AVERAGE, FORMAT, PASS, *names, *(f"{FORMAT} {name}" for name in names), *counted]


def _line(
    name: str, label: str, metric: str, found: Estimate, by_seed: np.ndarray, seed_folders: Sequence[Path]
) -> Line:
    return Line(
        experiment=name,
        label=label,
        metric=metric,
        percent=percent(found.mean),
        low=percent(found.low),
        high=percent(found.high),
        num_problems=found.num_problems,
        seeds=seeds_of(seed_folders),
        by_seed=" ".join(f"{percent(value):.2f}" for value in by_seed),
    )


def seeds_of(seed_folders: Sequence[Path]) -> str:
    """The numbers of the seeds, as the files have them."""
    return " ".join(folder.name.removeprefix(SEED) for folder in seed_folders)


def percent(share: float) -> float:
    """A share in percent, to two decimals."""
    return round(100 * float(share), 2)


def judged(claim: Claim, experiment: Experiment, seed_folders: Sequence[Path]) -> ClaimLine:
    """The claim's paired difference over the same problems and seeds, and the verdict on it."""
    better, worse = (
        mean_outcomes(labels, claim.metric, experiment, seed_folders) for labels in (claim.better, claim.worse)
    )
    difference = estimate([above - below for above, below in zip(better, worse, strict=True)])
    return ClaimLine(
        experiment=claim.experiment,
        source=claim.source,
        claim=claim.claim,
        metric=claim.metric,
        difference=percent(difference.mean),
        low=percent(difference.low),
        high=percent(difference.high),
        num_problems=difference.num_problems,
        seeds=seeds_of(seed_folders),
        verdict=verdict(difference),
    )


def mean_outcomes(
    labels: Sequence[str], metric: str, experiment: Experiment, seed_folders: Sequence[Path]
) -> list[np.ndarray]:
    """As `outcomes`, the mean over these rows of the experiment."""
    rows = {row.label: row for row in experiment.rows}
    found = [outcomes(seed_folders, rows[label], metric) for label in labels]
    return [np.mean(of_benchmark, axis=0) for of_benchmark in zip(*found, strict=True)]


def to_csv(lines: Sequence[Any]) -> str:
    """One line each, under the names of the fields."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(lines[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    return text.getvalue()


def describe_results(lines: Sequence[Line], verdicts: Sequence[ClaimLine]) -> str:
    """Averages and pass@8 of each row, and the verdict on each claim, for the terminal."""
    text = [f"{'experiment':<20}{'':<52}{'metric':<20}{'percent':>8}  95% interval"]
    for line in lines:
        if line.metric in (AVERAGE, FORMAT, PASS, ALL_ZERO):
            number = f"{line.percent:>8.1f}  {line.low:.1f} to {line.high:.1f}"
            text.append(f"{line.experiment:<20}{line.label:<52}{line.metric:<20}{number}")
    if verdicts:
        text += ["", "what the paper claims, as the paired difference in points with its 95% interval"]
    text += [
        f"{line.verdict:<12}{line.difference:>6.1f}  {line.low:>5.1f} to {line.high:>5.1f}  {line.claim}"
        f" ({line.source}, {line.metric})"
        for line in verdicts
    ]
    return "\n".join(text)
