"""The pages of results: the same numbers as the CSV files, beside what the paper prints, and nothing loaded."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from reference.config import TINY
from reference.experiments.__main__ import main, markdown
from reference.experiments.effects import METRICS, Effect
from reference.experiments.page import readings_panel, standalone, write_page
from reference.experiments.readings import READINGS
from reference.experiments.results import ClaimLine, Line, to_csv
from reference.experiments.tables import claims_table, effects_table, grid, paper_numbers, read_csv, table
from reference.experiments.variants import ALL_ZERO, AVERAGE, PASS, experiments
from reference.paper.reported import QWEN, TABLE_10
from reference.report import figures
from tests.experiments.test_results import DONE

CONFIG = replace(TINY, motivation=replace(TINY.motivation, budgets=(200, 400)))
FOUND = experiments(CONFIG)


def lines_of(name):
    """A line of every kind that the experiment has, each with a number of its own."""
    metrics = [PASS] if name == "motivation" else [AVERAGE, PASS, "test", "ood"]
    lines = []
    for row in FOUND[name].rows:
        counted = [ALL_ZERO] if ALL_ZERO in FOUND[name].metrics and "grpo" in row.checkpoint else []
        for metric in [*metrics, *counted]:
            at = len(lines) + 1.25
            lines.append(Line(name, row.label, metric, at, at - 1, at + 2, 50, "1 2", f"{at} {at}"))
    for label, _ in FOUND[name].means:
        at = len(lines) + 1.25
        lines.append(Line(name, label, PASS, at, at - 1, at + 2, 50, "1 2", f"{at} {at}"))
    return lines


def effects():
    """An effect of every kind, each with a number of its own."""
    found = []
    for when, readings in (
        ("after SFT", ["tokens", "processed x tokens"]),
        ("after two iterations", [*READINGS, "a x b"]),
    ):
        for reading in readings:
            for metric in METRICS:
                at = len(found) - 9.25
                found.append(Effect(when, metric, reading, at, at - 1, at + 2, 50, "1 2"))
    return found


EFFECTS = effects()
VERDICTS = [
    ClaimLine("components", "Table 10", "One is above <b>Other</b>", AVERAGE, 2.5, 0.5, 4.5, 50, "1 2", "seen"),
    ClaimLine("all-zero", "Table 3", "Two is above three", PASS, -2.5, -4.5, 0.5, 50, "1 2", "not seen"),
]


@pytest.mark.parametrize("name", FOUND)
def test_a_table_has_every_number_with_its_interval(name):
    text = table(name, FOUND[name], lines_of(name))
    for line in lines_of(name):
        assert f"{line.percent:.1f} ({line.low:.1f} to {line.high:.1f})" in text, line
    assert FOUND[name].source in text and f"`--experiment {name}`" in text and "seeds 1 2" in text
    widths = {row.count(" | ") for row in text.splitlines() if row.startswith("|")}
    assert len(widths) == 1


def test_the_papers_numbers_are_its_own():
    assert paper_numbers("components", "Full Model") == f"{TABLE_10[QWEN]['Full Model'].average:.2f} / 48.53"
    assert paper_numbers("bridge-operations", "w/o Expand, after SFT") == "75.11 / 83.47 (pass@8)"
    assert paper_numbers("bridge-operations", "Raw Hard, after two iterations") == "44.04 / 40.18"
    assert paper_numbers("all-zero", "Initial SFT + GRPO") == "42.16 / 39.21"
    assert paper_numbers("iterations", "Iteration 3") == "42.66 / -"
    assert paper_numbers("controls", "Base") == "-"
    for name in ("components", "bridge-operations", "all-zero", "iterations"):
        assert all(re.match(r"\d+\.\d\d / (\d+\.\d\d|-)", row[-1]) for row in grid(name, lines_of(name))[1:]), name


def test_what_is_written_is_read_again(tmp_path):
    written = (("lines", Line, lines_of("components")), ("claims", ClaimLine, VERDICTS), ("effects", Effect, EFFECTS))
    for name, record_type, lines in written:
        (tmp_path / f"{name}.csv").write_text(to_csv(lines))
        assert read_csv(tmp_path / f"{name}.csv", record_type) == lines


def test_claims_show_difference_and_verdict():
    assert "| +2.5 (+0.5 to +4.5) | **seen** |" in claims_table(VERDICTS)
    assert "| -2.5 (-4.5 to +0.5) | **not seen** |" in claims_table(VERDICTS)


def test_effects_show_every_difference():
    text = effects_table(EFFECTS)
    for effect in EFFECTS:
        assert f"{effect.difference:+.1f} ({effect.low:+.1f} to {effect.high:+.1f})" in text
    assert text.splitlines()[0] == "| | | average accuracy | format | pass@8 |"
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 2 + len(EFFECTS) / len(METRICS)


def test_the_readings_figure_has_a_row_for_each_and_a_heading_for_each_moment():
    svg = readings_panel(EFFECTS).svg
    words = " ".join(re.sub(r"<[^>]+>", " ", svg).split())
    for said in ("after SFT", "after two iterations", *METRICS, "interaction", "percentage points"):
        assert said in words
    assert all(word in words for what in READINGS.values() for word in what.split())


def test_the_command_prints_what_a_folder_has(tmp_path, capsys):
    (tmp_path / "components.csv").write_text(to_csv(lines_of("components")))
    (tmp_path / "claims.csv").write_text(to_csv(VERDICTS))
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == markdown(tmp_path)
    assert "### Components" in markdown(tmp_path) and "### Bridge" not in markdown(tmp_path)
    (tmp_path / "readings.csv").write_text(to_csv(lines_of("readings")))
    assert main([str(tmp_path)]) == 2 and "has no readings-effects.csv" in capsys.readouterr().err
    (tmp_path / "readings-effects.csv").write_text(to_csv(EFFECTS))
    assert effects_table(EFFECTS) in markdown(tmp_path)
    assert main([str(tmp_path / "nothing")]) == main([]) == 2
    assert "has no results; usage" in capsys.readouterr().err


@pytest.fixture
def page(tmp_path):
    lines = [line for name in FOUND for line in lines_of(name)]
    for stage in ("iter1", "iter2", "variants/four-iterations/iter3", "variants/four-iterations/iter4"):
        folder = tmp_path / "out" / "seed-1" / stage / "3_grpo"
        folder.mkdir(parents=True)
        (folder / "receipt.json").write_text(DONE)
        (folder / "metrics.jsonl").write_text('{"reward": 0.25}\n{"reward": 0.5}\n')
    shared = {f"iter{t}/3_grpo": f"../../iter{t}/3_grpo" for t in (1, 2)}
    (tmp_path / "out" / "seed-1" / "variants" / "four-iterations" / "elsewhere.json").write_text(json.dumps(shared))
    path = write_page(tmp_path / "out", FOUND, lines, VERDICTS, EFFECTS, (1, 2))
    return path, path.read_text(encoding="utf-8")


def test_the_page_shows_claims_figures_and_tables_and_loads_nothing(page):
    path, text = page
    assert (
        path.name == "report.html"
        and text.count("<figure>") == len(FOUND) + 2  # the rewards, and the curricula's averages
        and text.count("<table") == len(FOUND) + 1
    )
    assert "of 2 claims 1 seen, 1 not seen, 0 undecided" in text and 'href="seed-2/report.html"' in text
    assert "<b>Other" not in text and "&lt;b&gt;Other" in text
    assert set(re.findall(r'https?://[^"<\s]+', text)) <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert "<script" not in text and "default-src 'none'" in text


def test_the_readings_alone_have_a_page_without_claims(tmp_path):
    only = {"readings": FOUND["readings"]}
    path = write_page(tmp_path / "out", only, lines_of("readings"), [], EFFECTS, (1, 2))
    text = path.read_text(encoding="utf-8")
    assert "1 experiment, seeds 1, 2." in text and "No claim of the paper is about these." in text
    assert "claims.csv" not in text and text.count("<figure>") == 1


def test_each_figure_is_a_file_that_stands_alone(page):
    for name in [*FOUND, "rewards", "motivation-average"]:
        text = (page[0].parent / "results" / f"{name}.svg").read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        used, given = set(re.findall(r"var\((--\w+)\)", text)), set(re.findall(r"(--\w+):#", text))
        assert used and used <= given, name


def test_a_figures_numbers_are_the_tables():
    svg = standalone(figures.bars([figures.Bar("One", 12.5, 10.0, 15.0)], x_label="%", about="A figure", decimals=1))
    assert "12.5" in svg and "One" in svg and 'aria-label="A figure"' in svg


def test_a_damaged_file_is_a_sentence(tmp_path, capsys):
    whole = to_csv(lines_of("all-zero"))
    for damaged in ("", whole[: len(whole) // 2], whole[:-1], whole.replace("percent", "share", 1)):
        (tmp_path / "all-zero.csv").write_text(damaged)
        (tmp_path / "claims.csv").write_text("")
        assert main([str(tmp_path)]) == 2
        assert "all-zero.csv is damaged (" in capsys.readouterr().err
