"""Eqs. 23-28 against loops of plain floats, and what the frameworks' users ask about them."""

import math
import random

import pytest
import torch

from reference.paper.grpo import (
    clipped_term,
    group_advantages,
    grpo_loss,
    grpo_objective,
    is_clipped,
    low_variance_kl,
    policy_ratio,
)

# Eq. 23 for G = 8 and k correct responses: the advantage of a correct and of a wrong one, eps = 1e-6
DIVIDED_BY_G_MINUS_1 = {
    1: (2.474867, -0.353552),
    2: (1.620182, -0.540061),
    3: (1.207612, -0.724567),
    4: (0.935413, -0.935413),
}
DIVIDED_BY_G = {
    1: (2.645743, -0.377963),
    2: (1.732047, -0.577349),
    3: (1.290992, -0.774595),
    4: (0.999998, -0.999998),
}


def eq_23(rewards, eps=1e-6, correction=1):
    mean = math.fsum(rewards) / len(rewards)
    std = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - correction))
    return [(r - mean) / (std + eps) for r in rewards]


def eq_27(logprobs, old, ref, advantages, masks, clip_eps, beta):
    """One prompt: (1/G) sum_i (1/|o_i|) sum_t (L_CLIP - beta L_KL)."""
    over_responses = 0.0
    for i in range(len(masks)):
        over_tokens, length = 0.0, 0
        for t in range(len(masks[i])):
            if masks[i][t] == 0:
                continue
            ratio = math.exp(logprobs[i][t]) / math.exp(old[i][t])
            inside = min(max(ratio, 1 - clip_eps), 1 + clip_eps)
            clip = min(ratio * advantages[i], inside * advantages[i])
            delta = ref[i][t] - logprobs[i][t]
            over_tokens += clip - beta * (math.exp(delta) - delta - 1)
            length += 1
        over_responses += over_tokens / length
    return over_responses / len(masks)


def random_case(seed, num_prompts=2, group_size=4, num_positions=6, spread=0.4):
    """Log-probabilities three times, the advantages, a ragged mask: as tensors with B = N * G rows."""
    draw = random.Random(seed)
    num_rows = num_prompts * group_size
    logprobs = [[-draw.expovariate(0.7) for _ in range(num_positions)] for _ in range(num_rows)]
    old, ref = ([[x + draw.gauss(0, spread) for x in row] for row in logprobs] for _ in range(2))
    rewards = [[float(draw.random() < 0.5) for _ in range(group_size)] for _ in range(num_prompts)]
    lengths = [draw.randint(1, num_positions) for _ in range(num_rows)]
    masks = [[1] * length + [0] * (num_positions - length) for length in lengths]
    advantages_B = group_advantages(torch.tensor(rewards, dtype=torch.float64)).flatten()
    tensors = [torch.tensor(table, dtype=torch.float64) for table in (logprobs, old, ref)]
    return *tensors, advantages_B, torch.tensor(masks)


# Eq. 23


@pytest.mark.parametrize("correction, table", [(1, DIVIDED_BY_G_MINUS_1), (0, DIVIDED_BY_G)], ids=["by G - 1", "by G"])
def test_the_advantages_of_binary_rewards(correction, table):
    for k, (of_correct, of_wrong) in table.items():
        few, many = [1.0] * k + [0.0] * (8 - k), [0.0] * k + [1.0] * (8 - k)
        advantages = group_advantages(torch.tensor([few, many], dtype=torch.float64), correction=correction).tolist()
        assert advantages[0] == pytest.approx([of_correct] * k + [of_wrong] * (8 - k), abs=5e-7)
        assert advantages[1] == pytest.approx([-of_correct] * k + [-of_wrong] * (8 - k), abs=5e-7)


def test_the_sample_deviation_and_1e_6_are_the_defaults():
    half_NG = torch.tensor([[1.0, 0.0] * 4], dtype=torch.float64)
    assert group_advantages(half_NG)[0, 0].item() == pytest.approx(0.935413, abs=5e-7)
    assert group_advantages(half_NG, eps=1e-4)[0, 0].item() == pytest.approx(0.935239, abs=5e-7)  # TRL's eps


@pytest.mark.parametrize("correction", [0, 1])
def test_advantages_agree_with_a_loop(correction):
    draw = random.Random(0)
    for _ in range(50):
        size = draw.randint(2, 9)
        rewards = [[draw.gauss(0, 1) for _ in range(size)] for _ in range(3)]
        found = group_advantages(torch.tensor(rewards, dtype=torch.float64), 1e-6, correction).tolist()
        for row, expected in zip(found, rewards, strict=True):
            assert row == pytest.approx(eq_23(expected, 1e-6, correction), abs=1e-12)


