"""Hold an implementation to the vectors: per equation, how far its outputs are from the expected ones."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Relative to the largest number expected of an output, absolute where that is below 1: double precision, with room for
# sums in another order.
TOLERANCE = 1e-9
FOLDER = Path(__file__).parent / "v1"


@dataclass(frozen=True)
class Agreement:
    """What came of one file: `difference` is the largest one, `wrong` what disagrees in another way, with its case."""

    file: str
    source: str
    cases: int
    offered: bool
    difference: float = 0.0
    wrong: str = ""

    @property
    def agrees(self) -> bool:
        """Whether every case was answered and lies within the tolerance."""
        return self.offered and not self.wrong and self.difference <= TOLERANCE


def check(adapter: Mapping[str, object], folder: Path = FOLDER) -> list[Agreement]:
    """Every file of the vectors against the adapter's functions, which are named as the files' `function`.

    Raises:
        ValueError: there are no vectors in the folder.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(f"there are no vectors in {folder}")
    return [_checked(json.loads(path.read_text(encoding="utf-8")), adapter) for path in paths]


def _checked(vector: Mapping, adapter: Mapping[str, object]) -> Agreement:
    function = adapter.get(vector["function"])
    about = (vector["file"], vector["source"], len(vector["cases"]))
    if not callable(function):
        return Agreement(*about, offered=False)
    largest = 0.0
    for at, case in enumerate(vector["cases"]):
        found, wrong = _called(function, case["inputs"])
        for name, expected in case["expected"].items():
            wrong = wrong or _shape_error(expected, found.get(name), name)
            if wrong:
                return Agreement(*about, True, largest, f"case {at}: {wrong}")
            largest = max(largest, _difference(expected, found[name]))
    return Agreement(*about, True, largest)


def _called(function: Callable, inputs: Mapping) -> tuple[Mapping, str]:
    """What the adapter gives, or its own refusal; any other error of the foreign code ends the command as it is."""
    try:
        found = function(**inputs)
    except NotImplementedError as error:
        return {}, f"not offered for such inputs: {error}"
    return (found, "") if isinstance(found, Mapping) else ({}, f"expected a dictionary, got {type(found).__name__}")


def _shape_error(expected: object, found: object, name: str) -> str:
    """What is wrong besides numbers: a missing output, another length, another word."""
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return f"{name} should be a list of {len(expected)}, got {str(found)[:60]}"
        return next(filter(None, (_shape_error(e, f, name) for e, f in zip(expected, found, strict=True))), "")
    if isinstance(expected, float) or (isinstance(expected, int) and not isinstance(expected, bool)):
        is_number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
        return "" if is_number else f"{name} should be a number near {expected:g}, got {found!r}"
    return "" if found == expected else f"{name} should be {expected!r}, got {found!r}"


def _difference(expected: object, found: object) -> float:
    """The largest difference of two nested lists of numbers, relative to the largest expected number above 1."""
    pairs = list(_numbers(expected, found))
    scale = max([1.0, *(abs(a) for a, _ in pairs)])
    return max([0.0, *(abs(a - b) / scale for a, b in pairs)])


def _numbers(expected: Any, found: Any) -> Iterator[tuple[float, float]]:
    if isinstance(expected, list):
        for one, other in zip(expected, found, strict=True):
            yield from _numbers(one, other)
    elif isinstance(expected, int | float) and not isinstance(expected, bool):
        yield float(expected), float(found)


def described(results: list[Agreement]) -> str:
    """A line for each file."""
    lines = [f"{'vectors':<28}{'source':<48}{'cases':>6}  {'':<8}{'largest difference':>20}"]
    for one in results:
        word = "agree" if one.agrees else "differ" if one.offered else "-"
        number = f"{one.difference:20.3g}" if one.offered and not one.wrong else f"{'':20}"
        lines.append(f"{one.file:<28}{one.source:<48}{one.cases:>6}  {word:<8}{number}  {one.wrong}".rstrip())
    return "\n".join(lines)
