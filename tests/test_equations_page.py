"""docs/equations.md says where each equation lives. It must stay true when code moves."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
TABLE = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
ROWS = [[cell.strip() for cell in cells] for cells in TABLE[1:]]
FUNCTION_OF_EQUATION = re.compile(r"Eqs?\. \((\d+)\)(?: and \((\d+)\))?")


def functions_of(path):
    """Each function of a file with the first line of its docstring."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: (ast.get_docstring(node) or "").split("\n")[0] for node in functions}


def references(cell):
    return [tuple(name.split("::")) for name in re.findall(r"`([^`]+)`", cell)]


def names_of(first_line):
    """The rows that a function belongs in, by the first line of its docstring."""
    if first_line.startswith("Algorithm 1,"):
        return {"Algorithm 1"}
    if "C(n-c, k) / C(n, k)" in first_line:
        return {"pass@k"}
    match = FUNCTION_OF_EQUATION.match(first_line)
    return {number for number in match.groups() if number} if match else set()


def test_every_equation_has_one_row():
    expected = [str(number) for number in range(1, 35)]
    expected.insert(13, "Algorithm 1")
    assert [row[0] for row in ROWS] == [*expected, "pass@k"]
    assert all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_function_is_there_and_names_its_equation(row):
    assert references(row[2])
    for path, name in references(row[2]):
        functions = functions_of(path)
        assert name in functions, f"{path} has no function {name}"
        assert row[0] in names_of(functions[name]), f"{name} does not begin with Eq. ({row[0]}): {functions[name]!r}"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_test_is_there(row):
    assert references(row[3])
    for path, name in references(row[3]):
        assert name.startswith("test_") and name in functions_of(path), f"{path} has no test {name}"


def test_no_function_of_an_equation_is_left_out():
    """`prompts.py` words what Eqs. 4 to 18 ask; it computes none of them."""
    listed = {(path, name, row[0]) for row in ROWS for path, name in references(row[2])}
    files = sorted((ROOT / "reference" / "paper").glob("*.py"))
    assert len(files) > 9
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        if file.name != "prompts.py":
            for name, first_line in functions_of(path).items():
                assert {(path, name, number) for number in names_of(first_line)} <= listed, f"{path}::{name}"


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_statement_survives_markdown(row):
    """GitHub reads Markdown first: it eats a backslash before punctuation, and pairs underscores behind brackets."""
    assert re.fullmatch(r"\$\S.*\S\$", row[1]) and row[1].count("$") == 2
    assert not re.search(r"\\[^a-zA-Z]", row[1])
    assert not re.search(r"[^\w]_", row[1])
    assert not set("*`<>") & set(row[1].replace(" > ", " "))
    assert row[1].count("{") == row[1].count("}")