@pytest.mark.parametrize("reward", [0.0, 1.0])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
def test_equal_rewards_teach_nothing(reward, size):
    assert group_advantages(torch.full((2, size), reward)).tolist() == [[0.0] * size] * 2


def test_each_group_is_measured_by_itself():
    rewards_NG = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    together = group_advantages(rewards_NG)
    assert together.tolist() == [group_advantages(row.unsqueeze(0))[0].tolist() for row in rewards_NG]


@pytest.mark.parametrize("shape", [(3, 1), (3, 0), (8,)])
def test_a_group_needs_two_responses(shape):
    """verl gives a lone response the advantage r instead."""
    with pytest.raises(ValueError, match="G >= 2"):
        group_advantages(torch.ones(shape))


# Eqs. 24 and 25


def test_the_ratio_agrees_with_a_quotient_of_probabilities():
    logprobs_BT, old_BT, *_ = random_case(1)
    found = policy_ratio(logprobs_BT, old_BT).flatten().tolist()
    for ratio, new, old in zip(found, logprobs_BT.flatten().tolist(), old_BT.flatten().tolist(), strict=True):
        assert ratio == pytest.approx(math.exp(new) / math.exp(old), rel=1e-12)


def test_the_ratio_of_a_policy_to_itself_is_exactly_1():
    logprobs_BT = -200 * torch.rand(4, 50)  # exp of most of them is 0 in float32
    assert torch.equal(policy_ratio(logprobs_BT, logprobs_BT.clone()), torch.ones(4, 50))


@pytest.mark.parametrize(
    "advantage, ratio, value, gradient",
    [
        (1.0, 1.0, 1.0, 1.0),
        (1.0, 1.5, 1.2, 0.0),  # good enough: no further push
        (1.0, 0.5, 0.5, 1.0),  # a good response that grew rarer is pulled back
        (-1.0, 1.0, -1.0, -1.0),
        (-1.0, 1.5, -1.5, -1.0),  # a bad response that grew likelier is pushed down: a minimum for this sign too
        (-1.0, 0.5, -0.8, 0.0),
        (-2.0, 5.0, -10.0, -2.0),  # no second clip at 3, as verl has
        (0.0, 1.5, 0.0, 0.0),
    ],
)
def test_the_corners_of_the_clip(advantage, ratio, value, gradient):
    ratio_BT = torch.tensor([[ratio]], dtype=torch.float64, requires_grad=True)
    term_BT = clipped_term(ratio_BT, torch.tensor([advantage], dtype=torch.float64))
    term_BT.sum().backward()
    assert term_BT.item() == pytest.approx(value, abs=1e-12)
    assert ratio_BT.grad.item() == pytest.approx(gradient, abs=1e-12)


@pytest.mark.parametrize("clip_eps", [0.1, 0.2, 0.28])
def test_the_clipped_term_agrees_with_a_loop(clip_eps):
    draw = random.Random(2)
    ratios = [[math.exp(draw.gauss(0, 0.5)) for _ in range(40)] for _ in range(6)]
    advantages = [draw.gauss(0, 1) for _ in range(6)]
    ratio_BT, advantages_B = (torch.tensor(numbers, dtype=torch.float64) for numbers in (ratios, advantages))
    found_BT = clipped_term(ratio_BT, advantages_B, clip_eps)
    for row, values, advantage in zip(ratios, found_BT.tolist(), advantages, strict=True):
        for ratio, value in zip(row, values, strict=True):
            inside = min(max(ratio, 1 - clip_eps), 1 + clip_eps)
            assert value == pytest.approx(min(ratio * advantage, inside * advantage), abs=1e-12)


def test_a_token_is_called_clipped_exactly_where_its_gradient_vanishes():
    draw = random.Random(3)
    ratios = [0.8, 1.2, 1.0] + [math.exp(draw.gauss(0, 0.4)) for _ in range(97)]
    ratio_BT = torch.tensor([ratios, ratios], dtype=torch.float64, requires_grad=True)
    advantages_B = torch.tensor([0.7, -1.3], dtype=torch.float64)
    clipped_term(ratio_BT, advantages_B).sum().backward()
    clipped_BT = is_clipped(ratio_BT.detach(), advantages_B)
    assert torch.equal(clipped_BT, ratio_BT.grad == 0)
    assert 0 < clipped_BT[0].sum() < 97 and 0 < clipped_BT[1].sum() < 97
    assert not clipped_BT[:, :3].any()  # the border belongs to the inside
    assert torch.equal(is_clipped(ratio_BT, advantages_B, clip_eps=10.0), torch.zeros_like(clipped_BT))


def test_nothing_is_clipped_without_an_advantage():
    assert not is_clipped(torch.tensor([[0.1, 1.0, 9.0]]), torch.tensor([0.0])).any()


# Eq. 26


