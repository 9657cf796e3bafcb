"""verl's own functions beside ours: equal where they should be, and otherwise apart by what docs/peers.md says."""

import itertools
import json
import math
import random
from dataclasses import fields
from inspect import signature

import pytest

pytestmark = pytest.mark.oracle
pytest.importorskip("verl", reason="no verl: run .ci/install_oracles")

import numpy as np
import torch
from verl.trainer.ppo.core_algos import (
    agg_loss,
    compute_grpo_outcome_advantage,
    compute_grpo_vectorized_outcome_advantage,
    compute_policy_loss_vanilla,
    kl_penalty,
)
from verl.trainer.ppo.metric_utils import bootstrap_metric
from verl.utils.reward_score import default_compute_score
from verl.workers.config import ActorConfig

from reference.conformance.adapters import ours
from reference.conformance.adapters import verl as theirs
from reference.conformance.checking import check
from reference.paper.answers import reward
from tests.oracle.peers_page import (
    BATCH,
    PAGE,
    REWARDS,
    SFT_BATCH,
    VECTORS,
    as_shown,
    cut,
    difference,
    measured,
    rows_of,
)

NO_SECOND_CLIP = {"clip_ratio_c": 1e9}
EQ_27 = {"loss_agg_mode": "seq-mean-token-mean"}


def batch_of(seed, lengths, spread, num_groups=1):
    """A drawn batch as `grpo_loss` takes it: ragged, filled up on the right with numbers that must not matter."""
    draw = random.Random(seed)
    rows = [[-draw.expovariate(1.0) for _ in range(max(lengths))] for _ in lengths]
    moved = [[[x + draw.gauss(0, spread) for x in row] for row in rows] for _ in range(2)]
    group = len(lengths) // num_groups
    rewards = [[float(i % 3 == 0) for i in range(group)] for _ in range(num_groups)]
    advantages = itertools.chain(*ours.group_advantages(rewards, 1e-6)["advantages"])
    mask = [[1] * length + [0] * (max(lengths) - length) for length in lengths]
    drawn = {"logprobs": rows, "old_logprobs": moved[0], "ref_logprobs": moved[1], "advantages": list(advantages)}
    return {**drawn, "mask": mask, "clip_eps": 0.2, "kl_coef": 0.1}


def test_the_defaults_on_the_page():
    """The tables without "measured" quote verl's settings."""
    actor = {one.name: one.default for one in fields(ActorConfig)}
    epsilon = signature(compute_grpo_outcome_advantage).parameters["epsilon"].default
    draws = signature(bootstrap_metric).parameters["n_bootstrap"].default
    assert epsilon == 1e-6 and "| verl | G - 1 | 1e-6 |" in PAGE
    assert f"| {actor['clip_ratio']} | at ratio {actor['clip_ratio_c']:.0f} (`clip_ratio_c`) |" in PAGE
    assert actor["clip_ratio_low"] == actor["clip_ratio_high"] == actor["clip_ratio"]
    assert not actor["use_kl_loss"] and f"| off; {actor['kl_loss_coef']} when on |" in PAGE
    assert f'(`loss_agg_mode`, "{actor["loss_agg_mode"]}")' in PAGE
    assert f"with replacement, {draws} times from a fixed seed" in PAGE


def test_the_vectors():
    for one in check(vars(theirs)):
        expected = VECTORS[one.file][0] if one.file in VECTORS else ""
        if one.wrong:
            assert (one.file, expected) == ("eq_02_extract_answer", "differ")
            assert one.wrong == "case 2: answer should be '72', got '72.'"
        elif one.offered:
            assert expected == ("agree" if one.agrees else f"differ {one.difference:.3g}"), one.file
        else:
            assert expected == "", one.file


@pytest.mark.parametrize("eps", [1e-6, 1e-4, 1e-2])
def test_advantages_agree(eps):
    draw = random.Random(0)
    binary = [[1.0] * k + [0.0] * (8 - k) for k in range(9)]
    for rewards in (binary, [[draw.uniform(-1, 2) for _ in range(5)] for _ in range(4)]):
        expected = ours.group_advantages(rewards, eps)
        assert difference(theirs.group_advantages(rewards, eps), expected) < 1e-15
        flat = torch.tensor(rewards, dtype=torch.float64).reshape(-1, 1)
        groups = np.repeat(np.arange(len(rewards)), len(rewards[0]))
        fast, _ = compute_grpo_vectorized_outcome_advantage(flat, torch.ones_like(flat), groups, epsilon=eps)
        assert difference(fast.reshape(len(rewards), -1).tolist(), expected["advantages"]) < 5e-7  # in float32


def test_the_advantage_on_the_page():
    found = theirs.group_advantages(REWARDS, 1e-6)["advantages"][0][0]
    assert as_shown(found) == measured("advantage of the right response")["verl"]


