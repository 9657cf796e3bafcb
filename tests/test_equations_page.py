"""docs/equations.md says where each equation lives. It must stay true when code moves."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
TABLE = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = [[cell.strip() for cell in cells] for cells in TABLE[1:]]
IDS = [row[0] for row in ROWS]
VECTORS = sorted((ROOT / "reference" / "conformance" / "v1").glob("*.json"))
AMBIGUITIES = re.split(r"^## A(\d+)\. .*$", (ROOT / "docs" / "ambiguities.md").read_text("utf-8"), flags=re.MULTILINE)
BODIES = [text.split("\n## ")[0] for text in AMBIGUITIES[2::2]]  # the last one ends where the table of tests begins
ENTRIES = {int(number): body for number, body in zip(AMBIGUITIES[1::2], BODIES, strict=True)}
ROWS_OF_PLACES = re.findall(r"^\| A(\d+) \| ([^|]+) \|", AMBIGUITIES[-1], flags=re.MULTILINE)
PLACES = {int(number): place for number, place in ROWS_OF_PLACES}
FUNCTION_OF_EQUATION = re.compile(r"Eqs?\. \((\d+)\)(?: and \((\d+)\))?")
EQUATIONS = re.compile(r"\bEqs?\.\s((?:\d+(?:,\s|\sand\s|\sto\s)?)+)")


@cache
def functions_of(path):
    """Each function of a file with its source."""
    text = (ROOT / path).read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(text, node) for node in functions}


def first_line(path, name):
    """The first line of a function's docstring."""
    return (ast.get_docstring(ast.parse(functions_of(path)[name]).body[0]) or "").split("\n")[0]


def links(cell):
    """(text, path in the repository) of each link in a cell; besides them it has line breaks and commas only."""
    assert not re.sub(r"\[[^\]]+\]\([^)]+\)|<br>|[, -]", "", cell), cell
    return [(text, target.removeprefix("../")) for text, target in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", cell)]


def functions_in(row):
    return [(path, text.strip("`")) for text, path in links(row[2])]


def named_tests(row):
    return [(path, f"test_{text.replace(' ', '_')}") for text, path in links(row[3])]


def names_of(line):
    """The rows that a function belongs in, by the first line of its docstring."""
    if line.startswith("Algorithm 1,"):
        return {"Algorithm 1"}
    if "C(n-c, k) / C(n, k)" in line:
        return {"pass@k"}
    if line.startswith("Table 5's schedule"):
        return {"Table 5"}
    match = FUNCTION_OF_EQUATION.match(line)
    return {number for number in match.groups() if number} if match else set()


def rows_named_in(text):
    """The rows that a text speaks of: `Eq. 8`, `Eqs. 15, 16 and 29`, `Eqs. 30 to 33`, `Algorithm 1`."""
    found = {"Algorithm 1"} if "Algorithm 1" in text else set()
    for listed in EQUATIONS.findall(text):
        found |= set(re.findall(r"\d+", listed))
        for first, last in re.findall(r"(\d+)\sto\s(\d+)", listed):
            found |= {str(number) for number in range(int(first), int(last) + 1)}
    return found


def test_every_equation_has_one_row():
    expected = [str(number) for number in range(1, 35)]
    expected.insert(13, "Algorithm 1")
    assert [row[0] for row in ROWS] == [*expected, "pass@k", "Table 5"]
    assert all(len(row) == 6 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_function_is_there_and_names_its_equation(row):
    assert functions_in(row)
    for path, name in functions_in(row):
        assert name in functions_of(path), f"{path} has no function {name}"
        assert row[0] in names_of(first_line(path, name)), f"{name} does not begin with Eq. ({row[0]})"


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_test_is_there(row):
    assert named_tests(row)
    for path, name in named_tests(row):
        assert name in functions_of(path), f"{path} has no test {name}"


def test_no_function_of_an_equation_is_left_out():
    """`prompts.py` words what Eqs. 4 to 18 ask; it computes none of them."""
    listed = {(path, name, row[0]) for row in ROWS for path, name in functions_in(row)}
    files = sorted((ROOT / "reference" / "paper").glob("*.py"))
    assert len(files) > 9
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        if file.name != "prompts.py":
            for name in functions_of(path):
                rows = names_of(first_line(path, name))
                assert {(path, name, number) for number in rows} <= listed, f"{path}::{name}"


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_row_has_the_vectors_whose_source_it_is(row):
    sources = {path: json.loads(path.read_text("utf-8"))["source"] for path in VECTORS}
    belong = {
        path
        for path, source in sources.items()
        if row[0] in rows_named_in(source) or source.startswith((f"{row[0]} ", f"{row[0]},"))
    }
    linked = links(row[4])
    assert [text for text, _ in linked] == [Path(target).stem for _, target in linked]
    assert {ROOT / target for _, target in linked} == belong


def test_no_vector_is_left_out():
    assert {ROOT / target for row in ROWS for _, target in links(row[4])} == set(VECTORS)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_row_has_all_choices_that_concern_it(row):
    """An entry concerns a row if it or its place names the equation, or it the function, or the function cites it."""
    expected = {number for number, body in ENTRIES.items() if row[0] in rows_named_in(f"{body} {PLACES[number]}")}
    for path, name in functions_in(row):
        expected |= {int(number) for number in re.findall(r"\bA([0-9]{1,2})\b", functions_of(path)[name])}
        expected |= {number for number, body in ENTRIES.items() if re.search(rf"{re.escape(path)}::{name}\b", body)}
    numbers = [int(text.removeprefix("A")) for text, _ in links(row[5])]
    assert numbers == sorted(expected), f"the row of {row[0]} should link to A{', A'.join(map(str, sorted(expected)))}"


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_choice_links_to_its_own_entry(row):
    """That the anchor exists is for `tests/test_documents.py`."""
    for text, target in links(row[5]):
        assert target.startswith(f"ambiguities.md#{text.lower()}-"), target


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_statement_survives_markdown(row):
    """GitHub reads Markdown first: it eats a backslash before punctuation, and pairs underscores behind brackets."""
    assert re.fullmatch(r"\$\S.*\S\$", row[1]) and row[1].count("$") == 2
    assert not re.search(r"\\[^a-zA-Z]", row[1])
    assert not re.search(r"[^\w]_", row[1])
    assert not set("*`<>") & set(row[1].replace(" > ", " "))
    assert row[1].count("{") == row[1].count("}")
