"""The table at the end of a run: what was measured, beside what the paper reports for the same stages.

    python -m reference.stages.report runs/seed1 runs/seed2 runs/seed3

prints the mean over several runs, with the sample standard deviation in brackets.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from reference.engines.artifacts import read_records
from reference.paper.reported import LLAMA, QWEN, stage_rows
from reference.records import Evaluation

# Our stage -> the paper's row (Table 10). The last SFT of iteration 2, the first one on what was recycled, is the
# paper's "+ Recycling" (ambiguity A28): one union, or the third of its phases (ambiguity A29).
PAPER_ROW = {
    "base": "base",
    "iter1/1_sft/1_medium": "sft_medium",
    "iter1/1_sft/2_bridge": "sft_bridged",
    "iter1/3_grpo": "grpo",
    "iter2/1_sft/union": "sft_recycled",
    "iter2/1_sft/3_recycled": "sft_recycled",
    "iter2/3_grpo": "full",
}
LEGEND = """\
accuracy: greedy, % of the first benchmark, with its 95% interval (Wilson) · average: greedy, over all benchmarks
pass@8: from samples on the first benchmark · format: % of all greedy responses with a readable `#### answer`
paper: GSM8K-Platinum | average of five benchmarks, other models on other data: beside, not against, these numbers"""


def wilson_interval(num_correct: int, num_problems: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927), in [0, 1]; usable at 0 and at 1 too."""
    share = num_correct / num_problems
    centre = share + z * z / (2 * num_problems)
    half = z * math.sqrt(share * (1 - share) / num_problems + z * z / (4 * num_problems**2))
    scale = 1 + z * z / num_problems
    return (centre - half) / scale, (centre + half) / scale


def final_table(results: Sequence[Evaluation]) -> str:
    """One row for the base and for each stage that was evaluated, in the order of the run."""
    head = f"{'':24}{'accuracy':>22}{'average':>9}{'pass@8':>8}{'format':>8}{'n':>6}"
    head += f"    {'paper: Qwen2.5-0.5B':>20}  {'paper: Llama3.2-1B':>19}"
    by_stage: dict[str, list[Evaluation]] = {}
    for result in results:
        by_stage.setdefault(result.stage, []).append(result)
    rows = [_row(stage, rows) for stage, rows in by_stage.items()]
    return "\n".join([head, *rows, "", *_by_benchmark(by_stage), "", LEGEND])


def _by_benchmark(by_stage: Mapping[str, Sequence[Evaluation]]) -> list[str]:
    """Accuracy and format rate on each benchmark, whose size stands in the head."""
    sizes = {result.benchmark: result.num_problems for results in by_stage.values() for result in results}
    titles = {name: f"{name} (n {size})" for name, size in sizes.items()}
    lines = [f"{'accuracy | format':24}" + "".join(f"{title:>{len(title) + 3}}" for title in titles.values())]
    for stage, results in by_stage.items():
        cells = {
            result.benchmark: f"{100 * result.accuracy:.1f} | {100 * result.format_rate:.1f}" for result in results
        }
        lines.append(f"{stage:24}" + "".join(f"{cells.get(name, ''):>{len(titles[name]) + 3}}" for name in sizes))
    return lines


def _row(stage: str, rows: Sequence[Evaluation]) -> str:
    first = rows[0]
    low, high = wilson_interval(first.num_correct, first.num_problems)
    accuracy = f"{100 * first.accuracy:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    average = 100 * sum(row.accuracy for row in rows) / len(rows)
    total = sum(row.num_problems for row in rows)
    readable = 100 * sum(row.format_rate * row.num_problems for row in rows) / total
    sampled = "" if first.pass_at_8 is None else f"{100 * first.pass_at_8:.1f}"
    line = f"{stage:24}{accuracy:>22}{average:>9.1f}{sampled:>8}{readable:>8.1f}{first.num_problems:>6}"
    return line + f"    {_reported(QWEN, stage):>20}  {_reported(LLAMA, stage):>19}"


def _reported(model: str, stage: str) -> str:
    if stage not in PAPER_ROW:
        return ""
    row = stage_rows(model)[PAPER_ROW[stage]]
    return f"{row.gsm8k_platinum:.2f} | {row.average:.2f}"


def seeds_table(runs: Sequence[Sequence[Evaluation]]) -> str:
    """Mean (sample standard deviation) over runs of the same stages: the columns of a run's table, and n.

    Raises:
        ValueError: the runs have not evaluated the same stages on the same benchmarks.
    """
    evaluated = [[(result.stage, result.benchmark) for result in results] for results in runs]
    if any(pairs != evaluated[0] for pairs in evaluated):
        raise ValueError("these runs have not evaluated the same stages and benchmarks; let the unfinished ones end")
    stages = list(dict.fromkeys(stage for stage, _ in evaluated[0]))
    lines = ["| stage | accuracy | average | pass@8 | format | n |", "|---|---|---|---|---|---|"]
    for stage in stages:
        rows = [[result for result in results if result.stage == stage] for results in runs]
        accuracy = [100 * row[0].accuracy for row in rows]
        average = [100 * statistics.fmean(result.accuracy for result in row) for row in rows]
        sampled = [100 * row[0].pass_at_8 for row in rows if row[0].pass_at_8 is not None]
        readable = [100 * statistics.fmean(result.format_rate for result in row) for row in rows]
        means = (_mean_and_deviation(values) for values in (accuracy, average, sampled, readable))
        cells = [stage, *means, str(rows[0][0].num_problems)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_deviation(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "".join(f"{value:.1f}" for value in values)
    return f"{statistics.fmean(values):.1f} ({statistics.stdev(values):.1f})"


def main() -> None:
    """Read the runs named on the command line and print their table."""
    parser = argparse.ArgumentParser(description="Mean and standard deviation over several runs.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    paths = [folder / "eval" / "results.jsonl" for folder in parser.parse_args().runs]
    try:
        print(seeds_table([read_records(path, Evaluation) for path in paths]))
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
