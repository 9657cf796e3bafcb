"""The policy's log-probabilities, against the model on one sequence at a time."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from reference.engines.batches import pad_right, response_mask
from reference.engines.policy import Policy, copy_weights, load_causal_lm

CPU = torch.device("cpu")
PROMPTS = [3, 5, 1, 8, 2]
LENGTHS = [10, 6, 25, 9, 40]


def sequences():
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(3, 768, (length,), generator=draw).tolist() for length in LENGTHS]


def batch():
    return pad_right(sequences(), CPU), response_mask(PROMPTS, LENGTHS, CPU)


def one_by_one(model, temperature=1.0):
    """log softmax(z / T) of each response token, and the entropies, one sequence a forward, without padding."""
    logprobs, entropies = [], []
    for prompt_length, ids in zip(PROMPTS, sequences(), strict=True):
        with torch.no_grad():
            logits_TV = model(input_ids=torch.tensor([ids])).logits[0]
        rows, entropy_rows = [], []
        for at in range(prompt_length, len(ids)):
            logp_V = torch.log_softmax(logits_TV[at - 1] / temperature, dim=-1)
            rows.append(logp_V[ids[at]].item())
            entropy_rows.append(-sum(p * q for p, q in zip(logp_V.exp().tolist(), logp_V.tolist(), strict=True)))
        logprobs.append(rows)
        entropies.append(entropy_rows)
    return logprobs, entropies


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_a_batch_gives_the_log_probs_of_each_sequence_alone(random_checkpoint, tied, dtype, bound, packing):
    model = load_causal_lm(random_checkpoint(tied=tied), dtype).eval()
    ids_BT, mask_BT = batch()
    predicted = Policy(model, packing)(ids_BT, mask_BT)
    assert predicted.entropy is None and predicted.plain_logprobs is None
    for found_T, mask_T, expected in zip(predicted.logprobs, mask_BT, one_by_one(model)[0], strict=True):
        torch.testing.assert_close(found_T[mask_T], torch.tensor(expected, dtype=dtype), rtol=bound, atol=0)
        assert (found_T[~mask_T] == 0).all()


def test_changing_one_packed_sequence_leaves_its_neighbours_as_they_were(random_checkpoint):
    """With an attention mask of ones, or the cache left on, packed sequences see each other and nothing says so."""
    policy = Policy(load_causal_lm(random_checkpoint(), torch.float32).eval(), packing=True)
    ids_BT, mask_BT = batch()
    changed_BT = ids_BT.clone()
    changed_BT[2, 3:25] = 7
    with torch.no_grad():
        before_BT, after_BT = policy(ids_BT, mask_BT).logprobs, policy(changed_BT, mask_BT).logprobs
    others = [0, 1, 3, 4]
    assert torch.equal(before_BT[others], after_BT[others]) and not torch.equal(before_BT[2], after_BT[2])


def test_a_packed_row_ends_behind_the_last_supervised_token(random_checkpoint):
    """What no log-probability needs is not computed."""
    policy = Policy(load_causal_lm(random_checkpoint(), torch.float32).eval(), packing=True)
    ids_BT, mask_BT = batch()
    seen = []
    policy.model.model.register_forward_pre_hook(
        lambda module, _, options: seen.append(options["input_ids"].shape), with_kwargs=True
    )
    policy(ids_BT, mask_BT)
    assert seen == [(1, sum(LENGTHS) - len(LENGTHS))]  # the last token of a sequence predicts nothing


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_what_fills_a_row_changes_nothing(random_checkpoint, packing):
    policy = Policy(load_causal_lm(random_checkpoint(), torch.float32).eval(), packing)
    ids_BT, mask_BT = batch()
    in_sequence_BT = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    with torch.no_grad():
        before_BT = policy(ids_BT, mask_BT).logprobs
        after_BT = policy(ids_BT.where(in_sequence_BT, torch.tensor(77)), mask_BT).logprobs
    assert torch.equal(before_BT, after_BT)


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_log_probs_and_entropy_are_those_of_the_sampling_temperature(random_checkpoint, temperature):
    model = load_causal_lm(random_checkpoint(), torch.float64).eval()
    ids_BT, mask_BT = batch()
    plain, _ = one_by_one(model)
    with torch.no_grad():
        found = Policy(model)(ids_BT, mask_BT, temperature, measure=True)
    logprobs, entropies = one_by_one(model, temperature)
    for b, mask_T in enumerate(mask_BT):
        assert found.logprobs[b][mask_T].tolist() == pytest.approx(logprobs[b], abs=1e-12)
        assert found.entropy[b][mask_T].tolist() == pytest.approx(entropies[b], abs=1e-5)
        assert found.plain_logprobs[b][mask_T].tolist() == pytest.approx(plain[b], abs=1e-12)
        assert (found.entropy[b][~mask_T] == 0).all()


def test_a_batch_without_a_supervised_token_gives_zeros(random_checkpoint):
    policy = Policy(load_causal_lm(random_checkpoint(), torch.float32))
    ids_BT, mask_BT = batch()
    assert (policy(ids_BT, torch.zeros_like(mask_BT)).logprobs == 0).all()


@pytest.mark.parametrize("tied", [True, False])
def test_copied_weights_make_the_other_model(random_checkpoint, tied):
    own = load_causal_lm(random_checkpoint(seed=0, tied=tied), torch.float32).eval()
    other = load_causal_lm(random_checkpoint(seed=1, tied=tied), torch.float32).eval()
    ids = torch.tensor([sequences()[2]])
    with torch.no_grad():
        assert not torch.allclose(own(input_ids=ids).logits, other(input_ids=ids).logits)
        copy_weights(own, Policy(other).named_weights())
        assert torch.equal(own(input_ids=ids).logits, other(input_ids=ids).logits)
    own.model.embed_tokens.weight.data.zero_()  # a copy: the other keeps its own
    assert other.model.embed_tokens.weight.abs().sum() > 0


def test_names_are_those_of_the_checkpoint(random_checkpoint):
    names = [name for name, _ in Policy(load_causal_lm(random_checkpoint(), torch.float32)).named_weights()]
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names  # tied: stored once
    untied = [name for name, _ in Policy(load_causal_lm(random_checkpoint(tied=False), torch.float32)).named_weights()]
    assert "lm_head.weight" in untied


def test_weights_that_are_missing_or_unknown_are_noticed(random_checkpoint):
    model = load_causal_lm(random_checkpoint(), torch.float32)
    weights = list(Policy(load_causal_lm(random_checkpoint(seed=1), torch.float32)).named_weights())
    with pytest.raises(AssertionError, match="not given"):
        copy_weights(model, weights[:-1])
    with pytest.raises(KeyError):
        copy_weights(model, [("model.no_such_weight", weights[0][1])])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot load a model"):
        load_causal_lm(tmp_path, torch.float32)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", "[]", "cannot load a model"),
        ("config.json", "{", "cannot load a model"),
        ("config.json", '{"model_type": "no_such_model"}', "cannot load a model"),
        ("model.safetensors", "no weights", "cannot load a model"),
        ("generation_config.json", "{", "generation_config.json"),
    ],
)
def test_a_damaged_model_folder_is_refused(random_checkpoint, tmp_path, file, content, says):
    folder = shutil.copytree(random_checkpoint(), tmp_path / "model")
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=says):
        load_causal_lm(folder, torch.float32)


def test_missing_weights_are_named(random_checkpoint, tmp_path):
    """transformers would start them at random and go on."""
    folder = shutil.copytree(random_checkpoint(), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack .*model.norm.weight"):
        load_causal_lm(folder, torch.float32)


def test_another_architecture_is_refused_at_the_start(tmp_path):
    config = GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GPT2LMHeadModel.*decoder layers"):
        load_causal_lm(tmp_path, torch.float32)
