"""Seeds: from names and numbers alone, the same in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reference.seeds import seed_of

ROOT = Path(__file__).parents[1]


def test_equal_parts_give_equal_seeds_and_others_give_others():
    assert seed_of(1111, "1_difficulty", "train-00001", 3) == seed_of(1111, "1_difficulty", "train-00001", 3)
    seeds = {
        seed_of(run, stage, problem, sample)
        for run in (0, 1111)
        for stage in ("iter1/2_filter", "iter2/2_filter")
        for problem in ("train-000001", "train-000002")
        for sample in range(64)
    }
    assert len(seeds) == 2 * 2 * 2 * 64


def test_parts_do_not_run_together():
    assert seed_of("ab", "c") != seed_of("a", "bc")
    assert seed_of(1, 23) != seed_of(12, 3)
    assert seed_of("a") != seed_of("a", "")


def test_a_seed_has_64_bits_and_uses_all_of_them():
    seeds = [seed_of("bits", number) for number in range(200)]
    assert all(0 <= seed < 2**64 for seed in seeds)
    for bit in range(64):
        assert 50 < sum(seed >> bit & 1 for seed in seeds) < 150


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_every_process_finds_the_same_seed(hash_seed):
    """Python's own `hash` of a string changes from process to process."""
    command = [sys.executable, "-c", "from reference.seeds import seed_of; print(seed_of(1, 'a'))"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert int(printed) == seed_of(1, "a") == 0xAAA8BE88BD4AFA32
