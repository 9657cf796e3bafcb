"""The results in Markdown: a table for each experiment beside the paper's numbers, and the verdict on each claim."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from reference.experiments.effects import METRICS, Effect
from reference.experiments.results import ClaimLine, Line
from reference.experiments.variants import ALL_ZERO, AVERAGE, FORMAT, PASS, Experiment
from reference.paper.curricula import CURRICULA
from reference.paper.reported import LLAMA, QWEN, TABLE_2, TABLE_3, TABLE_10, TABLE_11

Record = TypeVar("Record", Line, ClaimLine, Effect)
NOT_PRINTED = "-"


def read_csv(path: Path, record_type: type[Record]) -> list[Record]:
    """The lines of a file that `results.to_csv` wrote. Raises ValueError for a damaged one."""
    types: dict[str, Any] = {field.name: field.type for field in fields(record_type)}
    content = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    if not rows or not content.endswith("\n"):
        raise ValueError(f"{path} is damaged (its end is missing); the experiment's command writes it anew")
    try:
        return [record_type(**{name: types[name](text) for name, text in row.items()}) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); the experiment's command writes it anew") from error


def paper_numbers(name: str, label: str) -> str:
    """What the paper prints for a row, Qwen2.5-0.5B / Llama3.2-1B, in percent; a dash where it prints nothing."""
    if name == "components":
        return f"{TABLE_10[QWEN][label].average:.2f} / {TABLE_10[LLAMA][label].average:.2f}"
    if name == "bridge-operations":
        row, _, when = label.partition(", ")
        found = [TABLE_2[model][row] for model in (QWEN, LLAMA)]
        numbers = [one.pass_at_8 if when == "after SFT" else one.average for one in found]
        return f"{numbers[0]:.2f} / {numbers[1]:.2f}" + (" (pass@8)" if when == "after SFT" else "")
    if name == "all-zero":
        return f"{TABLE_3[QWEN][label]:.2f} / {TABLE_3[LLAMA][label]:.2f}"
    if name == "iterations":
        return f"{TABLE_11[0 if label == 'Base' else int(label[-1])].average:.2f} / {NOT_PRINTED}"
    return NOT_PRINTED


def table(name: str, experiment: Experiment, lines: Sequence[Line]) -> str:
    """An experiment's section: title, table, and what its numbers come from."""
    head, *rows = grid(name, lines)
    body = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    sizes: Mapping[str, int] = {line.metric: line.num_problems for line in lines}
    problems = ", ".join(f"{metric} {sizes[metric]}" for metric in shown(lines))
    return (
        f"### {experiment.title}: {experiment.source}\n\n{body}\n\n"
        f"Percent with a 95% interval; seeds {lines[0].seeds}; problems: {problems}. `--experiment {name}`."
    )


def shown(lines: Sequence[Line]) -> list[str]:
    """The metrics that a table has room for; the format rate of each benchmark is in the CSV only."""
    metrics = [line.metric for line in lines if not line.metric.startswith(f"{FORMAT} ")]
    return sorted(dict.fromkeys(metrics), key=[AVERAGE, FORMAT, PASS, ALL_ZERO, *metrics].index)


def grid(name: str, lines: Sequence[Line]) -> list[list[str]]:
    """Head and rows as text: a column for each metric and the paper's, of the motivating experiment for each budget."""
    if name == "motivation":
        return _by_budget(lines)
    by_row: dict[str, dict[str, Line]] = {}
    for line in lines:
        by_row.setdefault(line.label, {})[line.metric] = line
    metrics = shown(lines)
    rows = [["", *metrics, "the paper: Qwen2.5-0.5B / Llama3.2-1B"]]
    for label, found in by_row.items():
        cells = [cell(found[metric]) if metric in found else NOT_PRINTED for metric in metrics]
        rows.append([label, *cells, paper_numbers(name, label)])
    return rows


def _by_budget(lines: Sequence[Line]) -> list[list[str]]:
    by_label = {line.label: line for line in lines}
    budgets = list(dict.fromkeys(label.split()[1] for label in by_label if " " in label))  # and their average
    rows = [["pass@8", *(f"{budget} tokens" if budget.isdigit() else budget for budget in budgets)]]
    rows.append(["base", *[cell(by_label["base"])] * len(budgets)])
    for curriculum in CURRICULA:
        rows.append([curriculum, *(cell(by_label[f"{curriculum} {budget}"]) for budget in budgets)])
    return rows


def cell(line: Line) -> str:
    """A number with its interval; of a format rate, which stands beside the accuracy, the number alone."""
    if line.metric == FORMAT:
        return f"{line.percent:.1f}"
    return f"{line.percent:.1f} ({line.low:.1f} to {line.high:.1f})"


def effects_table(effects: Sequence[Effect]) -> str:
    """Main effects and interactions of the readings, a column for each metric."""
    rows = [f"| | | {' | '.join(METRICS)} |", f"| --- | --- |{' --- |' * len(METRICS)}"]
    for when, reading in dict.fromkeys((effect.when, effect.reading) for effect in effects):
        found = {effect.metric: effect for effect in effects if (effect.when, effect.reading) == (when, reading)}
        cells = [f"{found[m].difference:+.1f} ({found[m].low:+.1f} to {found[m].high:+.1f})" for m in METRICS]
        rows.append(f"| {when} | {reading} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"Percentage points with a 95% interval; seeds {effects[0].seeds}."])


def claims_table(verdicts: Sequence[ClaimLine]) -> str:
    """Every claim with its paired difference and verdict."""
    rows = [
        "| claim of the paper | where | metric | difference in points | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    for line in verdicts:
        difference = f"{line.difference:+.1f} ({line.low:+.1f} to {line.high:+.1f})"
        rows.append(f"| {line.claim} | {line.source} | {line.metric} | {difference} | **{line.verdict}** |")
    sizes = sorted({line.num_problems for line in verdicts})
    rows += ["", f"Paired over {' or '.join(map(str, sizes))} problems; seeds {verdicts[0].seeds}."]
    return "\n".join(rows)
