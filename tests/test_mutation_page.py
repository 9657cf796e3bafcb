"""docs/mutation.md: its table is what its command printed and adds up, and each survivor is of code that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "reference" / "paper"
PAGE = (ROOT / "docs" / "mutation.md").read_text(encoding="utf-8")
ROWS = {
    name: [int(n) for n in rest] for name, *rest in re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.M)
}
ALL = ROWS.pop("all")
SURVIVORS = re.findall(r"^\| `(\w+)\.(\w+)` \| `(.+?)` \| (.+?) \| .+ \|$", PAGE, re.M)


def test_the_table_is_what_the_command_printed_and_adds_up():
    printed = {
        (name, word): int(count) for count, name, word in re.findall(r"^ +(\d+) (\w+) (killed|survived)$", PAGE, re.M)
    }
    assert printed == {
        (name, word): count
        for name, (_, *counts) in ROWS.items()
        for word, count in zip(("killed", "survived"), counts, strict=True)
        if count
    }
    assert all(mutants == killed + survived for mutants, killed, survived in [*ROWS.values(), ALL])
    assert [sum(column) for column in zip(*ROWS.values(), strict=True)] == ALL
    assert ALL[1] / ALL[0] >= 0.95
    assert f"That is {100 * ALL[1] / ALL[0]:.1f}% killed" in PAGE


def test_it_names_the_version_that_the_constraints_have():
    (version,) = re.findall(r"^mutmut==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert f"mutmut {version}," in PAGE


@pytest.mark.parametrize("name, function, line", [survivor[:3] for survivor in SURVIVORS])
def test_each_survivor_is_a_change_of_code_that_is_there(name, function, line):
    source = (PAPER / f"{name}.py").read_text(encoding="utf-8")
    (node,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == function]
    assert line in ast.get_source_segment(source, node)


def test_every_survivor_is_explained():
    explained = dict.fromkeys(ROWS, 0)
    for name, _, _, mutants in SURVIVORS:
        explained[name] += len(mutants.split("; "))
    assert explained == {name: survived for name, (_, _, survived) in ROWS.items()}
