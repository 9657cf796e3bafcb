"""docs/metrics.md explains every field that a run writes, and none besides."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from reference.engines.run_folder import read_receipt
from reference.records import Evaluation
from tests.report.conftest import read_lines

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def rows_of(section):
    """The cells of a section's table, without its head."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def explained(section):
    """The names in the first column."""
    return [row[0].strip("`") for row in rows_of(section)]


@pytest.mark.parametrize(
    ("section", "pattern", "files"),
    [
        ("SFT: a line an optimizer step", "iter*/1_sft/*/metrics.jsonl", 3),
        ("GRPO: a line a rollout batch", "iter*/3_grpo/metrics.jsonl", 2),
        ("Time", "iter*/3_grpo/timing.jsonl", 2),
    ],
)
def test_the_table_has_the_fields_of_the_file_in_their_order(small_run, section, pattern, files):
    paths = sorted(small_run.glob(pattern))
    assert len(paths) == files
    for path in paths:
        for row in read_lines(path):
            assert list(row) == explained(section), path


def test_the_table_of_evaluations_has_the_fields_of_the_record():
    assert explained("Evaluations") == [field.name for field in fields(Evaluation)]


def test_the_counts_are_those_of_the_receipts(small_run):
    found = set()
    for path in small_run.rglob("receipt.json"):
        stage = re.sub(r"^iter\d", "iterN", path.parent.relative_to(small_run).as_posix())
        stage = re.sub(r"^iterN/1_sft/\w+", "iterN/1_sft/PHASE", re.sub(r"^eval/.*", "eval/NAME", stage))
        counts = read_receipt(path)["counts"]
        found |= {(stage, re.sub(r"^% .*", "% BENCHMARK", name)) for name in counts}
    rows = rows_of("Counts in the receipts")
    listed = [(row[0].strip("`"), name) for row in rows for name in re.findall(r"`([^`]+)`", row[1])]
    assert len(set(listed)) == len(listed)
    assert set(listed) == found


def test_every_field_says_where_it_comes_from_and_what_it_means():
    for section in ("SFT: a line an optimizer step", "GRPO: a line a rollout batch", "Time", "Evaluations"):
        for row in rows_of(section):
            assert len(row) == 6 and row[1] and "](../reference/" in row[3], row[0]


def test_the_bounds_that_the_page_gives_hold(small_run):
    rows = [row for path in small_run.glob("iter*/3_grpo/metrics.jsonl") for row in read_lines(path)]
    assert rows
    for row in rows:
        assert row["all_zero"] + row["all_one"] + row["mixed"] == pytest.approx(1)
        assert row["sampler_gap"] < 1e-5 and row["kl"] >= 0 and row["entropy"] > 0
