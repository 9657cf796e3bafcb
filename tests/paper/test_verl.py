"""What `--equations verl` computes, against loops of plain floats. tests/oracle/ holds it to verl itself."""

import math
import random

import pytest
import torch

from reference.paper import grpo, sft, verl
from reference.paper.answers import reward

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]])


def drawn(seed, spread):
    """Log-probabilities of three responses three times and their advantages, in float64."""
    draw = torch.Generator().manual_seed(seed)
    logprobs = -torch.rand(3, 5, generator=draw, dtype=torch.float64)
    moved = [logprobs + spread * torch.randn(3, 5, generator=draw, dtype=torch.float64) for _ in range(2)]
    return logprobs, *moved, torch.tensor([1.2, -0.4, -0.8], dtype=torch.float64)


def loss_by_loops(logprobs, old, ref, advantages, clip_eps, kl_coef):
    total, count = 0.0, 0
    for i, row in enumerate(MASK.tolist()):
        for t in range(sum(row)):
            rho = math.exp(max(-20, min(20, logprobs[i][t] - old[i][t])))
            term = min(rho * advantages[i], max(1 - clip_eps, min(1 + clip_eps, rho)) * advantages[i])
            if advantages[i] < 0:
                term = max(term, 3 * advantages[i])
            delta = max(-20, min(20, ref[i][t] - logprobs[i][t]))
            total -= term - kl_coef * min(10, math.exp(delta) - delta - 1)
            count += 1
    return total / count


@pytest.mark.parametrize(("seed", "spread"), [(0, 0.1), (1, 1.0), (2, 5.0), (3, 30.0)])
def test_the_loss_agrees_with_a_loop(seed, spread):
    """With the widest spread every clamp is reached."""
    tensors = drawn(seed, spread)
    for clip_eps in (0.2, 0.3):
        expected = loss_by_loops(*(tensor.tolist() for tensor in tensors), clip_eps, 0.1)
        found = verl.grpo_loss(*tensors, MASK, clip_eps=clip_eps, kl_coef=0.1).item()
        assert found == pytest.approx(expected, rel=1e-12)


def test_gradcheck():
    logprobs, old, ref, advantages = drawn(4, 1.0)
    logprobs.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: verl.grpo_loss(x, old, ref, advantages, MASK, kl_coef=0.1), logprobs)
    assert torch.autograd.gradcheck(lambda x: verl.sft_loss(x, MASK), logprobs)


def test_where_nothing_is_clamped_and_the_lengths_are_equal_it_is_the_papers():
    tensors, ones = drawn(5, 0.3), torch.ones(3, 5)
    torch.testing.assert_close(verl.grpo_loss(*tensors, ones), grpo.grpo_loss(*tensors, ones), rtol=0, atol=1e-15)
    torch.testing.assert_close(verl.sft_loss(tensors[0], ones), sft.sft_loss(tensors[0], ones), rtol=0, atol=1e-15)


def test_the_second_clip_has_no_gradient():
    ratio = torch.tensor([[1.1, 2.9, 3.1, 7.0]], dtype=torch.float64, requires_grad=True)
    term = verl.clipped_term(ratio, torch.tensor([-2.0], dtype=torch.float64))
    term.sum().backward()
    assert term.tolist() == [[pytest.approx(-2.2), pytest.approx(-5.8), -6.0, -6.0]]
    assert ratio.grad.tolist() == [[-2.0, -2.0, 0.0, 0.0]]
    for good in (0.5, 2.0):
        advantage = torch.tensor([good], dtype=torch.float64)
        assert verl.clipped_term(ratio, advantage).tolist() == grpo.clipped_term(ratio, advantage).tolist()


def test_the_ratio_ends_at_e_to_the_20():
    far = torch.tensor([[25.0, 19.0, -19.0, -25.0]], dtype=torch.float64)
    ratio = verl.policy_ratio(far, torch.zeros_like(far))
    assert ratio.log().tolist() == [[pytest.approx(end) for end in (20, 19, -19, -20)]]


def test_the_clamped_kl_has_no_gradient():
    logprobs = torch.tensor([[-4.0, -1.0]], dtype=torch.float64, requires_grad=True)
    kl = verl.low_variance_kl(logprobs, torch.tensor([[-0.5, -1.5]], dtype=torch.float64))
    kl.sum().backward()
    assert kl.tolist() == [[10.0, pytest.approx(math.exp(-0.5) - 0.5)]]
    assert logprobs.grad.tolist() == [[0.0, pytest.approx(1 - math.exp(-0.5))]]


def test_a_token_that_the_reference_finds_impossible_breaks_no_gradient():
    """Beyond the range of exp, too."""
    logprobs = torch.tensor([[-800.0, 0.0]], dtype=torch.float64, requires_grad=True)
    kl = verl.low_variance_kl(logprobs, torch.tensor([[0.0, -800.0]], dtype=torch.float64))
    kl.sum().backward()
    assert (kl.tolist(), logprobs.grad.tolist()) == ([[10.0, 10.0]], [[0.0, 0.0]])


def test_a_batch_may_be_one_token_or_none():
    one = torch.tensor([[-3.0]])
    assert verl.sft_loss(one, torch.ones(1, 1)).item() == 3.0 and verl.sft_loss(one, torch.zeros(1, 1)).item() == 0.0


def test_a_long_response_outvotes_a_short_one():
    logprobs = torch.tensor([[-1.0] * 5, [-4.0, 99, 99, 99, 99], [-4.0, -4.0, 99, 99, math.nan]])
    assert verl.sft_loss(logprobs, MASK).item() == pytest.approx((5 * 1 + 3 * 4) / 8)
    assert sft.sft_loss(logprobs, MASK).item() == pytest.approx((1 + 4 + 4) / 3)


@pytest.mark.parametrize("total", [5, 8, 50, 358])
def test_the_schedule_is_the_papers_a_step_later(total):
    scales = [verl.cosine_schedule(step, total) for step in range(1, total + 1)]
    assert scales[0] == 0
    assert scales[1:] == pytest.approx([sft.cosine_schedule(step, total) for step in range(1, total)], abs=1e-15)
    assert scales[-1] > 0.1


def test_without_a_warm_up_the_first_step_has_the_whole_rate():
    assert [verl.cosine_schedule(1, total) for total in (1, 2, 4)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 72", "72"),
        ("#### 72 dollars", "72"),
        ("#### 1,234", "1234"),
        ("#### -3", "-3"),
        ("#### 71\n#### 72", "72"),
        ("#### 72.", "72."),
        ("#### 72.0", "72.0"),
        ("#### $72", None),
        ("####72", None),
        ("#### **72**", None),
        ("#### 3/4", "3"),
        ("72", None),
        ("#### 72" + " " * 293, "72"),
        ("#### 72" + " " * 294, None),
    ],
)
def test_the_answer_is_a_string_of_the_last_300_characters(response, answer):
    assert verl.extract_answer(response) == answer
    assert verl.reward(response, "72") == float(answer == "72")


def test_a_plain_answer_has_the_same_reward():
    draw = random.Random(0)
    for _ in range(50):
        number = draw.randint(-9, 99999)
        response, gold = f"So it is.\n#### {draw.choice([f'{number:,}', str(number)])}", str(draw.choice([number, 5]))
        assert verl.reward(response, gold) == reward(response, gold)


def test_a_gold_answer_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not a decimal number"):
        verl.reward("#### 72", "seventy-two")
