"""TRL's own methods beside our equations: equal where they should be, otherwise apart by what docs/peers.md says."""

import math
import random
from dataclasses import fields

import pytest

pytestmark = pytest.mark.oracle
pytest.importorskip("trl", reason="no TRL: run .ci/install_oracles")

import torch
from trl import GRPOConfig
from trl.trainer.utils import nanstd, selective_log_softmax

from reference.conformance.adapters import ours
from reference.conformance.adapters import trl as theirs
from reference.conformance.checking import check
from reference.paper.tokens import token_logprobs
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

EQ_27 = {"loss_type": "grpo"}
EQ_26 = {"use_bias_correction_kl": False}


def test_the_defaults_on_the_page():
    """The tables without "measured" quote TRL's settings."""
    settings = {one.name: one.default for one in fields(GRPOConfig)}
    assert settings["delta"] is None and settings["epsilon_high"] is None
    assert f"| TRL | per token | {settings['epsilon']} | none (`delta` sets one) |" in PAGE
    assert f'(`loss_type`, "{settings["loss_type"]}")' in PAGE
    assert settings["use_bias_correction_kl"] and f"that of KL(π‖ref) | {settings['beta']:.0f} |" in PAGE


def test_the_vectors():
    for one in check(vars(theirs)):
        expected = VECTORS[one.file][1] if one.file in VECTORS else ""
        assert not one.wrong, one
        if one.offered:
            assert expected == ("agree" if one.agrees else f"differ {one.difference:.3g}"), one.file
        else:
            assert expected == "", one.file


def test_advantages_differ_by_the_epsilon():
    """TRL's are Eq. 23 with 1e-4, but for a factor G / (G - 1) in float32; beside 1e-6 the fourth digit shows it."""
    draw = random.Random(0)
    for rewards in (REWARDS, [[1.0] * k + [0.0] * (8 - k) for k in range(9)], [[draw.random() for _ in range(4)]]):
        assert difference(theirs.group_advantages(rewards, 1e-6), ours.group_advantages(rewards, 1e-4)) < 1e-7
    found = theirs.group_advantages(REWARDS, 1e-6)["advantages"][0][0]
    assert as_shown(found) == measured("advantage of the right response")["TRL"]
    assert (
        as_shown(theirs.group_advantages([[1.0]], 1e-6)["advantages"][0][0])
        == (measured("advantage of a lone response, reward 1")["TRL"])
    )


def test_the_deviation_divides_by_one_less():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    assert (nanstd(rewards, dim=1) - rewards.std(dim=1, correction=1)).abs().max() < 1e-15


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_agree(temperature):
    """The logits divided by the sampling temperature (ambiguity A36)."""
    torch.manual_seed(0)
    logits, ids = 3 * torch.randn(2, 5, 50, dtype=torch.float64), torch.randint(50, (2, 5))
    found = selective_log_softmax(logits, ids, temperature=temperature)
    assert (found - token_logprobs(logits, ids, temperature)).abs().max() < 1e-12


def test_the_ratio_agrees():
    batch = {"logprobs": [[-0.1, -2.0, -19.5]], "old_logprobs": [[-3.0, -2.0, -0.2]]}
    assert difference(theirs.policy_ratio(**batch), ours.policy_ratio(**batch)) < 1e-15


@pytest.mark.parametrize("advantage", [-1.5, 1.5, 0.0])
def test_the_clipped_term_agrees(advantage):
    corners = [0.3, 0.79, 0.81, 1.0, 1.19, 1.21, 2.99, 7.0, 50.0]
    batch = {"ratio": [corners], "advantages": [advantage], "clip_eps": 0.2}
    assert difference(theirs.clipped_term(**batch), ours.clipped_term(**batch)) < 1e-13


def test_the_clipped_term_is_not_bounded():
    found = theirs.clipped_term([[math.exp(2)]], [-1.0], 0.2)
    assert as_shown(found["values"][0][0]) == measured("the term at ratio 7.389056, A = -1")["TRL"]
    assert as_shown(found["gradient"][0][0]) == measured("its derivative by the ratio")["TRL"]


def kl_batch():
    draw = random.Random(1)
    logprobs = [[-draw.expovariate(1.0) for _ in range(30)]]
    return {"logprobs": logprobs, "ref_logprobs": [[x + draw.uniform(-4, 4) for x in logprobs[0]]]}


