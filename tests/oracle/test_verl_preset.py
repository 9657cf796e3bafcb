"""`--equations verl` is verl: our functions and verl's own on the same ragged batch, cut as verl cuts it."""

import random

import pytest

pytestmark = pytest.mark.oracle
pytest.importorskip("verl", reason="no verl: run .ci/install_oracles")

import pandas
import torch
from omegaconf import OmegaConf
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.reward_score import default_compute_score

from reference.conformance.adapters import verl as theirs
from reference.conformance.adapters.ours import tensor, with_gradient
from reference.paper import verl as preset
from reference.records import Message
from tests.oracle.peers_page import BATCH, SFT_BATCH, cut, difference, rows_of

LENGTHS = (6, 1, 9, 2, 4, 3, 1, 12)
CUTS = {"one by one": cut(1, 8), "two by two": cut(2, 8), "uneven": [[0, 1, 2], [3], [4, 5, 6, 7]], "whole": cut(8, 8)}


def batch_of(seed, spread):
    """Eight ragged responses. A wide spread reaches the second clip and the clamps."""
    draw = random.Random(seed)
    rows = [[-draw.expovariate(1.0) for _ in range(max(LENGTHS))] for _ in LENGTHS]
    old, ref = ([[x + draw.gauss(0, spread) for x in row] for row in rows] for _ in range(2))
    mask = [[1] * length + [0] * (max(LENGTHS) - length) for length in LENGTHS]
    advantages = [1.6, -0.5, -0.5, 1.6, -0.5, -0.5, -0.5, -0.5]
    return {"logprobs": rows, "old_logprobs": old, "ref_logprobs": ref, "advantages": advantages, "mask": mask}


def preset_grpo(batch, clip_eps=0.2, kl_coef=0.1, dtype=torch.float64):
    others = [tensor(batch[name]).to(dtype) for name in ("old_logprobs", "ref_logprobs", "advantages", "mask")]
    return with_gradient(
        lambda x: preset.grpo_loss(x.to(dtype), *others, clip_eps=clip_eps, kl_coef=kl_coef), batch["logprobs"]
    )


@pytest.mark.parametrize("micro_batches", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("seed", "spread"), [(0, 0.1), (1, 1.0), (2, 4.0)])
def test_the_grpo_loss_is_verls(seed, spread, micro_batches):
    """Value and gradient."""
    batch = batch_of(seed, spread)
    found = theirs.grpo_loss(**batch, clip_eps=0.2, kl_coef=0.1, micro_batches=micro_batches)
    assert difference(found, preset_grpo(batch)) < 1e-12


def test_the_batch_of_the_page_too():
    settings = {name: BATCH[name] for name in ("clip_eps", "kl_coef")}
    assert difference(theirs.grpo_loss(**BATCH, micro_batches=cut(2)), preset_grpo(BATCH, **settings)) < 1e-14


def test_in_float32_they_are_as_near_as_float32_is():
    batch = batch_of(1, 1.0)
    assert (
        difference(theirs.grpo_loss(**batch, clip_eps=0.2, kl_coef=0.1), preset_grpo(batch, dtype=torch.float32)) < 1e-6
    )


@pytest.mark.parametrize("micro_batches", CUTS.values(), ids=CUTS)
def test_the_sft_loss_is_verls(micro_batches):
    batch = {name: values for name, values in batch_of(3, 0.1).items() if name in SFT_BATCH}
    expected = with_gradient(lambda x: preset.sft_loss(x, tensor(batch["mask"])), batch["logprobs"])
    assert difference(theirs.sft_loss(**batch, micro_batches=micro_batches), expected) < 1e-14


def test_the_ratio_and_the_terms_are_verls():
    draw = random.Random(4)
    logprobs = [[-draw.uniform(0, 30) for _ in range(60)]]
    others = [[x + draw.gauss(0, 10) for x in logprobs[0]]]
    ratio = preset.policy_ratio(tensor(logprobs), tensor(others))
    expected = tensor(theirs.policy_ratio(logprobs, others)["ratio"])
    torch.testing.assert_close(ratio, expected, rtol=1e-14, atol=0)
    assert ratio.max() == pytest.approx(torch.tensor(20.0, dtype=torch.float64).exp().item())  # the clamp is reached
    kl = preset.low_variance_kl(tensor(logprobs), tensor(others))
    assert difference(kl.tolist(), theirs.low_variance_kl(logprobs, others)["values"]) < 1e-14
    for advantage in (-1.0, 1.0):
        near = ratio.clamp(max=50.0)  # verl is given the ratio's logarithm and takes it back
        term = preset.clipped_term(near, tensor([advantage]))
        assert difference(term.tolist(), theirs.clipped_term(near.tolist(), [advantage], 0.2)["values"]) < 1e-12


@pytest.mark.parametrize("total", [1, 2, 4, 5, 10, 358])
def test_the_schedule_is_verls(total):
    for step in range(1, total + 1):
        expected = theirs.cosine_schedule(step, total, 0.2, 0.1)["scale"]
        assert preset.cosine_schedule(step, total, 0.2, 0.1) == pytest.approx(expected, abs=1e-15)


def test_the_reward_is_verls():
    """On the page's answers, and on strings drawn from what an answer is made of."""
    draw = random.Random(5)
    parts = ["#### ", "####", "72", "7", "2", ",", ".", "-", "$", " ", "\n", "1,234", "x" * 140]
    drawn = ["".join(draw.choices(parts, k=draw.randint(1, 12))) for _ in range(5000)]
    scored = []
    for response in [*rows_of(": a response ends in"), *drawn]:
        assert preset.extract_answer(response) == theirs.extract_answer(response)["answer"], response
        scored.append(preset.reward(response, "72"))
        assert scored[-1] == default_compute_score("openai/gsm8k", response, "72"), response
    assert 50 < sum(scored) < len(scored) / 2


def test_the_mask_is_verls(tmp_path, chat):
    """verl's own data set on a chat of the tiny model: its ids and the supervised ones, the newline included (A54)."""
    talk = [Message("user", "What is 12 + 13?"), Message("assistant", "12 + 13 = 25\n#### 25")]
    turns = [{"role": turn.role, "content": turn.content} for turn in talk]
    pandas.DataFrame({"messages": [turns]}).to_parquet(tmp_path / "chats.parquet")
    settings = OmegaConf.create({"max_length": 128, "pad_mode": "no_padding"})
    (row,) = MultiTurnSFTDataset([str(tmp_path / "chats.parquet")], chat.tokenizer, settings)
    example, papers = chat.example_ids(talk, with_tail=True), chat.example_ids(talk)
    assert row["input_ids"].tolist() == list(example.token_ids) == [*papers.token_ids, example.token_ids[-1]]
    answer = len(example.token_ids) - example.prompt_length
    assert row["loss_mask"].tolist() == [0] * example.prompt_length + [1] * answer
