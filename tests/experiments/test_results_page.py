"""docs/results.md quotes the CSV files beside it; docs/experiments.md is true."""

import re
from pathlib import Path

import pytest

from reference.cli import main
from reference.config import TINY
from reference.experiments.__main__ import markdown
from reference.experiments.claims import claims
from reference.experiments.results import ClaimLine, Line
from reference.experiments.tables import read_csv
from reference.experiments.variants import FULL, VARIANTS, experiments

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
READINGS = (ROOT / "docs" / "readings.md").read_text(encoding="utf-8")
HOW_TO = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")


def test_the_page_quotes_every_table():
    for part in re.split(r"\n(?=### )", markdown(RESULTS)):
        assert part.strip() in PAGE + READINGS, part.splitlines()[0]


def test_the_results_are_of_every_experiment_and_claim():
    for name, experiment in experiments(TINY).items():
        lines = read_csv(RESULTS / f"{name}.csv", Line)
        assert {line.label for line in lines} == {row.label for row in experiment.rows} | dict(experiment.means).keys()
        assert (RESULTS / f"{name}.svg").exists() and f"results/{name}.svg" in PAGE + READINGS
        assert all(line.low <= line.percent <= line.high and line.seeds == "1 2 3" for line in lines)
    judged = read_csv(RESULTS / "claims.csv", ClaimLine)
    assert [(line.experiment, line.claim) for line in judged] == [(one.experiment, one.claim) for one in claims(TINY)]


def test_the_page_counts_the_verdicts_rightly():
    judged = [line.verdict for line in read_csv(RESULTS / "claims.csv", ClaimLine)]
    seen, not_seen, open_ = (judged.count(verdict) for verdict in ("seen", "not seen", "undecided"))
    sentence = f"Of {len(judged)} claims {seen} are seen, {not_seen} not seen, {open_} undecided"
    assert sentence in " ".join(PAGE.split())


def test_every_accuracy_has_its_format_rate():
    for name in set(experiments(TINY)) - {"motivation"}:
        by_row = {}
        for line in read_csv(RESULTS / f"{name}.csv", Line):
            by_row.setdefault(line.label, {})[line.metric] = line.percent
        for metrics in by_row.values():
            benchmarks = {metric.removeprefix("format ") for metric in metrics if metric.startswith("format ")}
            assert len(benchmarks) == 5 and {"average accuracy", "format"} | benchmarks <= set(metrics)
            assert all(metrics[benchmark] <= metrics[f"format {benchmark}"] for benchmark in benchmarks)


def test_the_page_says_what_the_bridges_loss_is_made_of():
    names = ("components", "bridge-operations", "controls", "readings")
    lines = [line for name in names for line in read_csv(RESULTS / f"{name}.csv", Line)]
    found = {(line.label, line.metric): line.percent for line in lines}
    before, after = found["SFT-Medium", "test"], found["SFT-Medium -> Bridged-Hard", "test"]
    readable, still = found["SFT-Medium", "format test"], found["SFT-Medium -> Bridged-Hard", "format test"]
    lost, silent = before - after, readable - still
    raw, local = found["SFT-Medium -> Raw-Hard", "test"], found["SFT-Medium -> local samples alone", "test"]
    localize, shorter = (found[f"w/o {name}, after SFT", "test"] for name in ("Localize", "Comp./Drop"))
    old = found["processed+own_turn (the default of version 0.1), after SFT", "test"]
    for sentence in (
        f"from {before:.1f} to {after:.1f}. Of these {lost:.1f} points {silent:.1f} are responses without a readable",
        f"falls from {readable:.1f} to {still:.1f}); the other {lost - silent:.1f} are wrong answers",
        f"the loss is absent ({raw:.1f}), and with the local samples alone it is largest ({local:.1f}). Without "
        f"Compress and Drop accuracy is {shorter:.1f} and without Localize {localize:.1f}, neither told apart",
        f"GRPO makes up for it: {found['SFT-Medium -> Bridged-Hard + GRPO', 'test']:.1f}",
        f"ended at {old:.1f}; of the {before - old:.1f} points lost then, {after - old:.1f} are no longer lost",
    ):
        assert sentence in " ".join(PAGE.split()), sentence
    assert local < after < localize < shorter < raw and found["SFT-Medium -> Bridged-Hard + GRPO", "test"] > raw
    assert after - old > lost


def test_every_experiment_and_variant_is_described():
    for name in experiments(TINY):
        assert f"| `{name}` |" in HOW_TO
    for name in VARIANTS:
        assert name == FULL or f"`{name}`" in HOW_TO


@pytest.mark.parametrize("name", [*experiments(TINY), "all together"])
def test_the_costs_are_those_of_the_dry_run(name, capsys):
    cells, names = [], list(experiments(TINY)) if name == "all together" else [name]
    for preset in ("qwen2.5-0.5b", "llama3.2-1b"):
        assert main([preset, "--experiment", *names, "--seeds", "1", "--dry-run", "--out", "none"], None) == 0
        printed = capsys.readouterr().out
        total = next(line for line in printed.splitlines() if line.startswith("all together")).split()
        cells += [total[2], total[3], re.search(r"about ([\d.]+) USD", printed)[1]]
    title = name if len(names) > 1 else f"`{name}`"
    assert f"| {title} | {' | '.join(cells)} |" in HOW_TO
