"""Batches: every sequence once, within the budget, and masks from lengths."""

import random

import pytest
import torch

from reference.engines.batches import in_batches, pad_right, response_mask, token_batches

CPU = torch.device("cpu")


def test_in_batches_keeps_the_order_and_loses_nothing():
    assert in_batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert in_batches([], 2) == []
    assert in_batches("ab", 5) == ["ab"]


@pytest.mark.parametrize("seed", range(10))
def test_each_sequence_is_in_one_batch_and_no_batch_is_over_its_budget(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(1, 60) for _ in range(draw.randint(1, 40))]
    batches = token_batches(lengths, 100)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= 100 or len(batch) == 1


def test_a_budget_below_every_length_gives_single_sequences_and_a_large_one_a_single_batch():
    assert sorted(token_batches([5, 3, 9], 1)) == [[0], [1], [2]]
    assert token_batches([5, 3, 9], 27) == [[2, 0, 1]]
    assert token_batches([5, 3, 9], 26) == [[2, 0], [1]]
    assert token_batches([], 10) == []


def test_sequences_of_similar_length_share_a_batch():
    lengths = [10, 100, 11, 99]
    assert [sorted(batch) for batch in token_batches(lengths, 200)] == [[1, 3], [0, 2]]


def test_equal_lengths_are_batched_the_same_way_each_time():
    assert token_batches([4] * 5, 8) == [[0, 1], [2, 3], [4]]


def test_padding_stands_on_the_right():
    assert pad_right([(7, 8, 9), (5,)], CPU).tolist() == [[7, 8, 9], [5, 0, 0]]


def test_the_mask_is_one_from_the_prompts_end_to_the_sequences_end():
    mask_BT = response_mask([1, 2, 3], [3, 5, 3], CPU)
    assert mask_BT.int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]
    assert mask_BT.dtype == torch.bool
