"""Section 3.1: Eqs. 1-3 and the three groups."""

import random

import pytest

from reference.interfaces import Sampling
from reference.paper.difficulty import (
    correctness_rate,
    difficulty_group,
    sample_responses,
)
from reference.records import Completion, DifficultyGroup


class ScriptedSampler:
    """Answers with its seeds, and remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def sample(self, prompts, seeds, sampling):
        self.calls.append((prompts, seeds, sampling))
        return [[Completion((seed,), str(seed), True) for seed in row] for row in seeds]


def test_one_response_for_each_seed_of_each_prompt():
    sampler = ScriptedSampler()
    prompts, seeds, sampling = [[1, 2], [3]], [[10, 11, 12], [20, 21, 22]], Sampling(temperature=0.7, top_p=0.9)
    groups = sample_responses(sampler, prompts, seeds, sampling)
    assert [[response.text for response in group] for group in groups] == [["10", "11", "12"], ["20", "21", "22"]]
    assert sampler.calls == [(prompts, seeds, sampling)]


def test_correctness_rate_agrees_with_a_loop():
    draw = random.Random(0)
    for _ in range(200):
        rewards = [draw.randint(0, 1) for _ in range(draw.randint(1, 64))]
        count = 0
        for r in rewards:
            count += 1 if r == 1 else 0
        assert correctness_rate(rewards) == count / len(rewards)
    assert correctness_rate([1.0, 0.0, 0.0, 1.0]) == 0.5


@pytest.mark.parametrize("rewards", [[0.5], [1, 2], [-1, 1], [0, float("nan")]])
def test_a_reward_that_is_neither_0_nor_1_is_refused(rewards):
    with pytest.raises(ValueError, match="rewards must be 0 or 1"):
        correctness_rate(rewards)


def test_no_rewards_are_refused():
    with pytest.raises(ValueError, match="^a correctness rate needs at least one reward, got none$"):
        correctness_rate([])


@pytest.mark.parametrize(
    "correct, group",
    [
        (0, DifficultyGroup.HARD),
        (15, DifficultyGroup.HARD),
        (16, DifficultyGroup.MEDIUM),  # exactly 0.25
        (17, DifficultyGroup.MEDIUM),
        (47, DifficultyGroup.MEDIUM),
        (48, DifficultyGroup.SIMPLE),  # exactly 0.75; medium in Appendix A.1
        (49, DifficultyGroup.SIMPLE),
        (64, DifficultyGroup.SIMPLE),
    ],
)
def test_the_groups_of_section_3_1_at_their_borders(correct, group):
    assert difficulty_group(correctness_rate([1] * correct + [0] * (64 - correct))) is group


def test_a_harder_group_never_has_the_higher_rate():
    order = [DifficultyGroup.HARD, DifficultyGroup.MEDIUM, DifficultyGroup.SIMPLE]
    places = [order.index(difficulty_group(correct / 64)) for correct in range(65)]
    assert places == sorted(places)
    assert [places.count(place) for place in range(3)] == [16, 32, 17]


@pytest.mark.parametrize("rate", [-0.01, 1.01, 64, float("nan")])
def test_a_rate_outside_0_and_1_is_refused(rate):
    with pytest.raises(ValueError, match="lies in"):
        difficulty_group(rate)