def test_a_group_of_one_differs():
    (row,) = theirs.group_advantages([[1.0]], 1e-6)["advantages"]
    assert row[0] == pytest.approx(1 / (1 + 1e-6), abs=1e-7)  # in float32
    assert as_shown(row[0]) == measured("advantage of a lone response, reward 1")["verl"]
    with pytest.raises(ValueError, match="G >= 2"):
        ours.group_advantages([[1.0]], 1e-6)


def test_the_ratio_agrees_up_to_exp_20():
    batch = {"logprobs": [[-0.1, -2.0, -19.5]], "old_logprobs": [[-3.0, -2.0, -0.2]]}
    assert difference(theirs.policy_ratio(**batch), ours.policy_ratio(**batch)) < 1e-15
    beyond = {"logprobs": [[0.0]], "old_logprobs": [[-21.0]]}
    assert theirs.policy_ratio(**beyond)["ratio"][0][0] == pytest.approx(math.exp(20))
    assert ours.policy_ratio(**beyond)["ratio"][0][0] == pytest.approx(math.exp(21))


@pytest.mark.parametrize("advantage", [-1.5, 1.5, 0.0])
def test_the_clipped_term_agrees(advantage):
    """Eq. 25 up to ratio 3 as it comes, above it with the second clip out of reach. Value and derivative."""
    low, high = [0.3, 0.79, 0.81, 1.0, 1.19, 1.21, 2.99], [3.01, 7.0, 50.0]
    batch = {"ratio": [low], "advantages": [advantage], "clip_eps": 0.2}
    assert difference(theirs.clipped_term(**batch), ours.clipped_term(**batch)) < 1e-14
    batch["ratio"] = [high]
    assert difference(theirs.clipped_term(**batch, **NO_SECOND_CLIP), ours.clipped_term(**batch)) < 1e-13


def test_the_second_clip_differs():
    """Ratio e^2, A = -1: -3 and no gradient, where Eq. 25 has -7.389 and pulls back."""
    found = theirs.clipped_term([[math.exp(2)]], [-1.0], 0.2)
    assert as_shown(found["values"][0][0]) == measured("the term at ratio 7.389056, A = -1")["verl"] == "-3.000000"
    assert as_shown(found["gradient"][0][0]) == measured("its derivative by the ratio")["verl"] == "0.000000"


def test_the_kl_agrees_inside_the_clamps():
    draw = random.Random(1)
    logprobs = [[-draw.expovariate(1.0) for _ in range(50)]]
    batch = {"logprobs": logprobs, "ref_logprobs": [[x + draw.uniform(-2.5, 2.5) for x in logprobs[0]]]}
    assert difference(theirs.low_variance_kl(**batch), ours.low_variance_kl(**batch)) < 1e-14


def test_the_clamped_kl_differs():
    found = theirs.low_variance_kl([[-4.0]], [[-0.5]])
    assert as_shown(found["values"][0][0]) == measured("the term")["verl"] == "10.000000"
    derivative = measured(r"its derivative by $\log\pi_\theta$")["verl"]
    assert as_shown(found["gradient"][0][0]) == derivative == "0.000000"


@pytest.mark.parametrize("seed", range(3))
def test_the_grpo_loss_agrees(seed):
    """With Eq. 27's mean and no second clip, where no KL term is above 10: verl adds 1e-8 to each length."""
    batch = batch_of(seed, (6, 1, 4, 2, 5, 3, 1, 2), 0.4, num_groups=2)
    found = theirs.grpo_loss(**batch, **EQ_27, **NO_SECOND_CLIP)
    assert 0 < difference(found, ours.grpo_loss(**batch)) < 1e-7


def test_the_grpo_loss_differs():
    defaults = theirs.grpo_loss(**BATCH)["loss"]
    assert as_shown(defaults) == measured("at the defaults, coefficient 0.001")["verl"]
    right_mean = theirs.grpo_loss(**BATCH, **EQ_27)["loss"]
    assert as_shown(right_mean) == measured("with Eq. 27's mean")["verl"]
    nearest = theirs.grpo_loss(**BATCH, **EQ_27, **NO_SECOND_CLIP)["loss"]
    assert as_shown(nearest) == measured("and no second clip, no ratio on the KL term")["verl"]
    clamped = BATCH["kl_coef"] * (math.exp(3.1) - 3.1 - 1 - 10) / 2 / 4  # the last token's, in a response of 2 of 4
    assert ours.grpo_loss(**BATCH)["loss"] - nearest == pytest.approx(clamped, abs=1e-8)


def without_counts(size):
    """What releases before the engine did: a mean for each micro-batch, weighted with its share of the responses."""
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in BATCH.items()}
    loss = 0.0
    for rows in cut(size):
        logprobs, mask = tensors["logprobs"][rows], tensors["mask"][rows]
        advantages = tensors["advantages"][rows].unsqueeze(1).expand_as(logprobs)
        config = theirs.actor_config(BATCH["clip_eps"])
        clip, _ = compute_policy_loss_vanilla(
            tensors["old_logprobs"][rows], logprobs, advantages, mask, "token-mean", config
        )
        kl = agg_loss(kl_penalty(logprobs, tensors["ref_logprobs"][rows], "low_var_kl"), mask, "token-mean")
        loss += (clip + BATCH["kl_coef"] * kl).item() * len(rows) / 4
    return loss


