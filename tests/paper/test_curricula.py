"""Appendix A.1's curricula hold their budget, and a smaller one is a part of a larger one."""

from random import Random

import pytest

from reference.paper.curricula import CURRICULA, HARD, MEDIUM, SIMPLE, phases_of, within_budget
from reference.records import DifficultyGroup, Trace


def pool(group, lengths):
    """Traces of so many supervised tokens, the end of the turn among them."""
    return [Trace(f"{group}-{at}", "text", length - 1, 3) for at, length in enumerate(lengths)]


POOLS = {SIMPLE: pool(SIMPLE, [10] * 100), MEDIUM: pool(MEDIUM, [20, 30] * 30), HARD: pool(HARD, [55] * 20)}
SIZES = {SIMPLE: 500, MEDIUM: 300, HARD: 200}  # tokens of one trace for each problem


def tokens(traces):
    return sum(trace.num_tokens + 1 for trace in traces)


@pytest.mark.parametrize("budget", [0, 19, 20, 21, 49, 50, 51, 200])
def test_a_budget_is_filled_as_far_as_whole_traces_go(budget):
    taken = within_budget(POOLS[MEDIUM], budget)
    assert taken == POOLS[MEDIUM][: len(taken)]
    assert tokens(taken) <= budget < tokens(POOLS[MEDIUM][: len(taken) + 1])


def test_a_pool_that_does_not_fill_its_budget_is_refused():
    with pytest.raises(ValueError, match="20 traces with 1100 tokens do not fill a budget of 1101; distil more"):
        within_budget(POOLS[HARD], 1101)
    with pytest.raises(ValueError, match="0 traces with 0 tokens do not fill"):
        within_budget([], 0)


@pytest.mark.parametrize("name", CURRICULA)
def test_every_curriculum_has_the_same_tokens(name):
    phases = phases_of(name, POOLS, SIZES, 400, Random(0))
    spent = sum(tokens(traces) for _, traces in phases)
    assert 400 - 3 * 55 < spent <= 400  # less than a trace short in each group


@pytest.mark.parametrize("name", CURRICULA)
def test_a_smaller_budget_learns_a_part_of_a_larger_one(name):
    small, large = (
        {trace.problem_id for _, traces in phases_of(name, POOLS, SIZES, budget, Random(0)) for trace in traces}
        for budget in (200, 600)
    )
    assert small < large


def test_which_groups_a_curriculum_has_and_in_which_order():
    def groups(name):
        phases = phases_of(name, POOLS, SIZES, 400, Random(0))
        return [(phase, {trace.problem_id.split("-")[0] for trace in traces}) for phase, traces in phases]

    assert groups("simple") == [("simple", {"simple"})]
    assert groups("medium_hard") == [("medium", {"medium"}), ("hard", {"hard"})]
    assert groups("mixed") == [("mixed", {"simple", "medium", "hard"})]


def test_medium_hard_halves_the_budget_and_mixed_keeps_the_proportions():
    halves = [tokens(traces) for _, traces in phases_of("medium_hard", POOLS, SIZES, 440, Random(0))]
    assert halves == [220, 220]
    ((_, mixed),) = phases_of("mixed", POOLS, SIZES, 1000, Random(0))
    by_group = {g: tokens([t for t in mixed if t.problem_id.startswith(str(g))]) for g in DifficultyGroup}
    assert by_group == {SIMPLE: 500, MEDIUM: 300, HARD: 165}  # 200 for hard: three traces of 55


def test_mixed_is_shuffled_and_the_same_each_time():
    first, again, other = (phases_of("mixed", POOLS, SIZES, 400, Random(seed))[0][1] for seed in (0, 0, 1))
    assert first == again != other
    assert [trace.problem_id for trace in first] != sorted(trace.problem_id for trace in first)
    assert sorted(first, key=str) == sorted(other, key=str)


def test_an_unknown_curriculum_names_the_known_ones():
    with pytest.raises(ValueError, match="there is no curriculum 'easy'; there are simple, medium, hard, mixed"):
        phases_of("easy", POOLS, SIZES, 400, Random(0))
