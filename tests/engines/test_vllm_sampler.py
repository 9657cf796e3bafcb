"""vLLM: the same greedy tokens as the Hugging Face sampler, draws from the same distribution, new weights at any time.

Most of it needs vLLM (`pytest -m vllm`); updates and several processes are test_vllm_processes.py's.
"""

import importlib.util
import json
import math
import shutil
import sys
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference.engines import vllm_sampler
from reference.engines.hf_sampler import HFSampler
from reference.engines.policy import Policy, load_causal_lm
from reference.engines.vllm_sampler import VLLMSampler, VLLMSettings, check_tensor_parallel
from reference.interfaces import Sampling

CPU = torch.device("cpu")
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=24)
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=24)
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


def random_prompts(count, longest=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=draw).tolist()
    return [torch.randint(3, 768, (length,), generator=draw).tolist() for length in lengths]


def hugging_face(checkpoint, chat, end_ids=(2,)):
    sampler = HFSampler(chat.tokenizer, end_ids, CPU, torch.float32)
    sampler.load(checkpoint)
    return sampler


def ids_of(groups):
    return [[completion.token_ids for completion in group] for group in groups]


# Without vLLM


@pytest.mark.parametrize(("tensor_parallel", "processes"), [(1, 1), (1, 3), (2, 2), (2, 4)])
def test_sizes_that_divide_are_accepted(tensor_parallel, processes):
    check_tensor_parallel(14, 2, tensor_parallel, processes)  # Qwen2.5-0.5B
    check_tensor_parallel(32, 8, tensor_parallel, processes)  # Llama-3.2-1B


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tensor_parallel", "processes", "named"),
    [
        (14, 2, 4, 4, "1, 2$"),  # Table 6's own size for Qwen2.5-0.5B
        (14, 2, 2, 1, "1$"),
        (14, 2, 2, 3, "1$"),
        (14, 2, 7, 14, "1, 2, 14$"),  # 7 divides the heads, but neither divides nor is a multiple of 2
        (32, 8, 3, 6, "1, 2$"),
        (32, 8, 0, 4, "1, 2, 4$"),
    ],
)
def test_sizes_that_do_not_are_refused_with_those_that_do(heads, kv_heads, tensor_parallel, processes, named):
    with pytest.raises(ValueError, match=rf"tensor-parallel {tensor_parallel} .* {heads} attention .* {named}"):
        check_tensor_parallel(heads, kv_heads, tensor_parallel, processes)


def test_without_vllm_it_says_how_to_get_it(chat, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ValueError, match="not installed") as refused:
        VLLMSampler(chat.tokenizer, chat.end_ids, torch.float32)
    for way in ("'.[vllm]'", ".ci/install_vllm_cpu", "--sampler hf"):
        assert way in str(refused.value)


# With vLLM, in this process


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def engine(request, chat):
    """A sampler for the tied or the untied checkpoints; its engine is built once and lives on from test to test."""
    sampler = VLLMSampler(chat.tokenizer, [2], torch.float32, VLLMSettings(max_rows=32))
    sampler.tied = request.param
    yield sampler
    sampler.close()


@pytest.fixture
def checkpoint(engine, random_checkpoint):
    """Its weights are in the engine; another seed's may have been before."""
    path = random_checkpoint(tied=engine.tied, head_width=32)
    engine.load(path)
    engine.end_ids = (2,)
    return path


@needs_vllm
@pytest.mark.vllm
def test_the_engine_has_the_settings_of_table_6(engine, checkpoint):
    """Asked of the engine itself, whose own defaults are others; the number format is that of the sampler, not bf16."""
    config = engine._engine.llm_engine.vllm_config
    assert config.cache_config.gpu_memory_utilization == 0.4
    assert config.cache_config.enable_prefix_caching is False
    assert config.model_config.enforce_eager is True
    assert config.model_config.dtype == torch.float32


@needs_vllm
@pytest.mark.vllm
def test_loaded_and_synced_weights_replace_those_before(engine, checkpoint, random_checkpoint, chat):
    other = random_checkpoint(seed=1, tied=engine.tied, head_width=32)
    prompts, seeds = random_prompts(6), [[0]] * 6
    before, expected = (ids_of(hugging_face(path, chat).sample(prompts, seeds, GREEDY)) for path in (checkpoint, other))
    assert before != expected
    assert ids_of(engine.sample(prompts, seeds, GREEDY)) == before
    built = engine._engine
    engine.load(other)
    assert ids_of(engine.sample(prompts, seeds, GREEDY)) == expected
    engine.sync(Policy(load_causal_lm(checkpoint, torch.float32)).named_weights())
    assert ids_of(engine.sample(prompts, seeds, GREEDY)) == before
    assert engine._engine is built


