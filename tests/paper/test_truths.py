"""Truths about GRPO that hold exactly, by enumeration: nothing is sampled, so nothing holds only on average.

The policy writes two words of a vocabulary of four. Its probabilities are twelfths, so that 144 rows, each response
as often as it is likely, are the distribution itself, and Eq. 27's plain mean over the rows is an exact expectation.
Letters: S states (at the start, or after one of the words), V words, B = 144 responses, T = 2 words. All in float64.
"""

import math

import pytest
import torch

from reference.engines.hf_sampler import _choose
from reference.interfaces import Sampling
from reference.paper.grpo import (
    clipped_term,
    group_advantages,
    grpo_loss,
    grpo_objective,
    is_clipped,
    low_variance_kl,
    policy_ratio,
)
from reference.paper.tokens import token_logprobs

TWELFTHS_SV = [[6, 3, 2, 1], [3, 3, 3, 3], [1, 2, 3, 6], [8, 2, 1, 1], [4, 1, 5, 2]]
REFERENCE_SV = [[3, 3, 3, 3], [6, 2, 2, 2], [1, 1, 4, 6], [5, 5, 1, 1], [2, 2, 2, 6]]
WORDS = range(4)
RESPONSES = [(a, b) for a in WORDS for b in WORDS for _ in range(TWELFTHS_SV[0][a] * TWELFTHS_SV[1 + a][b])]
IDS_BT = torch.tensor(RESPONSES)
MASK_BT = torch.ones_like(IDS_BT)
VISITS_S = torch.tensor([12.0, *TWELFTHS_SV[0]], dtype=torch.float64) / 12  # how often a response passes each state
NO_ADVANTAGE_B = torch.zeros(len(RESPONSES), dtype=torch.float64)


def logits_of(twelfths_SV):
    return torch.tensor(twelfths_SV, dtype=torch.float64).log().requires_grad_()


def logprobs_of(logits_SV):
    """The policy's log-probabilities of every word of every response, [B, T]."""
    states_BT = torch.stack([torch.zeros_like(IDS_BT[:, 0]), 1 + IDS_BT[:, 0]], dim=1)
    return token_logprobs(logits_SV[states_BT], IDS_BT)


def gradient(value, logits_SV):
    return torch.autograd.grad(value, logits_SV)[0]


def kl_in_each_state(p_SV, q_SV):
    """KL(p || q) between the distributions of logits, [S]."""
    logp_SV, logq_SV = p_SV.log_softmax(-1), q_SV.log_softmax(-1)
    return (logp_SV.exp() * (logp_SV - logq_SV)).sum(-1)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_the_rows_are_the_policy():
    """What the other tests stand on: a response is as many of the 144 rows as its probability says."""
    probabilities_B = logprobs_of(logits_of(TWELFTHS_SV)).sum(dim=1).exp()
    assert len(RESPONSES) == 144
    for response, probability in zip(RESPONSES, probabilities_B.tolist(), strict=True):
        assert RESPONSES.count(response) / 144 == pytest.approx(probability, abs=1e-15)


# Eq. 26 (ambiguity A33)


def test_the_kl_term_of_eq_27_is_half_the_divergence_of_the_responses():
    """E[k3] = KL(pi || ref): summed over two words the divergence of whole responses, in Eq. 27 their mean."""
    logits_SV, ref_SV = logits_of(TWELFTHS_SV), logits_of(REFERENCE_SV).detach()
    logprobs_BT, ref_BT = logprobs_of(logits_SV), logprobs_of(ref_SV)
    found = -grpo_objective(logprobs_BT, logprobs_BT, ref_BT, NO_ADVANTAGE_B, MASK_BT, kl_coef=1.0)
    seen = {}
    for response, p, q in zip(RESPONSES, logprobs_BT.sum(1).tolist(), ref_BT.sum(1).tolist(), strict=True):
        seen[response] = math.exp(p) * (p - q)
    assert found.item() == pytest.approx(math.fsum(seen.values()) / 2, abs=1e-14)
    assert found.item() > 0.05


def k1(logprobs_BT, ref_BT):
    return logprobs_BT - ref_BT


def k3_behind_the_ratio(logprobs_BT, ref_BT):
    return policy_ratio(logprobs_BT, logprobs_BT.detach()) * low_variance_kl(logprobs_BT, ref_BT)


