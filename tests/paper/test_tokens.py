"""Log-probabilities and means over tokens, against loops of plain floats."""

import math
import random

import pytest
import torch

from reference.paper import tokens
from reference.paper.tokens import (
    CHUNK,
    SMALL_VOCABULARY,
    head_logprobs,
    head_statistics,
    mean_over_tokens,
    token_entropy,
    token_logprobs,
)


def log_softmax(logits, temperature=1.0):
    """log softmax(z / T) of one row of floats."""
    scaled = [z / temperature for z in logits]
    largest = max(scaled)
    total = math.fsum(math.exp(z - largest) for z in scaled)
    return [z - largest - math.log(total) for z in scaled]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_token_logprobs_agree_with_a_loop(temperature):
    torch.manual_seed(0)
    logits_BTV = 5 * torch.randn(3, 4, 7, dtype=torch.float64)
    targets_BT = torch.randint(7, (3, 4))
    found_BT = token_logprobs(logits_BTV, targets_BT, temperature)
    for b in range(3):
        for t in range(4):
            expected = log_softmax(logits_BTV[b, t].tolist(), temperature)[targets_BT[b, t]]
            assert found_BT[b, t].item() == pytest.approx(expected, abs=1e-12)


def test_the_probabilities_of_all_words_sum_to_1():
    logits_V = torch.tensor([1000.0, 999.0, -1000.0, 0.0], dtype=torch.float64)
    logprobs_V = token_logprobs(logits_V.expand(4, 4), torch.arange(4))
    assert logprobs_V.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert token_logprobs(torch.zeros(1, 5), torch.tensor([2])).item() == pytest.approx(-math.log(5), abs=1e-6)


