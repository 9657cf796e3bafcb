"""The sampler: the greedy tokens of `model.generate`, and draws from exactly the truncated distribution."""

import math
from dataclasses import replace

import pytest
import torch

from reference.engines import hf_sampler
from reference.engines.hf_sampler import LIKELIEST, HFSampler
from reference.engines.policy import Policy, load_causal_lm
from reference.interfaces import Sampling
from reference.offline import word_problems
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper.prompts import Prompts, student_messages

CPU = torch.device("cpu")
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=40)
DRAWN = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=24)


def ragged_prompts(count, longest=40, seed=0):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=draw).tolist()
    return [torch.randint(3, 768, (length,), generator=draw).tolist() for length in lengths]


def sampler_of(checkpoint, chat, end_ids=None, max_rows=256):
    sampler = HFSampler(chat.tokenizer, chat.end_ids if end_ids is None else end_ids, CPU, torch.float32, max_rows)
    sampler.load(checkpoint)
    return sampler


def generated(checkpoint, prompts, max_new_tokens, end_ids):
    """What `model.generate` gives for each prompt, greedily and left-padded; cut behind the first end id."""
    model = load_causal_lm(checkpoint, torch.float32).eval()
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.no_grad():
        rows = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(end_ids),
            pad_token_id=0,
        )
    return [cut(row, end_ids) for row in rows[:, longest:].tolist()]


def cut(ids, end_ids):
    ends = [at for at, token in enumerate(ids) if token in end_ids]
    return tuple(ids[: ends[0] + 1] if ends else ids)


def common_words(checkpoint, prompts):
    """Words that greedy decoding comes to sooner or later: as end ids they stop the rows at different times."""
    rows = generated(checkpoint, prompts, 40, [2])
    counts = {}
    for row in rows:
        for token in set(row[1:]):
            counts[token] = counts.get(token, 0) + 1
    return sorted(counts, key=lambda token: (-counts[token], token))[:3]


@pytest.fixture(params=["stored base", "random, tied", "random, untied"])
def checkpoint(request, random_checkpoint):
    return BASE_CHECKPOINT if request.param == "stored base" else random_checkpoint(tied="untied" not in request.param)


@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("stops", ["late", "early"])
def test_greedy_tokens_are_those_of_generate(checkpoint, chat, samples, stops):
    """64 ragged prompts; `early` makes rows end all the time, so that the batch shrinks on its way."""
    prompts = ragged_prompts(64)
    end_ids = [2] if stops == "late" else common_words(checkpoint, prompts)
    expected = generated(checkpoint, prompts, 40, end_ids)
    groups = sampler_of(checkpoint, chat, end_ids, max_rows=1000).sample(prompts, [[0] * samples] * 64, GREEDY)
    for group, ids in zip(groups, expected, strict=True):
        assert [completion.token_ids for completion in group] == [ids] * samples
    lengths = {len(ids) for ids in expected}
    assert stops == "late" or len(lengths) > 3


@pytest.mark.parametrize("idle", [0.0, 0.25, 1.0])
def test_when_the_cache_is_compacted_changes_nothing(random_checkpoint, chat, monkeypatch, idle):
    monkeypatch.setattr(hf_sampler, "COMPACT_WHEN_IDLE", idle)
    checkpoint, prompts = random_checkpoint(), ragged_prompts(16)
    end_ids = common_words(checkpoint, prompts)
    groups = sampler_of(checkpoint, chat, end_ids).sample(prompts, [[0]] * 16, GREEDY)
    assert [group[0].token_ids for group in groups] == generated(checkpoint, prompts, 40, end_ids)


def truncated(logits_V, temperature, top_p):
    """softmax(z / T), the smallest set of likeliest words that reaches top_p, normalised: word -> probability."""
    weights = [math.exp(z / temperature) for z in (logits_V - logits_V.max()).tolist()]
    total = math.fsum(weights)
    ranked = sorted(((weight / total, word) for word, weight in enumerate(weights)), reverse=True)
    nucleus, mass = [], 0.0
    for probability, word in ranked:
        nucleus.append((word, probability))
        mass += probability
        if mass >= top_p:
            break
    return {word: probability / mass for word, probability in nucleus}


