"""The tables and figures: the run's numbers, the paper's beside them, nothing where nothing is."""

import json
from dataclasses import replace

import pytest

from reference.paper.reported import QWEN, TABLE_4, TABLE_10
from reference.records import Action, DifficultyGroup
from reference.report.panels import panels
from reference.report.story import read_run
from reference.report.tables import tables


@pytest.fixture(scope="module")
def run(small_run):
    return read_run(small_run)


@pytest.fixture(scope="module")
def by_title(run):
    return {table.title: table for table in tables(run)}


def test_every_row_has_a_cell_for_each_column(by_title):
    assert len(by_title) == 6
    for table in by_title.values():
        assert {len(row) for row in table.rows} == {len(table.head)} and table.source


def test_accuracies_stand_beside_the_papers_rows(run, by_title):
    rows = {row[0]: row for row in by_title["Accuracy after each stage"].rows}
    assert list(rows) == list(dict.fromkeys(result.stage for result in run.results))
    first = run.results[0]
    assert rows["base"][1] == f"{100 * first.accuracy:.1f}"
    assert rows["base"][-4:-2] == [f"{TABLE_10[QWEN]['Base'].gsm8k_platinum:.2f}", "39.38"]
    assert rows["iter2/3_grpo"][-4] == "54.51" and rows["iter2/1_sft/union"][-4] == "50.38"


def test_groups_stand_beside_table_4(run, by_title):
    rows = {row[0]: row for row in by_title["Difficulty groups"].rows}
    for group in DifficultyGroup:
        size = sum(record.group is group for record in run.graded)
        assert rows[group][1:3] == [str(size), f"{100 * size / 12:.1f} %"]
        assert rows[group][3].startswith(f"{TABLE_4[QWEN][group]} (")
    assert rows["simple"][3] == "2616 (35.0 %)"


def test_actions_are_those_of_the_receipt(small_run, by_title):
    counts = json.loads((small_run / "3_bridge/receipt.json").read_text())["counts"]
    rows = {row[0]: row for row in by_title["Bridge actions"].rows}
    assert {action: int(rows[action][1]) for action in Action} == {action: counts[action] for action in Action}
    assert int(rows["all"][3]) == counts["local samples"]


def test_measured_thresholds_stand_beside_tables_8_and_9(run, by_title):
    table = by_title["What the teacher's hard traces are like"]
    rows = table.rows
    assert [rows[at][1] for at in table.paper_rows] == ["paper: Qwen2.5-0.5B", "paper: Llama3.2-1B"] * 3
    assert rows[0][2] == f"{run.calibration['measured']['token_loss']['mean']:.2f}"
    assert [row[2] for row in rows if row[1] == "paper: Qwen2.5-0.5B"] == ["0.99", "242.98", "7.36"]


def test_without_a_usable_trace_tables_8_and_9_stand_alone(run):
    calibration = {
        "used": dict.fromkeys(run.calibration["used"]),
        "measured": dict.fromkeys(run.calibration["measured"]),
    }
    without = {table.title: table for table in tables(replace(run, calibration=calibration))}
    table = without["What the teacher's hard traces are like"]
    assert [row[1] for row in table.rows] == ["paper: Qwen2.5-0.5B", "paper: Llama3.2-1B"] * 3
    assert table.paper_rows == list(range(6)) and "used: none" in table.note


def test_outcomes_are_those_of_the_receipts(small_run, by_title):
    for number, row in enumerate(by_title["Rollouts and failures"].rows, start=1):
        counts = json.loads((small_run / f"iter{number}/2_filter/receipt.json").read_text())["counts"]
        assert [int(row[at]) for at in (1, 3, 4)] == [counts[kind] for kind in ("all-zero", "mixed", "all-one")]


def test_every_figure_says_what_it_shows_where_it_is_from_and_what_the_paper_has(run):
    drawn = panels(run)
    assert [panel.title for panel in drawn][:6] == [
        "Difficulty groups",
        "Bridge actions",
        "Accuracy after each stage",
        "All-zero groups",
        "SFT loss",
        "GRPO reward",
    ]
    assert {panel.title for panel in drawn[6:]} == {
        "KL to the reference",
        "Entropy",
        "Clip fraction",
        "Response length",
    }
    for panel in drawn:
        assert panel.svg.startswith("<svg") and panel.shows and panel.source and "paper" in panel.paper


def test_a_run_that_has_just_begun_has_no_table_and_no_figure(copied):
    for name in ("1_difficulty", "2_traces", "3_bridge", "iter1", "iter2", "eval"):
        (copied / name).rename(copied.parent / f"{name}.away")
    run = read_run(copied)
    assert tables(run) == [] and panels(run) == []


def test_a_run_of_four_iterations_stands_beside_table_11(run):
    results = [replace(run.results[0], stage=f"iter{number}/3_grpo", num_correct=1, accuracy=0.5) for number in (3, 4)]
    longer = replace(run, results=[*run.results, *results], iterations=[*run.iterations, *run.iterations])
    rows = {table.title: table for table in tables(longer)}["Accuracy by iteration"].rows
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[3] == ["3", "50.0", "50.0", "44.09", "42.66"] and rows[0][3:] == ["45.74", "39.38"]


def test_a_chat_teachers_calls_are_counted_and_priced(copied):
    (copied / "teacher").mkdir()
    call = {"verb": "solve", "tokens_read": 1_000_000, "tokens_written": 10}
    lines = [json.dumps(one) + "\n" for one in (call, call, {**call, "verb": "importance", "tokens_written": 980})]
    (copied / "teacher" / "calls-0.jsonl").write_text("".join(lines) + '{"verb": "sol')  # a kill cut the last one
    table = {table.title: table for table in tables(read_run(copied))}["What the teacher was asked"]
    assert table.rows[0] == ["solve", "2", "2000000", "20"] and table.rows[-1] == ["all", "3", "3000000", "1000"]
    assert "about 1.20 USD" in table.note
    (copied / "teacher" / "calls-1.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="calls-1.jsonl is damaged"):
        read_run(copied)