def test_what_depends_on_the_micro_batches():
    rows = rows_of(": responses in a micro-batch")
    for size in (1, 2, 4):
        engine = theirs.grpo_loss(**BATCH, micro_batches=cut(size))
        assert difference(engine, theirs.grpo_loss(**BATCH)) < 1e-15
        assert as_shown(engine["loss"]) == rows["verl, engine"][str(size)]
        assert as_shown(without_counts(size)) == rows["verl, `agg_loss` without counts"][str(size)]
    one_each = theirs.grpo_loss(**BATCH, **EQ_27)["loss"]
    assert without_counts(1) == pytest.approx(one_each, abs=1e-8)  # a mean over tokens of a single response is its own


def test_the_sft_loss_differs():
    found = theirs.sft_loss(**SFT_BATCH)
    assert as_shown(found["loss"]) == measured("loss of the batch, all of its tokens supervised")["verl"]
    tokens = [x for row, inside in zip(*SFT_BATCH.values(), strict=True) for x, m in zip(row, inside, strict=True) if m]
    assert found["loss"] == pytest.approx(-sum(tokens) / len(tokens), abs=1e-12)
    for size in (1, 2):
        assert difference(theirs.sft_loss(**SFT_BATCH, micro_batches=cut(size)), found) < 1e-15


@pytest.mark.parametrize("lengths", [(7,), (4, 4, 4)])
def test_the_sft_loss_agrees_on_equal_lengths(lengths):
    batch = batch_of(0, lengths, 0.0) if len(lengths) > 1 else {"logprobs": [[-0.5] * 7], "mask": [[1] * 7]}
    batch = {name: batch[name] for name in ("logprobs", "mask")}
    assert difference(theirs.sft_loss(**batch), ours.sft_loss(**batch)) < 1e-15


def test_the_schedule():
    """Counted from 0 it is ours a step later. Counted from 1 it is ours, if the warm-up has a step."""
    for total in (5, 10, 358):
        for step in range(1, total + 1):
            settings = (total, 0.2, 0.1)
            expected = ours.cosine_schedule(step, *settings)["scale"]
            from_1 = theirs.cosine_schedule(step, *settings, zero_indexed_step=False)["scale"]
            assert from_1 == pytest.approx(expected, abs=1e-15)
            later = theirs.cosine_schedule(step + 1, *settings)["scale"]
            assert later == from_1 and theirs.cosine_schedule(1, *settings)["scale"] == 0
    for step, cells in rows_of(": step").items():
        assert as_shown(theirs.cosine_schedule(int(step), 10, 0.2, 0.1)["scale"]) == cells["verl"]
    for step, cells in rows_of(": of 13 steps").items():
        assert as_shown(theirs.cosine_schedule(int(step), 13, 0.2, 0.1)["scale"]) == cells["verl"]


def test_the_answers():
    rows = rows_of(": a response ends in")
    assert len(rows) == 12
    for text, cells in rows.items():
        response = f"He has 8 bags of 9.\n{text}"
        assert (theirs.extract_answer(response)["answer"] or "none") == cells["verl"]
        assert (theirs.extract_answer(response, "flexible")["answer"] or "none") == cells["verl, `flexible`"]
        gold = "1234" if "1,234" in text else "-3" if "-3" in text else "72"
        assert (default_compute_score("openai/gsm8k", response, gold) == 1) == (cells["verl"] == gold)


def test_an_answer_far_from_the_end():
    for behind, found in ((291, "72"), (301, None)):
        response = "#### 72" + " " * behind
        assert theirs.extract_answer(response)["answer"] == found and ours.extract_answer(response)["answer"] == "72"


def test_every_gold_solution_of_gsm8k(gsm8k):
    for name, size in (("train.jsonl", 7473), ("test.jsonl", 1319)):
        solutions = [json.loads(line)["answer"] for line in (gsm8k / name).open(encoding="utf-8")]
        assert len(solutions) == size
        for solution in solutions:
            answer = ours.extract_answer(solution)["answer"]
            assert answer is not None and theirs.extract_answer(solution)["answer"] == answer
            assert default_compute_score("openai/gsm8k", solution, answer) == reward(solution, answer) == 1


def test_pass_at_8_is_biased_low():
    for count, cells in rows_of(": pass@8").items():
        found = theirs.pass_at_k(64, int(count), 8)["pass_at_k"]
        assert as_shown(found) == cells["verl"] and found < ours.pass_at_k(64, int(count), 8)["pass_at_k"]
