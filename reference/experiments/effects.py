"""What each reading of the paper is worth: main effects and interactions over all 16 combinations (a 2^4 design).

The main effect of a reading is the mean difference that it makes, over the combinations of the others. The interaction
of two is how much larger the effect of one is where the other is taken too. Both are paired over problems and seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from reference.experiments.readings import COMBINATIONS, LATER, READINGS
from reference.experiments.results import outcomes, percent, seeds_of
from reference.experiments.statistics import estimate
from reference.experiments.variants import (
    AFTER_INITIAL_SFT,
    AFTER_TWO_ITERATIONS,
    AVERAGE,
    FORMAT,
    PASS,
    Row,
    reading_row,
)

METRICS = (AVERAGE, FORMAT, PASS)
TIMES = " x "  # between two readings that interact


@dataclass(frozen=True)
class Effect:
    """By how many percentage points a reading, or two `READING x READING` together, moves a metric."""

    when: str
    metric: str
    reading: str
    difference: float
    low: float
    high: float
    num_problems: int
    seeds: str


def effects_of(seed_folders: Sequence[Path]) -> list[Effect]:
    """Every main effect and interaction of two, after the initial SFT and after two iterations."""
    found = []
    for when in (AFTER_INITIAL_SFT, AFTER_TWO_ITERATIONS):
        # Phases show from iteration 2 on: the initial SFT has half as many combinations.
        active = [reading for reading in READINGS if reading != LATER or when == AFTER_TWO_ITERATIONS]
        chosen = [one for one in ((), *COMBINATIONS) if set(one) <= set(active)]
        rows = {one: reading_row(one, when) for one in chosen}
        wanted = [*((reading,) for reading in active), *combinations(active, 2)]
        for metric in METRICS:
            found += [_effect(readings, rows, when, metric, seed_folders) for readings in wanted]
    return found


def _effect(
    readings: Sequence[str], rows: dict[tuple[str, ...], Row], when: str, metric: str, seed_folders: Sequence[Path]
) -> Effect:
    """The mean of the outcomes, each with the sign -1 for every one of the readings that it does not have."""
    total: list[np.ndarray] = []
    for chosen, row in rows.items():
        sign = (-1) ** sum(reading not in chosen for reading in readings)
        signed = [sign * outcome for outcome in outcomes(seed_folders, row, metric)]
        total = [so_far + one for so_far, one in zip(total, signed, strict=True)] if total else signed
    count = len(rows) // 2 ** len(readings)  # how often each of the compared sides occurs
    difference = estimate([outcome / count for outcome in total])
    return Effect(
        when=when.removeprefix(", "),
        metric=metric,
        reading=TIMES.join(readings),
        difference=percent(difference.mean),
        low=percent(difference.low),
        high=percent(difference.high),
        num_problems=difference.num_problems,
        seeds=seeds_of(seed_folders),
    )


def shown(effects: Sequence[Effect], when: str) -> list[str]:
    """The readings that a figure has room for: each main effect, and the interaction with the largest difference."""
    found = [effect for effect in effects if effect.when == when]
    alone = dict.fromkeys(effect.reading for effect in found if TIMES not in effect.reading)
    together = [effect for effect in found if TIMES in effect.reading]
    return [*alone, max(together, key=lambda effect: abs(effect.difference)).reading]


def describe_effects(effects: Sequence[Effect]) -> str:
    """The effects that a figure shows, for the terminal."""
    text = ["what a reading of the paper moves, in points with the 95% interval"]
    for when in dict.fromkeys(effect.when for effect in effects):
        for effect in effects:
            if effect.when == when and effect.reading in shown(effects, when):
                number = f"{effect.difference:>6.1f}  {effect.low:>5.1f} to {effect.high:>5.1f}"
                text.append(f"{when:<22}{effect.metric:<18}{number}  {effect.reading}")
    return "\n".join(text)