@needs_vllm
@pytest.mark.vllm
def test_weights_are_taken_one_at_a_time_and_all_of_them(engine, checkpoint):
    """Under FSDP each tensor is gathered when the iterator comes to it: a list of them would be a second model."""
    model, alive, most = load_causal_lm(checkpoint, torch.float32), weakref.WeakSet(), 0

    def gathered():
        nonlocal most
        for name, weight in model.named_parameters():
            whole = weight.detach().clone()
            alive.add(whole)
            most = max(most, len(alive))
            yield name, whole
            del whole

    engine.sync(gathered())
    assert most <= 6 < len(list(model.parameters()))  # a layer's pieces, until it is whole
    with pytest.raises(AssertionError, match="model.norm.weight"):
        engine.sync((name, weight) for name, weight in model.named_parameters() if name != "model.norm.weight")


@needs_vllm
@pytest.mark.vllm
def test_a_sample_depends_on_its_prompt_and_seed_alone(engine, checkpoint):
    prompts, seeds = random_prompts(8), [[100 * at + i for i in range(3)] for at in range(8)]
    together = ids_of(engine.sample(prompts, seeds, DRAWN))
    torch.manual_seed(1)  # the global generator has no say
    assert ids_of(engine.sample(prompts, seeds, DRAWN)) == together
    assert ids_of(engine.sample(prompts[::-1], seeds[::-1], DRAWN)) == together[::-1]
    alone = [
        [engine.sample([p], [[seed]], DRAWN)[0][0].token_ids for seed in g] for p, g in zip(prompts, seeds, strict=True)
    ]
    assert alone == together
    longer = ids_of(engine.sample(prompts, seeds, replace(DRAWN, max_new_tokens=30)))
    assert [[ids[:24] for ids in group] for group in longer] == together


@needs_vllm
@pytest.mark.vllm
def test_seeds_of_64_bits_give_samples_of_their_own(engine, checkpoint):
    seeds = [0, 1, 2, 2**32 - 1, 2**63 + 12345, 2**64 - 5]
    (group,) = ids_of(engine.sample(random_prompts(1), [seeds], DRAWN))
    assert len(set(group)) == len(seeds)
    (last,), (again,) = (ids_of(engine.sample(random_prompts(1), [[2**64 - 1]], DRAWN)) for _ in range(2))
    assert last == again  # it is -1 as a signed number, and -1 would be no seed at all
    (twins,) = ids_of(engine.sample(random_prompts(1), [[5, 5]], DRAWN))
    assert twins[0] == twins[1]


@needs_vllm
@pytest.mark.vllm
def test_words_come_from_the_nucleus_as_often_as_they_should(engine, checkpoint):
    """Temperature and top-p are in force, and nothing else."""
    prompt, draws = random_prompts(1)[0], 4000
    with torch.no_grad():
        logits_V = load_causal_lm(checkpoint, torch.float64)(input_ids=torch.tensor([prompt])).logits[0, -1]
    ranked, words = torch.softmax(logits_V / 0.7, dim=-1).sort(descending=True)
    size = int((ranked.cumsum(0) < 0.9).sum()) + 1
    expected = dict(zip(words[:size].tolist(), (ranked[:size] / ranked[:size].sum()).tolist(), strict=True))
    (group,) = engine.sample([prompt], [list(range(draws))], replace(DRAWN, max_new_tokens=1))
    counts = dict.fromkeys(expected, 0)
    for completion in group:
        counts[completion.token_ids[0]] += 1  # a KeyError: a word outside the nucleus
    assert size > 10
    for word, probability in expected.items():
        assert abs(counts[word] - draws * probability) <= 5 * math.sqrt(draws * probability) + 1


