"""Batches: every sequence once, within the budget, and masks from lengths."""

import random

import pytest
import torch

from reference.engines.batches import (
    MAX_PADDING,
    Turn,
    in_batches,
    pad_right,
    response_mask,
    token_batches,
    turns_of,
)
from reference.interfaces import Share

CPU = torch.device("cpu")


def test_in_batches_keeps_the_order_and_loses_nothing():
    assert in_batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert in_batches([], 2) == []
    assert in_batches("ab", 5) == ["ab"]


def random_lengths(seed):
    draw = random.Random(seed)
    return [draw.randint(1, 60) for _ in range(draw.randint(1, 40))]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("seed", range(10))
def test_each_sequence_is_in_one_batch_and_no_batch_is_over_its_budget(seed, packed):
    lengths = random_lengths(seed)
    batches = token_batches(lengths, 100, packed)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        its_lengths = [lengths[index] for index in batch]
        padded = len(batch) * max(its_lengths)
        assert (sum(its_lengths) if packed else padded) <= 100 or len(batch) == 1
        assert packed or padded - sum(its_lengths) <= MAX_PADDING * padded


def test_a_budget_below_every_length_gives_single_sequences_and_a_large_one_a_single_batch():
    assert sorted(token_batches([50, 48, 49], 1)) == [[0], [1], [2]]
    assert token_batches([50, 48, 49], 150) == [[0, 2, 1]]
    assert token_batches([50, 48, 49], 149) == [[0, 2], [1]]
    assert token_batches([], 10) == []


def test_packed_sequences_fill_the_first_row_with_room():
    assert token_batches([5, 3, 9], 17, packed=True) == [[2, 0, 1]]
    assert token_batches([9, 5, 4, 3], 12, packed=True) == [[0, 3], [1, 2]]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_processes_have_equally_many_turns_and_each_sequence_counts_once(seed, count, packed):
    lengths = random_lengths(seed)
    turns = [turns_of(lengths, 100, Share(index, count), packed) for index in range(count)]
    assert len({len(own) for own in turns}) == 1
    counted = [row for own in turns for turn in own if turn.weight for row in turn.rows]
    assert sorted(counted) == list(range(len(lengths)))
    assert {turn.weight for own in turns for turn in own} <= {0.0, 1.0}
    fillers = [turn for own in turns for turn in own if not turn.weight]
    assert all(len(turn.rows) == 1 and lengths[turn.rows[0]] == min(lengths) for turn in fillers)
    if fillers:  # only where nothing is left to halve
        assert all(len(turn.rows) == 1 for own in turns for turn in own)


def test_a_process_without_a_sequence_keeps_the_other_company():
    assert turns_of([7], 100, Share(0, 2)) == [Turn((0,))]
    assert turns_of([7], 100, Share(1, 2)) == [Turn((0,), weight=0.0)]


def test_alone_nothing_is_halved():
    assert turns_of([50, 48, 49], 150, Share()) == [Turn((0, 2, 1))]


def test_sequences_of_similar_length_share_a_batch():
    lengths = [10, 100, 10, 99]
    assert [sorted(batch) for batch in token_batches(lengths, 200)] == [[1, 3], [0, 2]]


def test_equal_lengths_are_batched_the_same_way_each_time():
    assert token_batches([4] * 5, 8) == [[0, 1], [2, 3], [4]]


def test_padding_stands_on_the_right():
    assert pad_right([(7, 8, 9), (5,)], CPU).tolist() == [[7, 8, 9], [5, 0, 0]]


def test_the_mask_is_one_from_the_prompts_end_to_the_sequences_end():
    mask_BT = response_mask([1, 2, 3], [3, 5, 3], CPU)
    assert mask_BT.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert mask_BT.dtype == torch.bool
