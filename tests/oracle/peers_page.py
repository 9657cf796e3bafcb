"""docs/peers.md as the tests read it: its batch, and the numbers that it says were measured."""

import re
from pathlib import Path

from reference.conformance.adapters import ours

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text(encoding="utf-8")
TESTS = re.compile(r"`(tests/oracle/\w+\.py)::(test_\w+)`")


def _tables():
    """Each table of the page as its rows, each of them a list of cells."""
    for block in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]


def _measured():
    """(table, row) -> column -> what the page says. A table of measurements has `test` as its last column."""
    found = {}
    for header, _, *rows in _tables():
        if header[-1] == "test":
            for name, *cells in rows:
                assert (header[0], name) not in found, name
                found[header[0], name] = dict(zip(header[1:], cells, strict=True))
    return found


MEASURED = _measured()
VECTORS = {row[0].strip("`"): row[1:3] for header, _, *rows in _tables() if header[0] == "vectors" for row in rows}


def rows_of(table):
    """The rows of a table of measurements by their first cell, without backticks; `table` is how its header begins."""
    return {
        name.strip("`"): cells for (header, name), cells in MEASURED.items() if header.startswith(f"measured{table}")
    }


def measured(name):
    """One row's numbers by column."""
    (cells,) = [cells for (_, row), cells in MEASURED.items() if row == name]
    return cells


def as_shown(number):
    """A number as the page writes it; never -0."""
    return f"{number + 0.0:.6f}".replace("-0.000000", "0.000000")


def page_batch():
    """The page's own batch as `grpo_loss` takes it, filled up on the right, with Table 6's clip and coefficient."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    values = {}
    exec(block, values)  # the reader's own lines
    rows = {name: values[name] for name in ("logprobs", "old_logprobs", "ref_logprobs")}
    lengths = [len(row) for row in rows["logprobs"]]
    padded = {name: [row + [0.0] * (max(lengths) - len(row)) for row in of] for name, of in rows.items()}
    (advantages,) = ours.group_advantages(values["rewards"], 1e-6)["advantages"]
    mask = [[1] * length + [0] * (max(lengths) - length) for length in lengths]
    return values["rewards"], {**padded, "advantages": advantages, "mask": mask, "clip_eps": 0.2, "kl_coef": 0.001}


REWARDS, BATCH = page_batch()
SFT_BATCH = {"logprobs": BATCH["logprobs"], "mask": BATCH["mask"]}


def cut(size, count=4):
    """The rows of a batch in micro-batches of `size`."""
    return [list(range(begin, min(begin + size, count))) for begin in range(0, count, size)]


def difference(found, expected):
    """The largest difference of two outputs of an adapter: numbers, lists of them, dictionaries."""
    if isinstance(expected, dict):
        return max(difference(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return max((difference(one, other) for one, other in zip(found, expected, strict=True)), default=0.0)
    return abs(found - expected)
