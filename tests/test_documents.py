"""README and docs/: the paths and commands they name exist."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from reference import records
from reference.config import PRESETS, flatten
from reference.stages.plan import stage_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
TRACKED_PATH = re.compile(r"`((?:reference|tests|docs)/[\w/.]*[\w/]|run_paper\.py|constraints\.txt)`")
COMMAND = re.compile(r"run_paper\.py ((?!-)[\w.-]+)?((?: --[\w.-]+(?: [^-#\n`][^#\n` ]*)*)*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_paths_that_are_named_exist(page):
    for path in TRACKED_PATH.findall(page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_readmes_commands_use_settings_and_stages_that_exist():
    settings = {f"--{name.replace('_', '-')}" for name in flatten(PRESETS["tiny"])}
    settings |= {"--out", "--stages", "--redo", "--dry-run", "--help", "--experiment", "--seeds", "--jobs"}
    commands = COMMAND.findall((ROOT / "README.md").read_text())
    assert len(commands) >= 5
    for preset, options in commands:
        assert not preset or preset in PRESETS
        for option in re.findall(r"--[\w.-]+", options):
            assert option in settings, option
        for stage in re.findall(r"--(?:redo|stages) ((?:[^-\s]\S* ?)+)", options):
            for name in stage.split():
                assert name in stage_names(PRESETS["tiny"]), name


def test_the_readme_shows_the_table_of_a_run():
    text = (ROOT / "README.md").read_text()
    for name in stage_names(PRESETS["tiny"]):
        assert name in text, name
    assert "@@" not in text


def test_the_lines_shown_of_each_file_have_the_fields_of_their_record():
    """Each record's JSON line has the record's fields; those left out have a default of None."""
    page = (ROOT / "docs" / "artifacts.md").read_text()
    shown = re.findall(r"^\*\*`([\w./]+)`\*\* `(\w+)`: .+\n\n```json\n(.+)\n```", page, re.MULTILINE)
    expected = {"Graded", "Trace", "BridgedTrace", "SFTExample", "RolloutGroup", "Diagnosed", "Evaluation"}
    assert expected <= {record for _, record, _ in shown}
    for _, name, line in shown:
        record = getattr(records, name)
        required = {field.name for field in fields(record) if field.default is not None}
        assert required <= set(json.loads(line)) <= {field.name for field in fields(record)}, name
