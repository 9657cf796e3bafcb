"""Means and paired differences with a 95% interval over test problems and seeds alike.

An outcome is an array [S, N]: what each of N problems gave under each of S seeds (1 or 0 for right or wrong, a pass@8).
Both are drawn anew, with replacement and independently, as in the pigeonhole bootstrap (Owen 2007), so that an interval
says how far the number would move with other problems and other seeds. With three seeds it is rough.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
LEVEL = (2.5, 97.5)  # percentiles
MARGIN = 0.01  # one percentage point
DIGITS = 9  # so that a tie is a tie, whatever the order of the sums


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95% interval, and what it comes from: problems in all benchmarks together, and seeds."""

    mean: float
    low: float
    high: float
    num_problems: int
    num_seeds: int


def estimate(outcomes: Sequence[np.ndarray]) -> Estimate:
    """The mean over benchmarks of the mean outcome; one [S, N_b] array for each benchmark, all with the same seeds.

    Raises:
        ValueError: no benchmark, or different numbers of seeds.
    """
    if not outcomes or len({len(outcome) for outcome in outcomes}) != 1:
        raise ValueError(f"an estimate needs outcomes with the same seeds, got shapes {[o.shape for o in outcomes]}")
    num_seeds = len(outcomes[0])
    rng = np.random.default_rng(0)  # equal outcomes have equal intervals
    seed_weights_DS = _weights(rng, num_seeds)
    drawn_D = np.zeros(DRAWS)
    for outcome_SN in outcomes:
        weights_DN = _weights(rng, outcome_SN.shape[1])
        drawn_D += np.einsum("ds,sn,dn->d", seed_weights_DS, outcome_SN, weights_DN, optimize=True) / len(outcomes)
    low, high = np.percentile(drawn_D, LEVEL).tolist()
    mean = float(np.mean([outcome.mean() for outcome in outcomes]))
    mean, low, high = (round(number, DIGITS) for number in (mean, low, high))
    return Estimate(mean, low, high, sum(outcome.shape[1] for outcome in outcomes), num_seeds)


def _weights(rng: np.random.Generator, count: int) -> np.ndarray:
    """How often each of `count` is drawn in `count` draws, as shares: [DRAWS, count]."""
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count


def verdict(difference: Estimate) -> str:
    """Whether a claimed advantage is there: a rule that was fixed before any result was seen.

    `seen`: the interval is above 0. `not seen`: its upper end is below one percentage point, so that an advantage worth
    the name is excluded. `undecided`: anything else, and whatever one seed alone has shown, whose
    interval knows nothing of other seeds.
    """
    if difference.num_seeds < 2:
        return "undecided"
    if difference.low > 0:
        return "seen"
    return "not seen" if difference.high < MARGIN else "undecided"
