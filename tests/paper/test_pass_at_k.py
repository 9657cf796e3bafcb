"""pass@k against every subset that can be drawn."""

from itertools import combinations, pairwise

import pytest

from reference.paper.pass_at_k import pass_at_k


# Chen et al.'s estimator at the paper's n = 64, k = 8
@pytest.mark.parametrize(
    "correct, value", [(0, 0.0), (1, 0.125), (2, 0.2361), (8, 0.6791), (16, 0.9147), (32, 0.9976), (57, 1.0), (64, 1.0)]
)
def test_known_values_for_64_samples_and_k_8(correct, value):
    assert pass_at_k(64, correct, 8) == pytest.approx(value, abs=5e-5)


def test_it_is_certain_only_when_fewer_than_k_are_wrong():
    assert pass_at_k(64, 56, 8) < 1
    assert all(pass_at_k(64, correct, 8) == 1.0 for correct in range(57, 65))


def test_it_is_the_share_of_subsets_that_hold_a_correct_sample():
    for n in range(1, 9):
        for correct in range(n + 1):
            samples = [1] * correct + [0] * (n - correct)
            for k in range(1, n + 1):
                subsets = list(combinations(samples, k))
                share = sum(1 for subset in subsets if any(subset)) / len(subsets)
                assert pass_at_k(n, correct, k) == pytest.approx(share, abs=1e-15)


def test_pass_at_1_is_the_accuracy():
    assert [pass_at_k(64, correct, 1) for correct in range(65)] == [correct / 64 for correct in range(65)]


def test_it_grows_with_the_correct_samples_and_with_k():
    by_correct = [pass_at_k(64, correct, 8) for correct in range(58)]
    by_k = [pass_at_k(64, 3, k) for k in range(1, 63)]
    assert all(lower < higher for lower, higher in pairwise(by_correct))
    assert all(lower < higher for lower, higher in pairwise(by_k))


def test_large_counts_do_not_overflow():
    assert pass_at_k(10_000, 1, 5_000) == 0.5


@pytest.mark.parametrize(
    "n, correct, k, sentence",
    [
        (8, -1, 1, "num_correct must lie in"),
        (8, 9, 1, "num_correct must lie in"),
        (8, 4, 0, "k must lie in"),
        (8, 4, 9, "needs at least k samples"),
        (0, 0, 1, "k must lie in"),
    ],
)
def test_impossible_counts_are_refused(n, correct, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        pass_at_k(n, correct, k)
