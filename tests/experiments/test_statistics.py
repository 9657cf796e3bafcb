"""Intervals that cover what they should, and a verdict that follows its rule."""

import random

import numpy as np
import pytest

from reference.experiments.statistics import Estimate, estimate, verdict


def by_loops(outcomes, draws, seed):
    """The pigeonhole bootstrap with plain loops: seeds once for all benchmarks, problems for each."""
    draw, means = random.Random(seed), []
    for _ in range(draws):
        seeds = [draw.randrange(len(outcomes[0])) for _ in outcomes[0]]
        of_benchmarks = []
        for outcome in outcomes:
            problems = [draw.randrange(len(outcome[0])) for _ in outcome[0]]
            values = [outcome[s][p] for s in seeds for p in problems]
            of_benchmarks.append(sum(values) / len(values))
        means.append(sum(of_benchmarks) / len(of_benchmarks))
    means.sort()
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


def drawn(rng, seeds, problems, of_seed=0.1, of_problem=0.2, mean=0.5):
    chance = mean + of_seed * rng.standard_normal((seeds, 1)) + of_problem * rng.standard_normal((1, problems))
    return (rng.random((seeds, problems)) < chance).astype(float)


def test_the_interval_is_that_of_plain_loops():
    rng = np.random.default_rng(1)
    outcomes = [drawn(rng, 4, 60), drawn(rng, 4, 25)]
    found = estimate(outcomes)
    low, high = by_loops([outcome.tolist() for outcome in outcomes], 4000, seed=2)
    assert found.mean == pytest.approx((outcomes[0].mean() + outcomes[1].mean()) / 2)
    assert found.low == pytest.approx(low, abs=0.01) and found.high == pytest.approx(high, abs=0.01)
    assert (found.num_problems, found.num_seeds) == (85, 4)


def test_many_seeds_and_problems_give_the_standard_error_of_both():
    """Against the crossed random effects' own formula: var = seeds' / S + problems' / N + rest / (S N)."""
    rng = np.random.default_rng(3)
    outcome = 0.3 * rng.standard_normal((40, 1)) + 0.2 * rng.standard_normal((1, 400)) + rng.standard_normal((40, 400))
    found = estimate([outcome])
    error = (0.3**2 / 40 + 0.2**2 / 400 + 1 / 16_000) ** 0.5
    assert (found.high - found.low) / 3.92 == pytest.approx(error, rel=0.2)


def test_equal_outcomes_have_equal_intervals_and_constants_none():
    outcome = drawn(np.random.default_rng(0), 3, 50)
    assert estimate([outcome]) == estimate([outcome.copy()])
    assert estimate([np.ones((3, 5))]) == Estimate(1.0, 1.0, 1.0, 5, 3)


@pytest.mark.parametrize("outcomes", [[], [np.ones((2, 5)), np.ones((3, 5))]])
def test_what_cannot_be_estimated_is_refused(outcomes):
    with pytest.raises(ValueError, match="an estimate needs outcomes with the same seeds"):
        estimate(outcomes)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.001, 0.2, "seen"),
        (0.0, 0.2, "undecided"),
        (-0.1, 0.0101, "undecided"),
        (-0.1, 0.0099, "not seen"),
        (-0.2, -0.1, "not seen"),
        (0.0001, 0.005, "seen"),
    ],
)
def test_the_rule(low, high, says):
    assert verdict(Estimate((low + high) / 2, low, high, 100, 3)) == says
    assert verdict(Estimate((low + high) / 2, low, high, 100, 1)) == "undecided"


def test_a_tie_is_a_tie():
    """Thirds and sevenths that cancel each other exactly, in another order."""
    outcomes = np.array([[1 / 3, -1 / 3, 1 / 7, -1 / 7, 0.1, -0.1]] * 3)
    assert estimate([outcomes]).mean == 0.0
    only_gains = np.array([[0.1, 0.2, 0.0, 0.0, 0.0, 0.0]] * 3) - np.array([[0.1, 0.2, 0.0, 0.0, 0.0, -0.3 + 0.3]] * 3)
    assert verdict(estimate([only_gains])) == "not seen" and estimate([only_gains]).low == 0.0
