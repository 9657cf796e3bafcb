"""docs/ambiguities.md argues each choice that the code cites by number. It must stay true when code moves."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from reference.cli import Command
from reference.config import Config, flatten

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ambiguities.md").read_text(encoding="utf-8")
CODE = [*sorted((ROOT / "reference").rglob("*.py")), ROOT / "run_paper.py"]
NUMBER = re.compile(r"\bA([0-9]{1,2})\b")
HEADINGS = [int(number) for number in re.findall(r"^## A([0-9]+)\. \S", PAGE, re.MULTILINE)]
REFERENCES = sorted(set(re.findall(r"([\w./]+)::([\w.]+)", PAGE)))
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--([\w.-]*\w)", PAGE)))


def cited_in(text):
    return {int(number) for number in NUMBER.findall(text)}


def names_in(nodes):
    """The functions, classes, methods (`Class.method`) and constants that a file defines at its top."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner}" for inner in names_in(node.body)}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
    return names


def test_each_entry_has_one_heading_in_ascending_order():
    assert len(HEADINGS) == PAGE.count("\n## ")
    assert HEADINGS == sorted(set(HEADINGS))
    assert set(range(1, 21)) <= set(HEADINGS)


def test_each_entry_says_something():
    bodies = re.split(r"^## .*$", PAGE, flags=re.MULTILINE)[1:]
    assert all(len(body.split()) > 20 for body in bodies)


@pytest.mark.parametrize("path", CODE, ids=[path.relative_to(ROOT).as_posix() for path in CODE])
def test_each_number_in_the_code_has_an_entry(path):
    assert cited_in(path.read_text(encoding="utf-8")) <= set(HEADINGS)


def test_the_code_cites_the_page():
    cited = set().union(*(cited_in(path.read_text(encoding="utf-8")) for path in CODE))
    assert set(HEADINGS) <= cited


def test_each_number_on_the_page_has_an_entry():
    assert cited_in(PAGE) <= set(HEADINGS)


@pytest.mark.parametrize("path, name", REFERENCES, ids=[f"{path}::{name}" for path, name in REFERENCES])
def test_each_name_on_the_page_is_there(path, name):
    assert (ROOT / path).is_file(), f"there is no file {path}"
    assert name in names_in(ast.parse((ROOT / path).read_text(encoding="utf-8")).body), f"{path} defines no {name}"


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_on_the_page_is_there(option):
    names = {*flatten(Config()), *(field.name for field in fields(Command))} - {"config"}
    assert option in {name.replace("_", "-") for name in names}


def test_the_page_names_code_and_options():
    assert len(REFERENCES) > 40 and len(OPTIONS) > 15