ESTIMATORS = {
    "k1: none": (k1, lambda pi_SV, ref_SV: 0 * pi_SV.sum(-1)),
    "k3: that of KL(ref || pi)": (low_variance_kl, lambda pi_SV, ref_SV: kl_in_each_state(ref_SV, pi_SV)),
    "ratio * k3: that of KL(pi || ref)": (k3_behind_the_ratio, kl_in_each_state),
}


@pytest.mark.parametrize("estimator, descended_S", ESTIMATORS.values(), ids=ESTIMATORS)
def test_three_estimators_of_one_divergence_have_three_gradients(estimator, descended_S):
    """The words are drawn first and stay as they are: the gradient goes through the values alone."""
    logits_SV, ref_SV = logits_of(TWELFTHS_SV), logits_of(REFERENCE_SV).detach()
    value = estimator(logprobs_of(logits_SV), logprobs_of(ref_SV)).sum(dim=1).mean()
    assert value.item() == pytest.approx((VISITS_S * kl_in_each_state(logits_SV, ref_SV)).sum().item(), abs=1e-14)
    expected_SV = gradient((VISITS_S * descended_S(logits_SV, ref_SV)).sum(), logits_SV)
    close(gradient(value, logits_SV), expected_SV)


def test_the_gradient_of_k3_is_the_difference_of_the_two_distributions():
    """A word that both find equally likely is not pushed. The gradient of Eq. 26 as it is written does push it."""
    logits_SV, ref_SV = logits_of(TWELFTHS_SV), logits_of(REFERENCE_SV).detach()
    found_SV = gradient(low_variance_kl(logprobs_of(logits_SV), logprobs_of(ref_SV)).sum(1).mean(), logits_SV)
    close(found_SV, VISITS_S[:, None] * (logits_SV.softmax(-1) - ref_SV.softmax(-1)).detach())
    written_SV = gradient((VISITS_S * kl_in_each_state(logits_SV, ref_SV)).sum(), logits_SV)
    agreed = (0, 1)  # 3 / 12 in both, at the start
    assert found_SV[agreed].item() == pytest.approx(0, abs=1e-15)
    assert written_SV[agreed].item() < -0.04


# Eqs. 24 and 25


def rewarded():
    """Advantages of the 144 responses; a response is right if its words are one and the same."""
    return group_advantages((IDS_BT[:, 0] == IDS_BT[:, 1]).double().unsqueeze(0))[0]


def test_the_first_update_is_the_exact_policy_gradient():
    """grad J = grad E_pi[A] / T, with the expectation as a sum over all responses and no ratio at all."""
    logits_SV, advantages_B = logits_of(TWELFTHS_SV), rewarded()
    logprobs_BT = logprobs_of(logits_SV)
    found_SV = gradient(
        grpo_objective(logprobs_BT, logprobs_BT.detach(), logprobs_BT.detach(), advantages_B, MASK_BT, kl_coef=0.0),
        logits_SV,
    )
    advantage_of = dict(zip(RESPONSES, advantages_B.tolist(), strict=True))
    p_SV = logits_SV.softmax(-1)
    expected = sum(p_SV[0, a] * p_SV[1 + a, b] * advantage_of[a, b] for a in WORDS for b in WORDS)
    close(found_SV, gradient(expected / 2, logits_SV))
    assert found_SV.abs().max() > 0.01


@pytest.mark.parametrize("clip_eps", [0.2, 0.01, 1e-9])
def test_clipping_acts_only_from_the_second_update_on(clip_eps):
    """However tight: the ratio of the first update is 1 and lies inside."""
    advantages_B = rewarded()
    logits_SV = logits_of(TWELFTHS_SV)
    old_BT = logprobs_of(logits_SV).detach()

    def ascent(clip):
        logprobs_BT = logprobs_of(logits_SV)
        clipped_BT = is_clipped(policy_ratio(logprobs_BT, old_BT), advantages_B, clip)
        value = grpo_objective(logprobs_BT, old_BT, old_BT, advantages_B, MASK_BT, clip_eps=clip, kl_coef=0.0)
        return clipped_BT, gradient(value, logits_SV)

    clipped_BT, with_clip_SV = ascent(clip_eps)
    assert not clipped_BT.any()
    assert torch.equal(with_clip_SV, ascent(1e9)[1])
    with torch.no_grad():
        logits_SV += 4.0 * with_clip_SV
    clipped_BT, with_clip_SV = ascent(clip_eps)
    assert clipped_BT.any()
    assert (with_clip_SV - ascent(1e9)[1]).abs().max() > 0.01


