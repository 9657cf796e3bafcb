"""The report's tables: a run's numbers beside the paper's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reference.paper.reported import (
    QWEN,
    TABLE_4,
    TABLE_8,
    TABLE_9_STEPS,
    TABLE_9_TOKENS,
    TABLE_11,
    Distribution,
    stage_rows,
)
from reference.records import Action, DifficultyGroup, Evaluation
from reference.report.panels import MODELS
from reference.report.story import Run
from reference.stages.report import PAPER_ROW, wilson_interval

OWN = "this run"
STATISTICS = ("mean", "min", "25%", "50%", "75%", "max")


class Table(NamedTuple):
    """Cells as text, the first `num_labels` of a row its labels. Note and file stand below.

    What is the paper's is marked: `papers`, whose the last columns are and how many each has, and `paper_rows`.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str
    note: str = ""
    papers: Sequence[tuple[str, int]] = ()
    paper_rows: Sequence[int] = ()
    num_labels: int = 1


def tables(run: Run) -> list[Table]:
    """All tables that the run has the numbers for, in the order of the reader's interest."""
    of_results = [accuracies(run), benchmarks(run), iterations(run)]
    of_stages = [groups(run), calibration(run), actions(run), rollouts(run), teacher(run)]
    return [table for table in (*of_results, *of_stages) if table is not None]


def accuracies(run: Run) -> Table | None:
    """Beside Table 10."""
    if not run.results:
        return None
    rows = []
    for stage, results in _by_stage(run.results).items():
        first, total = results[0], sum(result.num_problems for result in results)
        low, high = wilson_interval(first.num_correct, first.num_problems)
        average = sum(result.accuracy for result in results) / len(results)
        readable = sum(result.format_rate * result.num_problems for result in results) / total
        sampled = "" if first.pass_at_8 is None else f"{100 * first.pass_at_8:.1f}"
        own = [f"{100 * first.accuracy:.1f}", f"{100 * low:.1f} – {100 * high:.1f}", f"{100 * average:.1f}", sampled]
        rows.append([stage, *own, f"{100 * readable:.1f}", *_reported(stage)])
    benchmark, size = run.results[0].benchmark, run.results[0].num_problems
    return Table(
        "Accuracy after each stage",
        [
            "checkpoint of",
            f"% of {benchmark}",
            "95% interval",
            "average",
            "pass@8",
            "format",
            *(["Platinum", "average"] * len(MODELS)),
        ],
        rows,
        "eval/results.jsonl",
        f"Greedy, on {benchmark} ({size} problems); the average is over all benchmarks; pass@8 is sampled; format is "
        "the share of responses with a readable answer line. The paper's: Table 10, GSM8K-Platinum and the average "
        "of five benchmarks; its recycling row is read as the second iteration's SFT (ambiguity A28).",
        papers=[(f"paper: {name}", 2) for name in MODELS.values()],
    )


def _by_stage(results: Sequence[Evaluation]) -> Mapping[str, list[Evaluation]]:
    by_stage: dict[str, list[Evaluation]] = {}
    for result in results:
        by_stage.setdefault(result.stage, []).append(result)
    return by_stage


def _reported(stage: str) -> list[str]:
    if stage not in PAPER_ROW:
        return ["", ""] * len(MODELS)
    found = [stage_rows(model)[PAPER_ROW[stage]] for model in MODELS]
    return [f"{value:.2f}" for row in found for value in (row.gsm8k_platinum, row.average)]


def benchmarks(run: Run) -> Table | None:
    """Each benchmark by itself."""
    if not run.results:
        return None
    sizes = {result.benchmark: result.num_problems for result in run.results}
    rows = []
    for stage, results in _by_stage(run.results).items():
        cells = {
            result.benchmark: f"{100 * result.accuracy:.1f} | {100 * result.format_rate:.0f}" for result in results
        }
        rows.append([stage, *(cells.get(name, "") for name in sizes)])
    return Table(
        "Accuracy on each benchmark",
        ["checkpoint of", *(f"{name} (n {size})" for name, size in sizes.items())],
        rows,
        "eval/results.jsonl",
        "Greedy accuracy | responses with a readable answer, both in %. The first benchmark is the in-domain one.",
    )


def iterations(run: Run) -> Table | None:
    """Beside Table 11, for a run of more iterations than Table 10 has."""
    if not run.results or len(run.iterations) <= 2:
        return None
    by_stage = _by_stage(run.results)
    rows = []
    for number in range(len(run.iterations) + 1):
        results = by_stage.get(f"iter{number}/3_grpo" if number else "base")
        if results:
            average = sum(result.accuracy for result in results) / len(results)
            row = TABLE_11.get(number)
            reported = [f"{row.gsm8k_platinum:.2f}", f"{row.average:.2f}"] if row else ["", ""]
            rows.append([str(number), f"{100 * results[0].accuracy:.1f}", f"{100 * average:.1f}", *reported])
    return Table(
        "Accuracy by iteration",
        ["iteration", f"% of {run.results[0].benchmark}", "average", "Platinum", "average"],
        rows,
        "eval/results.jsonl",
        "After each iteration's GRPO; 0 is the base model. The paper's: Table 11, which has Qwen2.5-0.5B only and "
        "counts the first recycling into iteration 1 (ambiguity A28).",
        papers=[(f"paper: {MODELS[QWEN]}", 2)],
    )