def test_a_low_temperature_sharpens():
    logits_NV, likeliest_N = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])
    logprobs = [token_logprobs(logits_NV, likeliest_N, temperature).item() for temperature in (2.0, 1.0, 0.5, 0.01)]
    assert logprobs == sorted(logprobs)
    assert logprobs[-1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_normalised_in_float32(dtype):
    torch.manual_seed(0)
    logits_NV, targets_N = (10 * torch.randn(6, 50)).to(dtype), torch.randint(50, (6,))
    found_N = token_logprobs(logits_NV, targets_N, temperature=0.7)
    assert found_N.dtype == torch.float32
    torch.testing.assert_close(found_N, token_logprobs(logits_NV.double(), targets_N, 0.7).float())
    assert token_logprobs(logits_NV.double(), targets_N).dtype == torch.float64


def head_case(num_words, num_tokens, dtype=torch.float64):
    torch.manual_seed(num_words + num_tokens)
    hidden_ND = torch.randn(num_tokens, 8, dtype=dtype, requires_grad=True)
    head_VD = torch.randn(num_words, 8, dtype=dtype, requires_grad=True)
    return hidden_ND, head_VD, torch.randint(num_words, (num_tokens,))


def value_and_gradients(logprobs, hidden_ND, head_VD, targets_N, temperature):
    found_N = logprobs(hidden_ND, head_VD, targets_N, temperature)
    weights_N = torch.linspace(-1, 2, len(targets_N), dtype=hidden_ND.dtype)  # a weight for each, as advantages are
    return found_N.detach(), *torch.autograd.grad((found_N * weights_N).sum(), (hidden_ND, head_VD))


def plain_logprobs(hidden_ND, head_VD, targets_N, temperature):
    return token_logprobs(hidden_ND @ head_VD.T, targets_N, temperature)


@pytest.mark.parametrize(
    "num_words, num_tokens",
    [
        (SMALL_VOCABULARY, CHUNK + 1),
        (SMALL_VOCABULARY + 1, CHUNK),
        (SMALL_VOCABULARY + 1, CHUNK + 1),
        (9000, 2 * CHUNK),
    ],
)
@pytest.mark.parametrize("with_chunks_of_torch", [True, False], ids=["torch chunks", "own chunks"])
def test_the_head_in_chunks_is_the_head_at_once(num_words, num_tokens, with_chunks_of_torch, monkeypatch):
    """On both sides of the borders between the ways of computing it, in value and gradient."""
    if not with_chunks_of_torch:
        monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    case = head_case(num_words, num_tokens)
    found = value_and_gradients(head_logprobs, *case, 0.7)
    expected = value_and_gradients(plain_logprobs, *case, 0.7)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_the_whole_table_of_logits_is_made_only_where_it_is_small(monkeypatch):
    tables = []

    def spy(logits_NV, targets_N, temperature=1.0):
        tables.append(tuple(logits_NV.shape))
        return token_logprobs(logits_NV, targets_N, temperature)

    monkeypatch.setattr(tokens, "token_logprobs", spy)
    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    head_logprobs(*head_case(SMALL_VOCABULARY, CHUNK + 1))
    head_logprobs(*head_case(SMALL_VOCABULARY + 1, CHUNK))
    head_logprobs(*head_case(SMALL_VOCABULARY + 1, CHUNK + 1))
    small, large = SMALL_VOCABULARY, SMALL_VOCABULARY + 1
    assert tables == [(CHUNK + 1, small), (CHUNK, large), (CHUNK, large), (1, large)]


@pytest.mark.skipif(not hasattr(torch.nn.functional, "linear_cross_entropy"), reason="torch before 2.13")
def test_torch_cuts_the_head_itself_where_it_can_and_where_it_pays(monkeypatch):
    torchs_own, sizes = torch.nn.functional.linear_cross_entropy, []

    def spy(hidden_ND, head_VD, targets_N, **options):
        sizes.append((len(hidden_ND), len(head_VD), options["options"].batch_chunk_size))
        return torchs_own(hidden_ND, head_VD, targets_N, **options)

    monkeypatch.setattr(torch.nn.functional, "linear_cross_entropy", spy)
    head_logprobs(*head_case(SMALL_VOCABULARY, CHUNK + 1))
    head_logprobs(*head_case(SMALL_VOCABULARY + 1, CHUNK))
    assert sizes == []
    head_logprobs(*head_case(SMALL_VOCABULARY + 1, CHUNK + 1))
    assert sizes == [(CHUNK + 1, SMALL_VOCABULARY + 1, CHUNK)]


@pytest.mark.parametrize("num_tokens", [CHUNK, CHUNK + 1])
def test_the_heads_logprobs_are_float32_at_least_however_many_tokens_there_are(num_tokens):
    """In bfloat16 a log-probability of -9 has steps of 1/16: no ratio survives that."""
    hidden_ND, head_VD, targets_N = head_case(SMALL_VOCABULARY + 1, num_tokens, torch.bfloat16)
    found_N = head_logprobs(hidden_ND, head_VD, targets_N, 0.7)
    assert found_N.dtype == torch.float32
    expected_N = plain_logprobs(hidden_ND.float(), head_VD.float(), targets_N, 0.7)
    torch.testing.assert_close(found_N, expected_N, rtol=0, atol=0.15)  # what is left is the rounding of the logits


@pytest.mark.parametrize("num_tokens", [CHUNK, CHUNK + 1])
def test_the_heads_logprobs_are_the_same_under_autocast(num_tokens):
    hidden_ND, head_VD, targets_N = head_case(SMALL_VOCABULARY + 1, num_tokens, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found_N = head_logprobs(hidden_ND, head_VD, targets_N)
    torch.testing.assert_close(found_N, plain_logprobs(hidden_ND, head_VD, targets_N, 1.0))


def test_a_target_too_few_is_refused(monkeypatch):
    monkeypatch.delattr(torch.nn.functional, "linear_cross_entropy", raising=False)
    hidden_ND, head_VD, targets_N = head_case(SMALL_VOCABULARY + 1, 2 * CHUNK + 1)
    with pytest.raises(ValueError, match="zip"):
        head_logprobs(hidden_ND, head_VD, targets_N[: 2 * CHUNK])


def test_the_statistics_of_the_head_are_those_of_its_logits():
    hidden_ND, head_VD, targets_N = head_case(50, 2 * CHUNK + 1)
    found = head_statistics(hidden_ND, head_VD, targets_N, 0.7)
    logits_NV = hidden_ND @ head_VD.T
    expected = (
        token_logprobs(logits_NV, targets_N, 0.7),
        token_entropy(logits_NV, 0.7),
        token_logprobs(logits_NV, targets_N),
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert not ours.requires_grad
        torch.testing.assert_close(ours, theirs)


def test_entropy_agrees_with_a_loop():
    torch.manual_seed(0)
    logits_NV = 3 * torch.randn(5, 6)
    for row, found in zip(logits_NV.tolist(), token_entropy(logits_NV, 0.7).tolist(), strict=True):
        expected = -math.fsum(math.exp(logp) * logp for logp in log_softmax(row, 0.7))
        assert found == pytest.approx(expected, abs=1e-5)
    assert token_entropy(torch.zeros(1, 9)).item() == pytest.approx(math.log(9), abs=1e-6)
    assert torch.equal(token_entropy(logits_NV), token_entropy(logits_NV, 1.0))
    in_rows = token_entropy(logits_NV.reshape(1, 5, 6), 0.7)
    assert torch.equal(in_rows, token_entropy(logits_NV, 0.7).reshape(1, 5))
    assert token_entropy(logits_NV.bfloat16()).dtype == torch.float32


def ragged(draw, num_rows, num_positions, num_empty=0):
    """Random numbers and a mask of rows of unequal length; the last rows are empty."""
    lengths = [draw.randint(1, num_positions) for _ in range(num_rows - num_empty)] + [0] * num_empty
    numbers = [[draw.gauss(0, 1) for _ in range(num_positions)] for _ in lengths]
    return numbers, [[1] * length + [0] * (num_positions - length) for length in lengths]


def test_mean_over_tokens_agrees_with_a_loop():
    draw = random.Random(0)
    for _ in range(50):
        x, mask = ragged(draw, num_rows=5, num_positions=7, num_empty=1)
        draw.shuffle(mask[0])  # a mask with holes
        found_B = mean_over_tokens(torch.tensor(x, dtype=torch.float64), torch.tensor(mask))
        for row, keep, found in zip(x, mask, found_B.tolist(), strict=True):
            total, count = 0.0, 0
            for value, kept in zip(row, keep, strict=True):
                if kept:
                    total, count = total + value, count + 1
            assert found == pytest.approx(total / count if count else 0.0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_the_mask_may_be_of_any_type(dtype):
    x_BT, mask_BT = torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]]).to(dtype)
    assert mean_over_tokens(x_BT, mask_BT).tolist() == [2.0]


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_what_stands_at_masked_positions_does_not_matter(garbage):
    x_BT = torch.tensor([[1.0, 3.0, garbage], [garbage, garbage, garbage]], requires_grad=True)
    mean_B = mean_over_tokens(x_BT, torch.tensor([[1, 1, 0], [0, 0, 0]]))
    assert mean_B.tolist() == [2.0, 0.0]
    mean_B.sum().backward()
    assert x_BT.grad.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_rows_without_tokens_keep_the_graph():
    """An empty micro-batch must still run its backward, or another rank waits for it."""
    x_BT = torch.randn(2, 3, requires_grad=True)
    mean_over_tokens(x_BT, torch.zeros(2, 3)).mean().backward()
    assert x_BT.grad.tolist() == [[0.0] * 3] * 2
