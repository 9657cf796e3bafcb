"""Every ```python block of the pages runs, and prints what stands behind it.

The blocks of a page run in order, in one namespace, as a reader would paste them. A ```text block right behind a
```python block is what that block prints, but for spaces at the ends of lines; without one it prints nothing. What is
not meant to run has another fence, or a python one behind `<!-- not run: REASON -->`, which few blocks may have.
"""

import io
import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from reference.conformance.checking import check

ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT / "reference" / "conformance" / "README.md"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md")), CONFORMANCE]
GRPO_BY_HAND = (ROOT / "docs" / "grpo_by_hand.md").read_text(encoding="utf-8")

FENCE = re.compile(r"^```(?P<language>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n\Z")
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")


@dataclass(frozen=True)
class Block:
    """A python block: its first line in the page, and what it is said to print, None where nothing is said."""

    line: int
    code: str
    printed: str | None


def blocks_of(page):
    """The python blocks that are to run."""
    blocks = []
    for fence, behind in pairwise([*FENCE.finditer(page), None]):
        if fence["language"] != "python" or NOT_RUN.search(page[: fence.start()]):
            continue
        has_output = behind and behind["language"] == "text" and not page[fence.end() : behind.start()].strip()
        line = page.count("\n", 0, fence.start("body")) + 1
        blocks.append(Block(line, fence["body"], behind["body"] if has_output else None))
    return blocks


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


def run(page, name="page"):
    """Run a page's blocks; an error points at the page's own line. Returns what they leave behind."""
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * (block.line - 1) + block.code, name, "exec"), namespace)
        assert lines(printed.getvalue()) == lines(block.printed or ""), f"the block of line {block.line} of {name}"
    return namespace


def prose_of(page):
    """What is left without the blocks and the addresses of links."""
    return re.sub(r"\]\([^)\s]*\)", "]", FENCE.sub("", page))


def test_there_are_pages_with_blocks():
    assert {page.name for page in PAGES if blocks_of(page.read_text(encoding="utf-8"))} >= {"grpo_by_hand.md"}
    assert len(blocks_of(GRPO_BY_HAND)) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_block_runs_and_prints_what_stands_behind_it(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(page.read_text(encoding="utf-8"), str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_hides_from_this_test(page):
    text = page.read_text(encoding="utf-8")
    languages = {fence["language"] for fence in FENCE.finditer(text)}
    assert not [name for name in languages if name.lower().startswith("py") and name != "python"], languages
    assert 2 * len(FENCE.findall(text)) == len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)), "an indented fence?"


def test_few_blocks_are_not_run():
    marked = [page.name for page in PAGES for _ in re.findall("<!-- not run", page.read_text(encoding="utf-8"))]
    assert len(marked) <= 2, marked


@pytest.mark.parametrize("number", sorted(set(NUMBER.findall(prose_of(GRPO_BY_HAND)))))
def test_each_number_in_the_prose_of_grpo_by_hand_is_printed_on_the_page(number):
    """Digit for digit: 1.21 is not printed where 1.2076 is."""
    printed = " ".join(block.printed or "" for block in blocks_of(GRPO_BY_HAND))
    assert number in NUMBER.findall(printed)


def test_the_adapter_of_the_conformance_page_agrees():
    results = [one for one in check(run(CONFORMANCE.read_text(encoding="utf-8"))) if one.offered]
    assert results and all(one.agrees for one in results)


# The machinery can fail


def page_of(code, printed=None, between="\n", before=""):
    output = "" if printed is None else f"```text\n{printed}\n```\n"
    return f"Text.\n\n{before}```python\n{code}\n```\n{between}{output}\nMore text.\n"


def test_a_later_block_knows_the_names_of_an_earlier_one():
    assert run(page_of("a = 2") + page_of("b = a + 1\nprint(b)", "3"))["b"] == 3


UNTRUE = {
    "another number": page_of("print(1)", "2"),
    "a line too many": page_of("print(1)", "1\n2"),
    "printed and not shown": page_of("print(1)"),
    "shown and not printed": page_of("pass", "1"),
    "not right behind it": page_of("print(1)", "1", between="\nIt prints\n\n"),
    "fails": page_of("assert False"),
    "not run, without a reason": page_of("print(1)", before="<!-- not run: -->\n"),
}


@pytest.mark.parametrize("page", UNTRUE.values(), ids=UNTRUE)
def test_a_page_that_is_not_true_fails(page):
    with pytest.raises(AssertionError):
        run(page)


def test_an_error_names_the_line_of_the_page():
    with pytest.raises(ZeroDivisionError) as caught:
        run(page_of("a = 1\na / 0"), "some.md")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("some.md", 5)


def test_a_marked_block_and_other_fences_are_left_alone():
    assert "a" not in run(page_of("a = 1", before="<!-- not run: needs a GPU -->\n"))
    assert blocks_of("```\na = 1\n```\n\n```text\nb\n```\n\n```json\n{}\n```\n") == []


def test_a_number_is_a_whole_decimal():
    found = NUMBER.findall("A 1.2076 and -0.7246, (0.5), 10.25%, $0.8$; not 8, A33, v0.9.1 or 3.11.2. End 0.2.")
    assert found == ["1.2076", "0.7246", "0.5", "10.25", "0.8", "0.2"]
