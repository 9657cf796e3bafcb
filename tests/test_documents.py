"""The Markdown pages: links with their anchors, `file::name`, paths and commands that they name exist."""

import ast
import json
import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from reference import records
from reference.cli import parse
from reference.config import PRESETS, check
from reference.stages.plan import stage_names

ROOT = Path(__file__).parents[1]
PAGES = [
    *(path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if path.exists()),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "reference").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NAME = re.compile(r"\b((?:reference|tests)/[\w/]+\.py|run_paper\.py)::(\w+(?:\.\w+)?)")
TRACKED_PATH = re.compile(r"`((?:reference|tests|docs)/[\w/.]*[\w/]|run_paper\.py|constraints\.txt)`")


def without_code(text):
    """A page without its code blocks, which may hold brackets and `#` of their own."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(page):
    """What GitHub and the site make of each heading: lower case, hyphens for spaces, no other punctuation."""
    headings = HEADING.findall(without_code(page.read_text("utf-8")))
    return [re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings]


@cache
def names_in(path):
    """The functions, classes, methods (`Class.method`) and constants that a file defines at its top."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_there_are_pages():
    assert len(PAGES) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in LINK.findall(without_code(page.read_text("utf-8"))):
        path, _, anchor = target.partition("#")
        if target.startswith("http"):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists() and linked.is_relative_to(ROOT), target
        if anchor:
            assert linked.suffix == ".md" and anchor in anchors_of(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_two_headings_have_one_anchor(page):
    """GitHub and MkDocs number the second one, each in its own way."""
    anchors = anchors_of(page)
    assert sorted(set(anchors)) == sorted(anchors)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_names_that_are_named_exist(page):
    for path, name in NAME.findall(page.read_text("utf-8")):
        assert (ROOT / path).is_file(), path
        assert name in names_in(ROOT / path), f"{path} defines no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_with_a_name_in_code_leads_to_the_file_that_defines_it(page):
    for name, path in re.findall(r"\[`(\w+(?:\.\w+)?)`\]\(([^)\s]+\.py)\)", page.read_text("utf-8")):
        assert name == Path(path).name or name in names_in((page.parent / path).resolve()), f"{path} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_paths_that_are_named_exist(page):
    for path in TRACKED_PATH.findall(page.read_text()):
        assert (ROOT / path).exists(), path


def commands_of(page):
    """The arguments of each command of a page's code blocks that runs the method."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").split("\n")
    found = [line.split("run_paper.py", 1)[1] for line in lines if re.match(r"[^#>]*\brun_paper\.py(?!\w|::)", line)]
    return [shlex.split(re.split(r"\s#|&&|[|>]", arguments)[0]) for arguments in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_use_settings_and_stages_that_exist(page):
    for arguments in commands_of(page):
        _, command = parse(arguments)
        check(command.config)
        names = stage_names(command.config)
        for stage in [*command.stages, *([command.redo] if command.redo else [])]:
            assert any(name == stage or name.startswith(f"{stage}/") for name in names), stage


def test_commands_are_found():
    assert sum(len(commands_of(page)) for page in PAGES) > 15
    assert ["tiny", "--dry-run"] in commands_of(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pytest_and_python_are_given_what_exists(page):
    text = page.read_text("utf-8")
    for path in re.findall(r"(?<=[ `])tests/[\w/]+(?:\.py)?", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m (reference[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


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