# Eq. 23: groups in which all rewards are equal (ambiguity A27)


@pytest.mark.parametrize("reward", [0.0, 1.0], ids=["all-zero", "all-one"])
def test_a_group_of_equal_rewards_does_nothing_but_pull_towards_the_reference(reward):
    """All-zero or all-one: Eq. 27 cannot tell them apart. The policy term has no gradient, the KL term keeps its own.

    Before the first update of a stage pi is the reference, and then the KL's gradient is 0 too.
    """
    advantages_B = group_advantages(torch.full((1, 144), reward, dtype=torch.float64))[0]
    logits_SV, ref_SV = logits_of(TWELFTHS_SV), logits_of(REFERENCE_SV).detach()
    old_BT = logprobs_of(logits_SV).detach()

    def descent(ref_BT, kl_coef):
        loss = grpo_loss(logprobs_of(logits_SV), old_BT, ref_BT, advantages_B, MASK_BT, kl_coef=kl_coef)
        return gradient(loss, logits_SV)

    assert torch.equal(descent(logprobs_of(ref_SV), 0.0), torch.zeros_like(ref_SV))
    assert torch.equal(descent(old_BT, 0.001), torch.zeros_like(ref_SV))
    pull_SV = descent(logprobs_of(ref_SV), 0.001)
    away_SV = (logits_SV.softmax(-1) - ref_SV.softmax(-1)).detach()
    close(pull_SV, 0.001 / 2 * VISITS_S[:, None] * away_SV)
    closer_S = kl_in_each_state(logits_SV - 100 * pull_SV, ref_SV) < kl_in_each_state(logits_SV, ref_SV)
    assert closer_S.all()


# Eq. 27 (ambiguity A31)


def test_one_batch_moves_the_policy_up_under_eq_27_and_down_under_a_token_mean():
    """A right answer of one word against a wrong one that says the same word nine times, with half its weight."""
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    logprobs_BT = torch.nn.functional.logsigmoid(logit).expand(2, 9)
    old_BT, mask_BT = logprobs_BT.detach(), torch.tensor([[1] + [0] * 8, [1] * 9])
    advantages_B = torch.tensor([1.0, -0.5], dtype=torch.float64)
    eq_27 = grpo_objective(logprobs_BT, old_BT, old_BT, advantages_B, mask_BT)
    terms_BT = clipped_term(policy_ratio(logprobs_BT, old_BT), advantages_B)
    token_mean = (terms_BT * mask_BT).sum() / mask_BT.sum()
    d_logprob = 0.5  # of log sigmoid at 0
    assert torch.autograd.grad(eq_27, logit, retain_graph=True)[0].item() == pytest.approx(
        d_logprob * (1 - 0.5) / 2, abs=1e-15
    )
    assert gradient(token_mean, logit).item() == pytest.approx(d_logprob * (1 - 9 * 0.5) / 10, abs=1e-15)


# Table 6's learning rate


def test_bfloat16_weights_swallow_a_step_of_1e_6():
    """A bfloat16 has 8 binary digits: beside a weight of 0.01 the step is lost, not once but a thousand times over.

    AdamW's step is the learning rate here. It survives where half the distance to the next number is below it, which is
    under 2 ** -11. Float32 weights gather the steps, and their bfloat16 copy follows (`reference/engines/learner.py`).
    """
    sizes = [2.0**-exponent * (1 + part / 8) for exponent in range(3, 15) for part in range(8)]

    def stepped(dtype, times):
        weights_N = torch.tensor(sizes, dtype=dtype, requires_grad=True)
        optimizer = torch.optim.AdamW([weights_N], lr=1e-6, weight_decay=0.0)
        for _ in range(times):
            weights_N.grad = -torch.ones_like(weights_N)
            optimizer.step()
        return weights_N.detach()

    start_N = torch.tensor(sizes, dtype=torch.float64)
    assert torch.equal(stepped(torch.bfloat16, 0).double(), start_N)  # they are bfloat16 numbers
    assert torch.equal(stepped(torch.bfloat16, 1) != start_N, start_N < 2.0**-11)
    assert torch.equal(stepped(torch.bfloat16, 1000) != start_N, start_N < 2.0**-11)
    assert (stepped(torch.float32, 1) != start_N).all()
    moved_N = stepped(torch.float32, 1000) - start_N
    torch.testing.assert_close(moved_N, torch.full_like(start_N, 1e-3), rtol=0.01, atol=0)
    assert (stepped(torch.float32, 1000).bfloat16() != start_N)[start_N < 2.0**-3].all()