@pytest.mark.parametrize(
    ("spread", "temperature", "top_p"),
    [(0.2, 0.7, 0.9), (0.2, 1.0, 0.5), (0.2, 2.0, 1.0), (0.02, 0.7, 0.9), (0.02, 1.0, 1.0), (0.2, 0.7, 1e-9)],
)
def test_words_are_drawn_as_often_as_the_truncated_distribution_says(
    random_checkpoint, chat, spread, temperature, top_p
):
    checkpoint, prompt, draws = random_checkpoint(spread=spread, tied=False), ragged_prompts(1)[0], 20_000
    with torch.no_grad():
        logits_V = load_causal_lm(checkpoint, torch.float64)(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = truncated(logits_V, temperature, top_p)
    sampler = sampler_of(checkpoint, chat, max_rows=draws)
    group = sampler.sample([prompt], [list(range(draws))], Sampling(temperature, top_p, 1))[0]
    counts = dict.fromkeys(expected, 0)
    for completion in group:
        counts[completion.token_ids[0]] += 1  # a KeyError: a word outside the nucleus
    chi_square, freedom, rare_seen, rare_expected = 0.0, 0, 0, 0.0
    for word, probability in expected.items():
        if draws * probability < 5:
            rare_seen, rare_expected = rare_seen + counts[word], rare_expected + draws * probability
            continue
        chi_square += (counts[word] - draws * probability) ** 2 / (draws * probability)
        freedom += 1
    assert abs(rare_seen - rare_expected) <= 5 * math.sqrt(rare_expected + 1)
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom)
    if spread == 0.02:
        assert len(expected) > LIKELIEST  # the whole vocabulary had to be sorted
    if top_p == 1e-9:
        assert list(expected) == [logits_V.argmax().item()]


def test_a_sample_depends_on_its_prompt_and_seed_alone(chat):
    """Not on what else is in the batch, nor on how many rows there are.

    Real questions: where a distribution is nearly uniform, rounding may change which of two equal words comes first.
    """
    problems = word_problems.generate("train", 12, seed=0)
    prompts = [chat.prompt_ids(student_messages(Prompts(), problem)) for problem in problems]
    seeds = [[100 * at + i for i in range(3)] for at in range(12)]
    together = sampler_of(BASE_CHECKPOINT, chat).sample(prompts, seeds, DRAWN)
    small_batches = sampler_of(BASE_CHECKPOINT, chat, max_rows=5).sample(prompts, seeds, DRAWN)
    backwards = sampler_of(BASE_CHECKPOINT, chat).sample(prompts[::-1], seeds[::-1], DRAWN)[::-1]
    sampler = sampler_of(BASE_CHECKPOINT, chat)
    alone = [
        [sampler.sample([prompt], [[seed]], DRAWN)[0][0] for seed in group]
        for prompt, group in zip(prompts, seeds, strict=True)
    ]
    assert together == small_batches == backwards == alone


def test_a_longer_limit_only_appends(random_checkpoint, chat):
    sampler, prompts, seeds = sampler_of(random_checkpoint(), chat), ragged_prompts(4), [[1, 2], [3, 4], [5, 6], [7, 8]]
    short = sampler.sample(prompts, seeds, DRAWN)
    longer = sampler.sample(prompts, seeds, replace(DRAWN, max_new_tokens=30))
    for few, many in zip(short, longer, strict=True):
        for a, b in zip(few, many, strict=True):
            assert b.token_ids[: len(a.token_ids)] == a.token_ids


def test_equal_calls_are_equal_and_other_seeds_give_other_samples(random_checkpoint, chat):
    sampler, prompt = sampler_of(random_checkpoint(), chat), ragged_prompts(1)
    torch.manual_seed(1)
    first = sampler.sample(prompt, [[1, 2, 3, 2**64 - 1]], DRAWN)
    torch.manual_seed(2)  # the global generator has no say
    assert sampler.sample(prompt, [[1, 2, 3, 2**64 - 1]], DRAWN) == first
    assert len({completion.token_ids for completion in first[0]}) == 4
    twins = sampler.sample(prompt, [[5, 5]], DRAWN)[0]
    assert twins[0] == twins[1]


def test_equal_prompts_with_other_seeds_give_other_samples(random_checkpoint, chat):
    prompt = ragged_prompts(1)[0]
    (first,), (second,) = sampler_of(random_checkpoint(), chat).sample([prompt, prompt], [[1], [2]], DRAWN)
    assert first.token_ids != second.token_ids


@pytest.mark.parametrize("end_at", [0, 1, 2])
def test_any_of_several_end_ids_ends_a_turn_and_is_kept(random_checkpoint, chat, end_at):
    """Llama 3.2 and Qwen2.5 list several. The id that ended the turn is a token of the response, not of the text."""
    checkpoint, prompts = random_checkpoint(), ragged_prompts(16)
    common = common_words(checkpoint, prompts)
    end_ids = [767, 766, 765]
    end_ids[end_at] = common[0]
    groups = sampler_of(checkpoint, chat, end_ids).sample(prompts, [[0]] * 16, GREEDY)
    ended = [completion for (completion,) in groups if completion.finished]
    assert ended
    for (completion,) in groups:
        ids = completion.token_ids
        assert completion.finished == (ids[-1] in end_ids)
        assert not set(ids[:-1]) & set(end_ids)
        assert completion.finished or len(ids) == GREEDY.max_new_tokens
        shown = ids[:-1] if completion.finished else ids
        assert completion.text == chat.tokenizer.decode(shown, skip_special_tokens=True)