@needs_vllm
@pytest.mark.vllm
def test_the_checkpoints_own_generation_settings_are_not_applied(random_checkpoint, chat, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint(head_width=32), folder)
    changes = {"top_k": 1, "repetition_penalty": 9.0, "eos_token_id": list(range(3, 768))}
    folder.joinpath("generation_config.json").write_text(json.dumps({"do_sample": True, **changes}), encoding="utf-8")
    sampler, prompts = VLLMSampler(chat.tokenizer, [2], torch.float32, VLLMSettings(max_rows=8)), random_prompts(4)
    sampler.load(folder)
    greedy = ids_of(sampler.sample(prompts, [[0]] * 4, GREEDY))
    (group,) = ids_of(sampler.sample(prompts[:1], [[1, 2, 3, 4]], DRAWN))
    sampler.close()
    assert greedy == ids_of(hugging_face(folder, chat).sample(prompts, [[0]] * 4, GREEDY))
    assert len(set(group)) == 4


@needs_vllm
@pytest.mark.vllm
def test_any_of_several_end_ids_ends_a_turn_and_is_kept(engine, checkpoint, chat):
    """Completions are equal to the Hugging Face sampler's in every field: ids, text, finished, log-probabilities."""
    prompts = random_prompts(12)
    rows = ids_of(engine.sample(prompts, [[0]] * 12, GREEDY))
    common = sorted({ids for (row,) in rows for ids in row[3:]}, key=lambda word: -sum(word in row for (row,) in rows))
    engine.end_ids = (767, common[0], common[1])
    sampling = replace(GREEDY, with_logprobs=True)
    groups = engine.sample(prompts, [[0]] * 12, sampling)
    expected = hugging_face(checkpoint, chat, engine.end_ids).sample(prompts, [[0]] * 12, sampling)
    for (one,), (other,) in zip(groups, expected, strict=True):
        assert replace(one, logprobs=None) == replace(other, logprobs=None)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    lengths = {len(completion.token_ids) for (completion,) in groups if completion.finished}
    assert len(lengths) > 2
    whole = next(completion for (completion,) in groups if completion.finished and len(completion.token_ids) > 1)
    at = groups.index([whole])
    exact = replace(GREEDY, max_new_tokens=len(whole.token_ids))  # an end on the last token that is allowed is an end
    assert engine.sample([prompts[at]], [[0]], exact)[0][0] == replace(whole, logprobs=None)
    short = engine.sample([prompts[at]], [[0]], replace(exact, max_new_tokens=exact.max_new_tokens - 1))[0][0]
    assert not short.finished and short.token_ids == whole.token_ids[:-1]


@needs_vllm
@pytest.mark.vllm
def test_logprobs_of_draws_are_at_temperature_1_of_the_whole_vocabulary(engine, checkpoint):
    prompts, sampling = random_prompts(4), replace(DRAWN, with_logprobs=True)
    groups = engine.sample(prompts, [[1, 2]] * 4, sampling)
    model = load_causal_lm(checkpoint, torch.float64)
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = completion.token_ids
            with torch.no_grad():
                logits_TV = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits_TV, dim=-1)[range(len(ids)), ids].tolist()
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)
    assert engine.sample(prompts, [[1, 2]] * 4, DRAWN)[0][0].logprobs is None


@needs_vllm
@pytest.mark.vllm
def test_another_architecture_gets_another_engine(random_checkpoint, chat):
    sampler, prompts = VLLMSampler(chat.tokenizer, [2], torch.float32, VLLMSettings(max_rows=8)), random_prompts(4)
    for tied in (True, False):
        path = random_checkpoint(tied=tied, head_width=32)
        sampler.load(path)
        expected = hugging_face(path, chat).sample(prompts, [[0]] * 4, GREEDY)
        assert ids_of(sampler.sample(prompts, [[0]] * 4, GREEDY)) == ids_of(expected)
    sampler.close()


@needs_vllm
@pytest.mark.vllm
def test_a_prefix_cache_does_not_outlive_its_weights(random_checkpoint, chat):
    """Off in Table 6; with it on, a prompt that was read with the old weights is read again with the new ones."""
    old, new = (random_checkpoint(seed=seed, head_width=32) for seed in (0, 1))
    sampler = VLLMSampler(chat.tokenizer, [2], torch.float32, VLLMSettings(prefix_caching=True, max_rows=8))
    sampler.load(old)
    draw = torch.Generator().manual_seed(3)
    prompts = torch.randint(3, 768, (2, 300), generator=draw).tolist()  # a block of the cache has 128 positions
    before = ids_of(sampler.sample(prompts, [[0]] * 2, GREEDY))
    sampler.sync(Policy(load_causal_lm(new, torch.float32)).named_weights())
    after = ids_of(sampler.sample(prompts, [[0]] * 2, GREEDY))
    sampler.close()
    assert before == ids_of(hugging_face(old, chat).sample(prompts, [[0]] * 2, GREEDY))
    assert after == ids_of(hugging_face(new, chat).sample(prompts, [[0]] * 2, GREEDY))
    assert before != after


