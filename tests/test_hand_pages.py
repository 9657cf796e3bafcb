"""docs/bridge_by_hand.md and docs/sft_masks.md: what their blocks cannot show by running (tests/test_pages_run.py)."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("bridge_by_hand.md", "sft_masks.md")]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DECIMAL = re.compile(r"(?<![\w.])[0-9]+\.[0-9]+(?![\w.]*[0-9])")


def constants_of(code):
    """Name -> source of its value, for the constants at the top of a piece of code."""
    return {
        node.targets[0].id: ast.unparse(node.value)
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_decimal_in_the_prose_stands_in_a_block(page):
    text = page.read_text(encoding="utf-8")
    shown = "\n".join(body for _, body in BLOCK.findall(text))
    prose = re.sub(r"Qwen2\.5|Llama ?3\.2", "", BLOCK.sub("", text))  # names, not numbers
    prose = re.sub(r"(?:Section|Appendix) [\w.]+", "", prose)
    quoted = set(DECIMAL.findall(prose))
    assert quoted
    assert quoted <= set(DECIMAL.findall(shown))


def test_the_masks_are_shown_with_the_templates_that_the_chat_is_tested_with():
    page = PAGES[1].read_text(encoding="utf-8")
    shown = constants_of("\n".join(body for kind, body in BLOCK.findall(page) if kind == "python"))
    tested = constants_of((ROOT / "tests" / "engines" / "conftest.py").read_text(encoding="utf-8"))
    for name in ("QWEN_TEMPLATE", "LLAMA_32_TEMPLATE"):
        assert shown[name] == tested[name], name