def test_an_end_on_the_last_token_that_is_allowed_is_an_end(random_checkpoint, chat):
    checkpoint, prompts = random_checkpoint(), ragged_prompts(1)
    ids = generated(checkpoint, prompts, 12, [2])[0]
    first = next(at for at in range(1, 12) if ids[at] not in ids[:at])
    sampler = sampler_of(checkpoint, chat, [ids[first]])
    (whole,) = sampler.sample(prompts, [[0]], replace(GREEDY, max_new_tokens=first + 1))[0]
    assert whole.finished and whole.token_ids == ids[: first + 1]
    (short,) = sampler.sample(prompts, [[0]], replace(GREEDY, max_new_tokens=first))[0]
    assert not short.finished and short.token_ids == ids[:first]


def test_ids_are_kept_as_sampled_and_never_encoded_again(random_checkpoint, chat):
    """A random model writes words that no tokenizer would: decoding and encoding gives other ids."""
    prompts = ragged_prompts(8)
    groups = sampler_of(random_checkpoint(), chat).sample(prompts, [[at] for at in range(8)], DRAWN)
    again = [chat.tokenizer(group[0].text, add_special_tokens=False)["input_ids"] for group in groups]
    assert any(tuple(ids) != group[0].token_ids for ids, group in zip(again, groups, strict=True))
    assert all(len(group[0].token_ids) == DRAWN.max_new_tokens or group[0].finished for group in groups)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_logprobs_are_those_of_the_whole_vocabulary_at_temperature_1(random_checkpoint, chat, temperature):
    """Each response is read again by the model, alone and unpadded; some end early, so that rows leave the batch."""
    checkpoint, prompts = random_checkpoint(), ragged_prompts(12)
    sampler = sampler_of(checkpoint, chat, common_words(checkpoint, prompts))
    sampling = Sampling(temperature, 0.9, 24, with_logprobs=True)
    groups = sampler.sample(prompts, [[at, at + 50] for at in range(12)], sampling)
    model = load_causal_lm(checkpoint, torch.float64)
    assert len({len(completion.token_ids) for group in groups for completion in group}) > 3
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = completion.token_ids
            with torch.no_grad():
                logits_TV = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            expected = torch.log_softmax(logits_TV, dim=-1)[range(len(ids)), ids].tolist()
            assert completion.logprobs == pytest.approx(expected, abs=1e-4)
    plain = sampler.sample(prompts, [[at, at + 50] for at in range(12)], replace(sampling, with_logprobs=False))
    assert plain == [[replace(completion, logprobs=None) for completion in group] for group in groups]


@pytest.mark.parametrize("tied", [True, False])
def test_synced_weights_sample_like_loaded_ones(random_checkpoint, chat, tied):
    old, new = random_checkpoint(seed=0, tied=tied), random_checkpoint(seed=1, tied=tied)
    prompts, seeds = ragged_prompts(8), [[at, at + 100] for at in range(8)]
    synced = sampler_of(old, chat)
    before = synced.sample(prompts, seeds, DRAWN)
    synced.sync(Policy(load_causal_lm(new, torch.float32)).named_weights())
    after = synced.sample(prompts, seeds, DRAWN)
    assert after == sampler_of(new, chat).sample(prompts, seeds, DRAWN) != before


def test_groups_may_differ_in_size_and_may_be_larger_than_the_batch(random_checkpoint, chat):
    sampler = sampler_of(random_checkpoint(), chat, max_rows=4)
    groups = sampler.sample(ragged_prompts(4), [[1], [1, 2, 3], list(range(7)), [4]], DRAWN)
    assert [len(group) for group in groups] == [1, 3, 7, 1]
    assert sampler.sample([], [], DRAWN) == []


def test_a_prompt_that_does_not_fit_the_model_is_refused(random_checkpoint, chat):
    sampler = sampler_of(random_checkpoint(), chat)  # 512 positions
    assert len(sampler.sample([[5] * 488], [[0]], DRAWN)) == 1
    with pytest.raises(ValueError, match="489 tokens and 24 new ones .* 512"):
        sampler.sample([[5] * 489], [[0]], DRAWN)
    with pytest.raises(ValueError, match="0 tokens"):
        sampler.sample([[]], [[0]], DRAWN)


def test_without_weights_it_says_so(chat):
    with pytest.raises(ValueError, match="load"):
        HFSampler(chat.tokenizer, chat.end_ids, CPU, torch.float32).sample([[5]], [[0]], GREEDY)


def test_how_many_prompts_are_read_at_once_changes_nothing(random_checkpoint, chat, monkeypatch):
    sampler, prompts = sampler_of(random_checkpoint(), chat), ragged_prompts(9)
    seeds, sampling = [[at] for at in range(9)], Sampling(0.7, 0.9, 12)
    whole, sizes = sampler.sample(prompts, seeds, sampling), []
    original = sampler._sample_batch

    def watched(batch, *arguments):
        sizes.append(len(batch) * max(map(len, batch)))
        return original(batch, *arguments)

    monkeypatch.setattr(sampler, "_sample_batch", watched)
    monkeypatch.setattr(hf_sampler, "PREFILL_TOKENS", 100)
    assert sampler.sample(prompts, seeds, sampling) == whole
    assert len(sizes) > 2 and max(sizes) <= 100