def groups(run: Run) -> Table | None:
    """Beside Table 4."""
    if not run.graded:
        return None
    counts, total = Counter(record.group for record in run.graded), len(run.graded)
    rows = []
    for group in DifficultyGroup:
        papers = [TABLE_4[model][group] for model in MODELS]
        sums = [sum(TABLE_4[model].values()) for model in MODELS]
        of_paper = [f"{size} ({100 * size / whole:.1f} %)" for size, whole in zip(papers, sums, strict=True)]
        rows.append([str(group), str(counts[group]), f"{100 * counts[group] / total:.1f} %", *of_paper])
    samples = run.graded[0].num_samples
    return Table(
        "Difficulty groups",
        ["group", "problems", "share", *MODELS.values()],
        rows,
        "1_difficulty/difficulty.jsonl",
        f"By the share of right answers in {samples} samples (Eq. 3). The paper's: Table 4, 64 samples.",
        papers=[("paper, on GSM8K", len(MODELS))],
    )


def calibration(run: Run) -> Table | None:
    """Beside Tables 8 and 9."""
    if run.calibration is None:
        return None
    measured = run.calibration["measured"]
    kinds = [
        ("token loss, nats", "token_loss", TABLE_8, 2),
        ("trace length, tokens", "tokens", TABLE_9_TOKENS, 0),
        ("trace length, steps", "steps", TABLE_9_STEPS, 0),
    ]
    rows = []
    for label, name, reported, decimals in kinds:
        if table := measured.get(name):  # None where the teacher had no usable trace to measure
            rows.append([label, OWN, *(_rounded(table[key], decimals) for key in STATISTICS)])
        rows += [[label, f"paper: {MODELS[model]}", *_distribution(reported[model], decimals)] for model in MODELS]
    used = run.calibration["used"]
    taus = ", ".join(f"{name} {value:.2f}" for name, value in used.items() if value is not None)
    return Table(
        "What the teacher's hard traces are like",
        ["", "", *STATISTICS],
        rows,
        "3_bridge/calibration.json",
        f"Their means are the thresholds where none are given; used: {taus or 'none'}. The paper's: Tables 8 and 9.",
        paper_rows=[at for at, row in enumerate(rows) if row[1] != OWN],
        num_labels=2,
    )


def _distribution(values: Distribution, decimals: int) -> list[str]:
    return [_rounded(value, decimals) for value in values]


def _rounded(value: float, decimals: int) -> str:
    """A mean of whole numbers keeps two decimals."""
    return f"{value:.0f}" if decimals == 0 and float(value).is_integer() else f"{value:.2f}"


def actions(run: Run) -> Table | None:
    """Algorithm 1's operations, in numbers."""
    steps = [step for record in run.bridged for step in record.steps]
    if not steps:
        return None
    counts, local = Counter(step.action for step in steps), Counter(step.action for step in steps if step.is_local)
    rows = [
        [str(action), str(counts[action]), f"{100 * counts[action] / len(steps):.1f} %", str(local[action])]
        for action in Action
    ]
    return Table(
        "Bridge actions",
        ["action", "steps", "share", "local samples"],
        [*rows, ["all", str(len(steps)), "100.0 %", str(sum(local.values()))]],
        "3_bridge/bridged.jsonl",
        "The paper's Figure 10 prints no numbers.",
    )


def rollouts(run: Run) -> Table | None:
    """Eq. (14) in each iteration."""
    rows = []
    for iteration in run.iterations:
        if iteration.outcomes:
            counts, total = Counter(outcome.kind for outcome in iteration.outcomes), len(iteration.outcomes)
            share = f"{100 * counts['all-zero'] / total:.1f} %"
            recycled = str(len(iteration.diagnosed)) if iteration.recycles else "none: nothing follows"
            numbers = [str(counts["all-zero"]), share, str(counts["mixed"]), str(counts["all-one"])]
            rows.append([f"iteration {iteration.number}", *numbers, recycled])
    if not rows:
        return None
    return Table(
        "Rollouts and failures",
        ["", "all-zero", "share", "mixed", "all-one", "diagnosed"],
        rows,
        "iterN/2_filter/rollouts.jsonl, iterN/4_recycle/diagnosed.jsonl",
        "Groups of responses to each training problem after the iteration's SFT (Eq. 14).",
    )


def teacher(run: Run) -> Table | None:
    """What a chat teacher was asked, and what it cost at the prices given."""
    if not run.spent:
        return None
    rows = [[one.verb, f"{one.calls}", f"{one.tokens_read}", f"{one.tokens_written}"] for one in run.spent]
    calls, read, written = (sum(values) for values in zip(*(one[1:] for one in run.spent), strict=True))
    prices = run.settings["teacher.input_price"], run.settings["teacher.output_price"]
    dollars = (read * prices[0] + written * prices[1]) / 1e6
    return Table(
        "What the teacher was asked",
        ["", "calls", "tokens read", "tokens written"],
        [*rows, ["all", f"{calls}", f"{read}", f"{written}"]],
        "teacher/calls-*.jsonl",
        f"Answered calls of {run.settings['teacher.model']}, bad answers too: about {dollars:.2f} USD at {prices[0]} "
        f"for a million tokens read and {prices[1]} for a million written.",
    )