# Top-p (ambiguity A36): five words with 50, 30, 15, 4 and 1 %, of which top-p 0.9 never draws the last two

SAMPLED_V = torch.tensor([0.50, 0.30, 0.15, 0.04, 0.01], dtype=torch.float64)
NUCLEUS = slice(0, 3)
TEMPERATURE = 0.7


def tempered(probabilities_V):
    """Logits that have these probabilities at Table 6's temperature."""
    return TEMPERATURE * probabilities_V.log()


def draws(top_p, num):
    """The real sampler, asked at evenly spread uniform numbers: its words are its distribution."""
    uniforms_R = (torch.arange(num) + 0.5) / num
    logits_RV = tempered(SAMPLED_V).float().expand(num, 5)
    return _choose(logits_RV, uniforms_R, Sampling(temperature=TEMPERATURE, top_p=top_p))


WHOLE_R, TRUNCATED_R = draws(1.0, 100), draws(0.9, 95)


def logprobs_at(logits_V, words_R):
    """As the trainer computes them: of the whole vocabulary."""
    return token_logprobs(logits_V.expand(len(words_R), 5), words_R, TEMPERATURE)


def test_the_draws_are_the_two_distributions():
    """Truncated, each word that is left comes 1 / 0.95 times as often; the ratio of the first update, 1, hides it."""
    assert WHOLE_R.bincount(minlength=5).tolist() == [50, 30, 15, 4, 1]
    assert TRUNCATED_R.bincount(minlength=5).tolist() == [50, 30, 15, 0, 0]


def test_top_p_biases_the_ratio():
    """Importance sampling rests on a mean ratio of 1. Behind an update that took a fifth of the nucleus it is 0.8."""
    moved_V = torch.tensor([0.40, 0.24, 0.12, 0.16, 0.08], dtype=torch.float64)
    for words_R, expected in ((WHOLE_R, 1.0), (TRUNCATED_R, 0.8)):
        ratio_R = policy_ratio(logprobs_at(tempered(moved_V), words_R), logprobs_at(tempered(SAMPLED_V), words_R))
        assert ratio_R.mean().item() == pytest.approx(expected, abs=1e-12)


def test_top_p_leaves_a_push_that_no_reward_asked_for():
    """E[grad log pi] is 0 under pi. Truncated it is the nucleus' own: likely words become likelier."""
    logits_V = tempered(SAMPLED_V).requires_grad_()
    close(gradient(logprobs_at(logits_V, WHOLE_R).mean(), logits_V), torch.zeros(5, dtype=torch.float64))
    push_V = gradient(logprobs_at(logits_V, TRUNCATED_R).mean(), logits_V)
    close(push_V, gradient((logits_V / TEMPERATURE).softmax(0)[NUCLEUS].sum().log(), logits_V))
    assert push_V.tolist() == pytest.approx([0.0376, 0.0226, 0.0113, -0.0571, -0.0143], abs=5e-5)


def test_top_p_biases_the_kl():
    """From an even reference the policy is 0.4423 nats away; the mean of k3 says 0.1965."""
    even_V = torch.full_like(SAMPLED_V, 1 / 5)
    nats_V = SAMPLED_V * (SAMPLED_V / even_V).log()
    truncated = (even_V - SAMPLED_V + nats_V)[NUCLEUS].sum() / SAMPLED_V[NUCLEUS].sum()
    for words_R, expected, printed in ((WHOLE_R, nats_V.sum(), 0.4423), (TRUNCATED_R, truncated, 0.1965)):
        kl_R = low_variance_kl(logprobs_at(tempered(SAMPLED_V), words_R), even_V.log()[words_R])
        assert kl_R.mean().item() == pytest.approx(expected.item(), abs=1e-12)
        assert kl_R.mean().item() == pytest.approx(printed, abs=5e-5)