def test_the_kl_agrees_without_its_correction():
    assert difference(theirs.low_variance_kl(**kl_batch(), **EQ_26), ours.low_variance_kl(**kl_batch())) < 1e-13


def test_the_kl_times_the_ratio_differs():
    """By default: the same value where the ratio is 1, and a gradient that is larger by the value."""
    found, expected = theirs.low_variance_kl(**kl_batch()), ours.low_variance_kl(**kl_batch())
    assert difference(found["values"], expected["values"]) < 1e-13
    moved = [[g + v for g, v in zip(expected["gradient"][0], expected["values"][0], strict=True)]]
    assert difference(found["gradient"], moved) < 1e-13 and difference(found, expected) > 10
    one = theirs.low_variance_kl([[-4.0]], [[-0.5]])
    assert as_shown(one["values"][0][0]) == measured("the term")["TRL"]
    assert as_shown(one["gradient"][0][0]) == measured(r"its derivative by $\log\pi_\theta$")["TRL"]


def test_the_grpo_loss_agrees():
    """With Eq. 27's mean and Eq. 26's term, to the last digits: value and gradient."""
    for coefficient in (0.001, 0.1):
        batch = {**BATCH, "kl_coef": coefficient}
        found = theirs.grpo_loss(**batch, **EQ_27, **EQ_26)
        assert difference(found, ours.grpo_loss(**batch)) < 1e-14
    nearest = theirs.grpo_loss(**BATCH, **EQ_27, **EQ_26)["loss"]
    assert as_shown(nearest) == measured("and no second clip, no ratio on the KL term")["TRL"]


def test_the_grpo_loss_differs():
    defaults = theirs.grpo_loss(**BATCH)["loss"]
    assert as_shown(defaults) == measured("at the defaults, coefficient 0.001")["TRL"]
    assert as_shown(theirs.grpo_loss(**BATCH, **EQ_27)["loss"]) == measured("with Eq. 27's mean")["TRL"]


def test_what_depends_on_the_micro_batches():
    rows = rows_of(": responses in a micro-batch")
    for kind in ("dapo", "bnpo", "grpo"):
        for size in (1, 2, 4):
            found = theirs.grpo_loss(**BATCH, loss_type=kind, micro_batches=cut(size))["loss"]
            assert as_shown(found) == rows[f"TRL, `{kind}"][str(size)], (kind, size)
    assert len({rows["TRL, `bnpo"][size] for size in "124"}) == 3


def test_the_sft_loss():
    """The mean over all supervised tokens, however the batch is cut; Eq. 21 where the lengths are equal."""
    found = theirs.sft_loss(**SFT_BATCH)
    assert as_shown(found["loss"]) == measured("loss of the batch, all of its tokens supervised")["TRL"]
    for size in (1, 2):
        assert difference(theirs.sft_loss(**SFT_BATCH, micro_batches=cut(size)), found) < 1e-15
    equal = {"logprobs": [[-0.5, -1.0], [-2.0, -0.1]], "mask": [[1, 1], [1, 1]]}
    assert difference(theirs.sft_loss(**equal), ours.sft_loss(**equal)) < 1e-15


def test_the_schedule():
    """Transformers' is ours one step later, where the warm-up of both has as many steps: they round up."""
    for total in (5, 10, 50):
        for step in range(1, total):
            later = theirs.cosine_schedule(step + 1, total, 0.2, 0.1)["scale"]
            assert later == pytest.approx(ours.cosine_schedule(step, total, 0.2, 0.1)["scale"], abs=1e-15)
    for step, cells in rows_of(": step").items():
        assert as_shown(theirs.cosine_schedule(int(step), 10, 0.2, 0.1)["scale"]) == cells["TRL"]


def test_the_warm_up_is_rounded_up():
    """0.2 x 13 steps are 3 there and 2 here and with verl."""
    for step, cells in rows_of(": of 13 steps").items():
        assert as_shown(theirs.cosine_schedule(int(step), 13, 0.2, 0.1)["scale"]) == cells["TRL"]
    gaps = [
        abs(theirs.cosine_schedule(step + 1, 13, 0.2, 0.1)["scale"] - ours.cosine_schedule(step, 13, 0.2, 0.1)["scale"])
        for step in range(1, 13)
    ]
    assert max(gaps) == pytest.approx(1 / 3)