@needs_vllm
@pytest.mark.vllm
def test_how_much_is_read_at_once_and_how_much_is_remembered_change_nothing(random_checkpoint, chat, monkeypatch):
    """Prompts that wait for the next forward, and responses that leave a full cache and come back."""
    from vllm.v1.core.sched.scheduler import Scheduler

    prompts = [(prompt * 128)[: 100 + 2 * at] for at, prompt in enumerate(random_prompts(12))]
    seeds = [[at, at + 50] for at in range(12)]
    left, original = [], Scheduler._preempt_request

    def sampled():
        left.clear()
        sampler = VLLMSampler(chat.tokenizer, [2], torch.float32, VLLMSettings(max_rows=24))
        sampler.load(random_checkpoint(head_width=32))
        groups = sampler.sample(prompts, seeds, replace(DRAWN, max_new_tokens=40))
        sampler.close()
        return ids_of(groups), len(left)

    def watched(scheduler, request, *arguments, **options):
        left.append(request)
        original(scheduler, request, *arguments, **options)

    monkeypatch.setattr(Scheduler, "_preempt_request", watched)
    roomy, none_left = sampled()
    monkeypatch.setattr(vllm_sampler, "CPU_CACHE_BYTES", 0)
    monkeypatch.setattr(vllm_sampler, "FORWARD_TOKENS", 512)
    tight, some_left = sampled()
    assert tight == roomy
    assert none_left == 0 < some_left


@needs_vllm
@pytest.mark.vllm
def test_groups_may_differ_in_size_and_be_larger_than_the_batch(engine, checkpoint):
    groups = engine.sample(random_prompts(4), [[1], [1, 2, 3], list(range(70)), []], DRAWN)
    assert [len(group) for group in groups] == [1, 3, 70, 0]
    assert engine.sample([], [], DRAWN) == []


@needs_vllm
@pytest.mark.vllm
def test_what_cannot_work_is_said_in_a_sentence(engine, checkpoint, chat, random_checkpoint, tmp_path):
    assert len(engine.sample([[5] * 488], [[0]], DRAWN)) == 1
    with pytest.raises(ValueError, match="489 tokens and 24 new ones .* 512"):
        engine.sample([[5] * 489], [[0]], DRAWN)
    with pytest.raises(ValueError, match="0 tokens"):
        engine.sample([[]], [[0]], DRAWN)
    with pytest.raises(ValueError, match="no readable config.json"):
        engine.load(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "incomplete")
    file = tmp_path / "incomplete" / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file)
    with pytest.raises(ValueError, match=r"lack \['model.norm.weight'\]"):
        engine.load(file.parent)
    file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="model.safetensors.* damaged"):
        engine.load(file.parent)
    fresh = VLLMSampler(chat.tokenizer, [2], torch.float32)
    for call in (lambda: fresh.sample([[5]], [[0]], GREEDY), lambda: fresh.sync([])):
        with pytest.raises(ValueError, match="load"):
            call()
    with pytest.raises(ValueError, match="heads 8 wide"):
        fresh.load(random_checkpoint())


@needs_vllm
@pytest.mark.vllm
def test_an_engine_that_does_not_fit_is_refused_and_disturbs_nothing(random_checkpoint, chat, monkeypatch):
    monkeypatch.setattr(VLLMSampler, "_cache_bytes", lambda *arguments: 1 << 50)
    path = random_checkpoint(head_width=32)
    with pytest.raises(ValueError, match="vLLM could not be started .* Available memory .* --sampler hf"):
        VLLMSampler(chat.tokenizer, [2], torch.float32).load(path)
    monkeypatch.undo()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sampler = VLLMSampler(chat.tokenizer, [2], torch.float32, VLLMSettings(max_length=100, max_rows=4))
    sampler.load(path)
    assert torch.equal(torch.get_rng_state(), before)  # vLLM seeds torch when it starts
    with pytest.raises(ValueError, match="80 tokens .* 100"):
        sampler.sample([[5] * 80], [[0]], DRAWN)
    sampler.close()
