"""Eq. 21 against a loop, and against the mean that it is not."""

import math
import random

import pytest
import torch

from reference.paper.sft import cosine_schedule, sft_loss
from reference.paper.tokens import token_logprobs


def eq_21(logprobs, masks):
    """-E[(1/|y|) sum_k log pi(y_k)] over lists of floats."""
    losses = []
    for row, mask in zip(logprobs, masks, strict=True):
        y = [logprob for logprob, supervised in zip(row, mask, strict=True) if supervised]
        total = 0.0
        for logprob in y:
            total += logprob
        losses.append(-total / len(y))
    return sum(losses) / len(losses)


def random_case(seed, num_samples=4, num_positions=9):
    """Prompt, response, padding: the mask is 0, 1, 0."""
    draw = random.Random(seed)
    masks = []
    for _ in range(num_samples):
        begin = draw.randint(1, num_positions - 1)
        length = draw.randint(1, num_positions - begin)
        masks.append([0] * begin + [1] * length + [0] * (num_positions - begin - length))
    logprobs = [[-draw.expovariate(1.0) for _ in range(num_positions)] for _ in masks]
    return torch.tensor(logprobs, dtype=torch.float64), torch.tensor(masks)


@pytest.mark.parametrize("seed", range(20))
def test_sft_loss_agrees_with_a_loop(seed):
    logprobs_BT, mask_BT = random_case(seed)
    expected = eq_21(logprobs_BT.tolist(), mask_BT.tolist())
    assert sft_loss(logprobs_BT, mask_BT).item() == pytest.approx(expected, abs=1e-12)


def test_a_long_response_does_not_outvote_a_short_one():
    """Eq. 21 weighs the two alike; a mean over all tokens, verl's and TRL's, gives the long one 9 votes of 10."""
    logprobs_BT = torch.tensor([[-1.0] * 9, [-5.0] + [0.0] * 8], dtype=torch.float64)
    mask_BT = torch.tensor([[1] * 9, [1] + [0] * 8])
    assert sft_loss(logprobs_BT, mask_BT).item() == pytest.approx(3.0)
    token_mean = -(logprobs_BT * mask_BT).sum() / mask_BT.sum()
    assert token_mean.item() == pytest.approx(1.4)


def test_each_token_weighs_one_over_its_responses_length():
    logprobs_BT, mask_BT = random_case(0)
    logprobs_BT.requires_grad_()
    sft_loss(logprobs_BT, mask_BT).backward()
    expected_BT = -mask_BT.double() / mask_BT.sum(dim=1, keepdim=True) / len(mask_BT)
    torch.testing.assert_close(logprobs_BT.grad, expected_BT, rtol=1e-12, atol=0)


def test_a_response_of_one_token_costs_its_negative_logprob():
    """[prompt][r1]: no shift between the mask and the log-probabilities, or another token is paid for."""
    logits_BTV = torch.randn(1, 3, 5, dtype=torch.float64)
    logprobs_BT = token_logprobs(logits_BTV, torch.tensor([[4, 2, 1]]))
    r1 = -math.log(torch.softmax(logits_BTV[0, 2], dim=0)[1].item())
    assert sft_loss(logprobs_BT, torch.tensor([[0, 0, 1]])).item() == pytest.approx(r1, abs=1e-12)


def test_the_loss_of_a_uniform_model_is_the_log_of_its_vocabulary():
    logprobs_BT = token_logprobs(torch.zeros(2, 4, 50, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.long))
    mask_BT = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 1]])
    assert sft_loss(logprobs_BT, mask_BT).item() == pytest.approx(math.log(50), abs=1e-12)


def test_prompt_and_padding_do_not_matter():
    logprobs_BT, mask_BT = random_case(1)
    changed_BT = torch.where(mask_BT.bool(), logprobs_BT, torch.full_like(logprobs_BT, -77.0))
    assert sft_loss(changed_BT, mask_BT).item() == sft_loss(logprobs_BT, mask_BT).item()


def test_equal_parts_of_a_batch_average_to_its_loss():
    logprobs_BT, mask_BT = random_case(2)
    halves = [sft_loss(logprobs_BT[rows], mask_BT[rows]).item() for rows in (slice(0, 2), slice(2, 4))]
    assert sft_loss(logprobs_BT, mask_BT).item() == pytest.approx(sum(halves) / 2, abs=1e-12)


def test_gradcheck():
    logprobs_BT, mask_BT = random_case(3)
    assert torch.autograd.gradcheck(lambda x_BT: sft_loss(x_BT, mask_BT), logprobs_BT.requires_grad_())


def test_the_schedule_of_ten_steps_by_hand():
    """Two steps of warm-up, then half a cosine over the other eight."""
    scales = [cosine_schedule(step, 10) for step in range(1, 11)]
    assert scales[:2] == [0.5, 1.0]
    assert scales[2:] == pytest.approx([0.1 + 0.45 * (1 + math.cos(math.pi * at / 8)) for at in range(1, 9)])
    assert scales[5] == pytest.approx(0.55) and scales[9] == pytest.approx(0.1)


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("total", range(1, 13))
def test_the_schedule_rises_to_1_and_falls_to_its_minimum(total, ratio):
    scales = [cosine_schedule(step, total, ratio, 0.1) for step in range(1, total + 1)]
    peak = max(1, int(ratio * total))
    assert scales[peak - 1] == 1.0
    assert scales[:peak] == pytest.approx([step / peak for step in range(1, peak + 1)])
    assert all(later < earlier for earlier, later in zip(scales[peak - 1 :], scales[peak:], strict=False))
    assert scales[-1] == (pytest.approx(0.1) if peak < total else 1.0)


@pytest.mark.parametrize("step", [0, 11])
def test_a_step_outside_the_schedule_is_refused(step):
    with pytest.raises(ValueError, match="steps 1 to 10"):
        cosine_schedule(step, 10)