def test_the_kl_estimator_agrees_with_a_loop():
    logprobs_BT, _, ref_BT, *_ = random_case(4)
    found = low_variance_kl(logprobs_BT, ref_BT).flatten().tolist()
    for value, logprob, ref in zip(found, logprobs_BT.flatten().tolist(), ref_BT.flatten().tolist(), strict=True):
        assert value == pytest.approx(math.exp(ref - logprob) - (ref - logprob) - 1, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kl_estimator_is_never_negative_and_zero_only_between_equals(dtype):
    """exp(d) - d - 1, computed so, is negative for many small d in float32."""
    size_N = torch.logspace(-12, 1, 100_000, dtype=dtype)
    for delta_1N in (size_N.unsqueeze(0), -size_N.unsqueeze(0)):
        kl_1N = low_variance_kl(-delta_1N, torch.zeros_like(delta_1N))
        assert (kl_1N >= 0).all()
        assert (kl_1N[delta_1N.abs() > 1e-3] > 0).all()
    assert low_variance_kl(size_N, size_N.clone()).abs().max() == 0


def test_the_kl_estimator_is_not_clamped():
    """verl's is, at 10, where its gradient ends."""
    logprobs_BT = torch.tensor([[-4.0]], dtype=torch.float64, requires_grad=True)
    kl_BT = low_variance_kl(logprobs_BT, torch.tensor([[-0.5]], dtype=torch.float64))
    kl_BT.backward()
    assert kl_BT.item() == pytest.approx(28.6155, abs=5e-5)
    assert logprobs_BT.grad.item() == pytest.approx(1 - math.exp(3.5), rel=1e-12)


def test_over_a_whole_vocabulary_it_is_the_kl_divergence_and_its_gradient_that_of_the_other_one():
    """E_pi[k3] = KL(pi || ref), but E_pi[grad k3] = grad KL(ref || pi): what users take for a bug (ambiguity A33)."""
    torch.manual_seed(0)
    logits_V = torch.randn(5, dtype=torch.float64, requires_grad=True)
    logp_V, logref_V = torch.log_softmax(logits_V, 0), torch.log_softmax(torch.randn(5, dtype=torch.float64), 0)
    p_V, ref_V = logp_V.exp(), logref_V.exp()
    k3_V = low_variance_kl(logp_V.unsqueeze(0), logref_V.unsqueeze(0))[0]

    kl_pi_ref = (p_V * (logp_V - logref_V)).sum()
    kl_ref_pi = (ref_V * (logref_V - logp_V)).sum()
    assert (p_V * k3_V).sum().item() == pytest.approx(kl_pi_ref.item(), abs=1e-14)

    # Samples are drawn from pi as it is: no gradient through the drawing.
    def gradient(value):
        return torch.autograd.grad(value, logits_V, retain_graph=True)[0]

    of_estimator_V = gradient((p_V.detach() * k3_V).sum())
    torch.testing.assert_close(of_estimator_V, gradient(kl_ref_pi), rtol=0, atol=1e-14)
    assert (of_estimator_V - gradient(kl_pi_ref)).abs().max() > 0.1


# Eqs. 27 and 28


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("clip_eps, beta", [(0.2, 0.001), (0.1, 0.5)])
def test_the_objective_agrees_with_a_loop(seed, clip_eps, beta):
    """Three prompts: the mean over prompts of Eq. 27's inner mean is the one mean over all responses."""
    case = random_case(seed, num_prompts=3)
    tables = [tensor.tolist() for tensor in case]
    prompts = [[table[begin : begin + 4] for table in tables] for begin in (0, 4, 8)]
    expected = sum(eq_27(*prompt, clip_eps, beta) for prompt in prompts) / 3
    assert grpo_objective(*case, clip_eps=clip_eps, kl_coef=beta).item() == pytest.approx(expected, abs=1e-12)
    if (clip_eps, beta) == (0.2, 0.001):  # Table 6
        assert grpo_objective(*case).item() == grpo_objective(*case, clip_eps=clip_eps, kl_coef=beta).item()


def test_the_loss_is_the_negative_objective():
    case = random_case(5)
    assert grpo_loss(*case).item() == -grpo_objective(*case).item()
    options = {"clip_eps": 0.05, "kl_coef": 0.3}
    assert grpo_loss(*case, **options).item() == -grpo_objective(*case, **options).item()
    assert grpo_loss(*case, **options).item() != grpo_loss(*case).item()


def test_a_long_response_does_not_outvote_a_short_one():
    """Each response counts once, whatever its length; verl's and TRL's mean over all tokens is another number."""
    logprobs_BT = torch.zeros(2, 9, dtype=torch.float64)
    mask_BT = torch.tensor([[1] * 9, [1] + [0] * 8])
    advantages_B = torch.tensor([-1.0, 3.0], dtype=torch.float64)
    objective = grpo_objective(logprobs_BT, logprobs_BT, logprobs_BT, advantages_B, mask_BT)
    assert objective.item() == pytest.approx((-1 + 3) / 2, abs=1e-12)
    token_mean = (advantages_B.unsqueeze(1) * mask_BT).sum() / mask_BT.sum()
    assert token_mean.item() == pytest.approx((-9 + 3) / 10)


def policy_gradient(logprobs_BT, old_BT, ref_BT, advantages_B, mask_BT, **options):
    logprobs_BT = logprobs_BT.clone().requires_grad_()
    value = grpo_objective(logprobs_BT, old_BT, ref_BT, advantages_B, mask_BT, **options)
    return value.item(), torch.autograd.grad(value, logprobs_BT)[0]


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_group_of_equal_rewards_moves_the_policy_by_its_kl_term_alone(reward):
    logprobs_BT, old_BT, ref_BT, _, mask_BT = random_case(6)
    advantages_B = group_advantages(torch.full((2, 4), reward, dtype=torch.float64)).flatten()
    _, gradient_BT = policy_gradient(logprobs_BT, old_BT, ref_BT, advantages_B, mask_BT, kl_coef=0.001)
    kl_gradient_BT = 1 - torch.exp(ref_BT - logprobs_BT)
    weights_BT = mask_BT.double() / mask_BT.sum(dim=1, keepdim=True) / 8
    torch.testing.assert_close(gradient_BT, -0.001 * weights_BT * kl_gradient_BT, rtol=1e-12, atol=0)
    _, without_kl_BT = policy_gradient(logprobs_BT, old_BT, ref_BT, advantages_B, mask_BT, kl_coef=0.0)
    assert torch.equal(without_kl_BT, torch.zeros_like(without_kl_BT))


def test_on_policy_the_value_is_only_the_kl_term_while_the_gradient_is_not():
    """Why a GRPO run starts at a loss of 0: the advantages of a group cancel out, their gradients do not."""
    logprobs_BT, _, ref_BT, advantages_B, mask_BT = random_case(7)
    assert advantages_B.abs().max() > 0.5
    value, gradient_BT = policy_gradient(logprobs_BT, logprobs_BT, ref_BT, advantages_B, mask_BT, kl_coef=0.1)
    kl = 0.0
    for row, ref, mask in zip(logprobs_BT.tolist(), ref_BT.tolist(), mask_BT.tolist(), strict=True):
        terms = [math.exp(q - p) - (q - p) - 1 for p, q, kept in zip(row, ref, mask, strict=True) if kept]
        kl += sum(terms) / len(terms) / len(logprobs_BT)
    assert value == pytest.approx(-0.1 * kl, abs=1e-12)
    value, gradient_BT = policy_gradient(logprobs_BT, logprobs_BT, logprobs_BT, advantages_B, mask_BT)
    assert value == pytest.approx(0, abs=1e-12)
    weights_BT = mask_BT.double() / mask_BT.sum(dim=1, keepdim=True) / 8
    torch.testing.assert_close(gradient_BT, advantages_B.unsqueeze(1) * weights_BT, rtol=1e-12, atol=1e-15)


def test_padding_does_not_matter():
    *tables, advantages_B, mask_BT = random_case(8)
    padding_BT = mask_BT == 0
    changed = [table.masked_fill(padding_BT, number) for number, table in enumerate(tables)]
    value, gradient_BT = policy_gradient(*tables, advantages_B, mask_BT)
    changed_value, changed_gradient_BT = policy_gradient(*changed, advantages_B, mask_BT)
    assert changed_value == value
    assert torch.equal(changed_gradient_BT, gradient_BT)
    assert (gradient_BT[padding_BT] == 0).all()


def test_equal_parts_of_a_batch_average_to_its_objective():
    case = random_case(9)
    rows = [grpo_objective(*(tensor[row : row + 1] for tensor in case)).item() for row in range(8)]
    pairs = [grpo_objective(*(tensor[row : row + 2] for tensor in case)).item() for row in range(0, 8, 2)]
    assert [sum(rows) / 8, sum(pairs) / 4] == pytest.approx([grpo_objective(*case).item()] * 2, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gradcheck(seed):
    logprobs_BT, *rest = random_case(seed)
    ratio_BT = policy_ratio(logprobs_BT, rest[0])
    assert min((ratio_BT - corner).abs().min() for corner in (0.8, 1.2)) > 1e-5  # no step across a corner
    assert is_clipped(ratio_BT, rest[2]).any()
    assert torch.autograd.gradcheck(lambda x_BT: grpo_loss(x_BT, *rest, kl_coef=0.1), logprobs_BT.requires_grad_())
