"""Eqs. 23-28 as they are trained: exact whatever the micro-batches, against one sequence after the other."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from reference.config import Config, GRPOConfig, flatten
from reference.engines.artifacts import write_records
from reference.engines.distributed import Process
from reference.engines.learner import Learner, frozen_policy
from reference.engines.run_folder import RunFolder
from reference.interfaces import Sampling
from reference.paper.prompts import Prompts
from reference.records import Completion, Problem, RolloutGroup
from reference.stages import train_grpo as stage_module
from reference.stages.train_grpo import grpo_step, train_grpo

CPU = torch.device("cpu")
SETTINGS = GRPOConfig(
    batch_size=4,
    mini_batch_size=4,
    num_rollouts=3,
    temperature=0.7,
    max_new_tokens=16,
    lr=1e-3,
    max_grad_norm=1e9,
    kl_coef=0.05,
    weight_decay=0.0,
    max_tokens_per_batch=10**9,
)
REWARDS = [(1.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 0.0)]
PROMPTS = [[5, 9, 33], [700], [41, 42, 43, 44, 45, 46, 47, 48], [8, 300]]
BUDGETS = {"one by one": 1, "in between": 45, "all together": 10**9}


def groups(rewards=REWARDS, seed=0):
    """Responses of 1 to 16 random tokens; those of odd length were cut off."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for at, row in enumerate(rewards):
        lengths = torch.randint(1, 17, (len(row),), generator=draw).tolist()
        ids = [tuple(torch.randint(3, 768, (length,), generator=draw).tolist()) for length in lengths]
        made.append(
            RolloutGroup(f"p{at}", tuple(Completion(one, "", len(one) % 2 == 0, (0.0,) * len(one)) for one in ids), row)
        )
    return made


def learner_of(checkpoint, dtype=torch.float32, lr=SETTINGS.lr):
    return Learner(checkpoint, Process(), lr=lr, betas=(0.9, 0.999), weight_decay=0.0, max_grad_norm=1e9, dtype=dtype)


def gradient(policy):
    return torch.cat([weight.grad.flatten() for weight in policy.parameters()])


def response_logprobs(policy, prompt, ids, temperature):
    """log softmax(z / T) of each response token, one sequence a forward, without padding or mask."""
    sequence = [*prompt, *ids]
    logits_TV = policy.model(input_ids=torch.tensor([sequence])).logits[0] / temperature
    logp_TV = torch.log_softmax(logits_TV, dim=-1)
    return [logp_TV[at - 1, sequence[at]] for at in range(len(prompt), len(sequence))]


def advantages_by_loops(rewards):
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1))
    return [(reward - mean) / (deviation + 1e-6) for reward in rewards]


def eq_28_by_loops(policy, old_policy, ref_policy, prompts, grouped, settings):
    """Loss and gradient of Eqs. 23-28 in plain loops over prompts, responses and tokens."""
    policy.zero_grad()
    num_responses = sum(len(group.responses) for group in grouped)
    total = 0.0
    for prompt, group in zip(prompts, grouped, strict=True):
        for response, advantage in zip(group.responses, advantages_by_loops(group.rewards), strict=True):
            with torch.no_grad():
                old = [
                    x.item() for x in response_logprobs(old_policy, prompt, response.token_ids, settings.temperature)
                ]
                ref = [
                    x.item() for x in response_logprobs(ref_policy, prompt, response.token_ids, settings.temperature)
                ]
            objective = 0.0
            new = response_logprobs(policy, prompt, response.token_ids, settings.temperature)
            for logp, logp_old, logp_ref in zip(new, old, ref, strict=True):
                rho = torch.exp(logp - logp_old)
                clipped = min(max(rho.item(), 1 - settings.clip_eps), 1 + settings.clip_eps)
                surrogate = rho * advantage if rho.item() * advantage <= clipped * advantage else clipped * advantage
                kl = torch.exp(logp_ref - logp) - (logp_ref - logp) - 1
                objective = objective + surrogate - settings.kl_coef * kl
            loss = -objective / len(response.token_ids) / num_responses
            loss.backward()
            total += loss.item()
    return total, gradient(policy)


def close(found, expected, bound):
    largest = expected.abs().max()
    torch.testing.assert_close(found / largest, expected / largest, rtol=0, atol=bound)


@pytest.mark.parametrize("max_tokens", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_the_first_update_is_eq_28_whatever_the_micro_batches(random_checkpoint, max_tokens, dtype, bound):
    """With another reference policy, so that the KL term has a gradient."""
    settings = replace(SETTINGS, max_tokens_per_batch=max_tokens)
    start, reference = learner_of(random_checkpoint(), dtype), frozen_policy(random_checkpoint(seed=1), CPU).to(dtype)
    expected_loss, expected = eq_28_by_loops(start.policy, start.policy, reference, PROMPTS, groups(), settings)
    learner = learner_of(random_checkpoint(), dtype)
    metrics = grpo_step(learner, reference, PROMPTS, groups(), settings)
    close(gradient(learner.policy), expected, bound)
    assert metrics["grad_norm"] == pytest.approx(expected.norm().item(), rel=1e-5)
    assert metrics["loss"] == pytest.approx(expected_loss, rel=1e-5)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_the_micro_batches_change_no_digit_that_the_type_can_show(random_checkpoint, dtype, bound):
    reference = frozen_policy(random_checkpoint(seed=1), CPU).to(dtype)
    found = []
    for max_tokens in BUDGETS.values():
        learner = learner_of(random_checkpoint(), dtype)
        grpo_step(learner, reference, PROMPTS, groups(), replace(SETTINGS, max_tokens_per_batch=max_tokens))
        found.append(gradient(learner.policy))
    close(found[0], found[2], bound)
    close(found[1], found[2], bound)


@pytest.mark.parametrize("max_tokens", BUDGETS.values(), ids=BUDGETS)
def test_the_second_update_has_the_old_ratio_and_clips(random_checkpoint, max_tokens):
    """Two mini-batches: the second is judged by log-probabilities from before the first update."""
    settings = replace(SETTINGS, mini_batch_size=2, max_tokens_per_batch=max_tokens)
    reference = frozen_policy(random_checkpoint(seed=1), CPU)
    rewards = [REWARDS[0], REWARDS[2], REWARDS[2], REWARDS[0]]
    moved = learner_of(random_checkpoint(), lr=0.01)
    first = grpo_step(moved, reference, PROMPTS[:2], groups(rewards)[:2], settings)
    assert (first["updates"], first["clip_fraction"]) == (1, 0)
    old = frozen_policy(random_checkpoint(), CPU)
    expected_loss, expected = eq_28_by_loops(moved.policy, old, reference, PROMPTS[2:], groups(rewards)[2:], settings)
    learner = learner_of(random_checkpoint(), lr=0.01)
    metrics = grpo_step(learner, reference, PROMPTS, groups(rewards), settings)
    assert metrics["updates"] == 2 and metrics["clip_fraction"] > 0.05 and abs(metrics["ratio"] - 1) > 1e-3
    close(gradient(learner.policy), expected, 1e-4)
    assert 2 * metrics["loss"] - first["loss"] == pytest.approx(
        expected_loss, rel=1e-4
    )  # the metric is the mean of both


def test_in_the_first_update_the_ratio_is_one(random_checkpoint, random_student):
    """At the sampling temperature, on fresh samples: a forgotten temperature or a shifted mask shows here."""
    sampler = random_student.sampler
    sampler.load(random_student.base)
    drawn = sampler.sample(PROMPTS, [[1, 2, 3]] * 4, Sampling(0.7, 0.9, 16, with_logprobs=True))
    fresh = [RolloutGroup(str(at), tuple(row), REWARDS[at]) for at, row in enumerate(drawn)]
    learner = learner_of(random_checkpoint())
    metrics = grpo_step(learner, frozen_policy(random_checkpoint(), CPU), PROMPTS, fresh, SETTINGS)
    assert metrics["ratio"] == pytest.approx(1, abs=1e-6)
    assert metrics["clip_fraction"] == 0 and metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["grad_norm"] > 0  # the loss is about 0 and the gradient is not


def captured_rollouts(monkeypatch, learner, reference, settings):
    """What `grpo_step` hands to its update."""
    seen = []

    def update(learner, rollouts, turns, before, settings, equations):
        seen.append((rollouts, turns, before))
        return {"loss": 0.0, "kl": 0.0, "ratio": 1.0, "clip_fraction": 0.0, "grad_norm": 0.0}

    monkeypatch.setattr(stage_module, "_update", update)
    grpo_step(learner, reference, PROMPTS, groups(), settings)
    return seen


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("max_tokens", BUDGETS.values(), ids=BUDGETS)
def test_old_and_reference_log_probs_belong_to_their_response(random_checkpoint, monkeypatch, temperature, max_tokens):
    settings = replace(SETTINGS, temperature=temperature, max_tokens_per_batch=max_tokens)
    learner, reference = learner_of(random_checkpoint()), frozen_policy(random_checkpoint(seed=1), CPU)
    ((rollouts, turns, before),) = captured_rollouts(monkeypatch, learner, reference, settings)
    old, ref = {}, {}
    for turn in turns:
        for at, row in enumerate(turn.rows):
            inside, known = slice(rollouts[row].prompt_length, len(rollouts[row].token_ids)), before[turn]
            old[row], ref[row] = known.old_BT[at][inside].tolist(), known.ref_BT[at][inside].tolist()
    expected = [
        (prompt, response.token_ids, advantage)
        for prompt, group in zip(PROMPTS, groups(), strict=True)
        for response, advantage in zip(group.responses, advantages_by_loops(group.rewards), strict=True)
    ]
    for row, (rollout, (prompt, ids, advantage)) in enumerate(zip(rollouts, expected, strict=True)):
        assert (rollout.token_ids, rollout.prompt_length) == ((*prompt, *ids), len(prompt))
        assert rollout.advantage == pytest.approx(advantage, abs=1e-12)
        for policy, found in ((learner.policy, old[row]), (reference, ref[row])):
            with torch.no_grad():
                by_hand = [logprob.item() for logprob in response_logprobs(policy, prompt, ids, temperature)]
            assert found == pytest.approx(by_hand, abs=1e-5)


def test_mini_batches_are_whole_groups_in_order(random_checkpoint, monkeypatch):
    learner, reference = learner_of(random_checkpoint()), frozen_policy(random_checkpoint(), CPU)
    seen = captured_rollouts(monkeypatch, learner, reference, replace(SETTINGS, mini_batch_size=3))
    assert [len(rollouts) for rollouts, _, _ in seen] == [9, 3]
    assert [rollout.prompt_length for rollout in seen[1][0]] == [len(PROMPTS[3])] * 3


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_a_group_of_equal_rewards_has_only_the_gradient_of_the_kl(random_checkpoint, reward):
    equal = groups([(reward,) * 3] * 4)
    reference = frozen_policy(random_checkpoint(seed=1), CPU)
    without = learner_of(random_checkpoint())
    metrics = grpo_step(without, reference, PROMPTS, equal, replace(SETTINGS, kl_coef=0.0))
    assert metrics["grad_norm"] == 0
    learner, policy = learner_of(random_checkpoint()), learner_of(random_checkpoint()).policy
    metrics = grpo_step(learner, reference, PROMPTS, equal, SETTINGS)
    kl = 0.0
    for prompt, group in zip(PROMPTS, equal, strict=True):
        for response in group.responses:
            with torch.no_grad():
                ref = response_logprobs(reference, prompt, response.token_ids, 0.7)
            new = response_logprobs(policy, prompt, response.token_ids, 0.7)
            tokens = [torch.exp(r - p) - (r - p) - 1 for p, r in zip(new, ref, strict=True)]
            kl = kl + sum(tokens) / len(tokens) / 12
    (SETTINGS.kl_coef * kl).backward()
    close(gradient(learner.policy), gradient(policy), 1e-5)
    assert metrics["kl"] == pytest.approx(kl.item(), rel=1e-5)
    assert metrics["loss"] == pytest.approx(SETTINGS.kl_coef * kl.item(), rel=1e-5)


def test_the_advantage_raises_what_was_right_and_lowers_what_was_wrong(random_checkpoint):
    """One step up the objective, whose sign is easily lost: Eq. 25 is maximised."""
    learner, reference = learner_of(random_checkpoint(), lr=1e-4), frozen_policy(random_checkpoint(), CPU)
    settings = replace(SETTINGS, kl_coef=0.0)

    def means():
        with torch.no_grad():
            return [
                sum(response_logprobs(learner.policy, PROMPTS[0], response.token_ids, 0.7)) / len(response.token_ids)
                for response in groups()[0].responses
            ]

    before = means()
    for _ in range(3):
        grpo_step(learner, reference, PROMPTS[:1], groups()[:1], settings)
    change = [after - earlier for after, earlier in zip(means(), before, strict=True)]
    assert change[0] > 0 > min(change[1:])  # rewards 1, 0, 0


def test_metrics_are_those_of_the_rollouts(random_checkpoint):
    learner, reference = learner_of(random_checkpoint()), frozen_policy(random_checkpoint(seed=1), CPU)
    metrics = grpo_step(learner, reference, PROMPTS, groups(), SETTINGS)
    responses = [response for group in groups() for response in group.responses]
    assert metrics["reward"] == pytest.approx(6 / 12)
    assert (metrics["all_zero"], metrics["all_one"], metrics["mixed"]) == (0.25, 0.25, 0.5)
    assert metrics["response_length"] == pytest.approx(sum(len(r.token_ids) for r in responses) / 12)
    assert metrics["num_truncated"] == sum(len(r.token_ids) % 2 for r in responses)
    names = {
        "reward",
        "all_zero",
        "all_one",
        "mixed",
        "kl",
        "ratio",
        "clip_fraction",
        "entropy",
        "grad_norm",
        "sampler_gap",
    }
    assert names | {"response_length", "loss", "updates", "num_truncated"} == set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    entropies = []
    policy = frozen_policy(random_checkpoint(), CPU)
    for prompt, group in zip(PROMPTS, groups(), strict=True):
        for response in group.responses:
            sequence = [*prompt, *response.token_ids]
            logits_TV = policy.model(input_ids=torch.tensor([sequence])).logits[0, len(prompt) - 1 : -1] / 0.7
            p_TV = torch.softmax(logits_TV, dim=-1)
            entropies.append(-(p_TV * p_TV.log()).sum(-1).mean().item())
    assert metrics["entropy"] == pytest.approx(sum(entropies) / 12, rel=1e-4)


NAME = "iter1/3_grpo"
CONFIG = Config(grpo=replace(SETTINGS, batch_size=2, mini_batch_size=1, save_every=1, epochs=2, max_new_tokens=8))
PROBLEMS = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(5)]


def run_folder(path):
    """A run whose filter is done."""
    write_records(path / "iter1" / "2_filter" / "rollouts.jsonl", groups())
    run = RunFolder(path, flatten(CONFIG), [NAME], say=lambda line: None)
    run.take_up(PROBLEMS, [], Prompts())
    return run


def rewards_by_length(monkeypatch):
    """A random model is never right: give it a reward that varies."""
    original = stage_module.rollout_groups

    def rewarded(*arguments, **options):
        return [
            replace(group, rewards=tuple(float(sum(response.token_ids) % 2) for response in group.responses))
            for group in original(*arguments, **options)
        ]

    monkeypatch.setattr(stage_module, "rollout_groups", rewarded)


def files_of(path):
    return {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_stage_writes_metrics_timing_and_a_checkpoint(random_student, tmp_path, monkeypatch):
    rewards_by_length(monkeypatch)
    checkpoint = train_grpo(run_folder(tmp_path), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    assert checkpoint == tmp_path / NAME / "checkpoint"
    found = files_of(tmp_path / NAME)
    (tmp_path / NAME / "state.pt").write_text("left by a kill behind the receipt")
    again = train_grpo(run_folder(tmp_path), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    assert again == checkpoint and files_of(tmp_path / NAME) == found  # kept, and swept
    assert {"metrics.jsonl", "timing.jsonl", "receipt.json", "model.safetensors"} <= set(found)
    assert not [name for name in found if "partial" in name or name == "state.pt"]
    rows = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]  # two epochs of 2 + 2 + 1 problems
    assert [row["updates"] for row in rows] == [2, 2, 1, 2, 2, 1]
    assert all(row["tokens_per_second"] > 0 for row in map(json.loads, found["timing.jsonl"].splitlines()))
    receipt = json.loads(found["receipt.json"])
    assert {"seed", "equations", "sampler", "grpo.lr", "grpo.num_rollouts"} <= set(receipt["settings"])
    assert not [name for name in receipt["settings"] if name.startswith(("sft.", "teacher.", "difficulty."))]
    assert receipt["counts"]["problems"] == 5 and receipt["counts"]["steps"] == 6
    weights = files_of(checkpoint)["model.safetensors"]
    assert weights != files_of(random_student.base)["model.safetensors"]


def test_the_sampler_is_there_before_the_learner(random_student, tmp_path, monkeypatch):
    """vLLM's engine, as it starts, takes from the collector for good what is there; a sharded learner needs it."""
    begun = []
    for owner, name in ((random_student.sampler, "load"), (stage_module, "learner_of")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, of=original, name=name: [begun.append(name), of(*given)][1])
    train_grpo(run_folder(tmp_path), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    assert begun == ["load", "learner_of"]


def test_each_step_samples_from_the_weights_of_the_step_before(random_student, tmp_path, monkeypatch):
    rewards_by_length(monkeypatch)
    synced = []
    original = random_student.sampler.sync

    def watched(weights):
        weights = [(name, weight.detach().clone()) for name, weight in weights]
        synced.append(torch.cat([weight.flatten() for _, weight in weights]))
        original(weights)

    monkeypatch.setattr(random_student.sampler, "sync", watched)
    train_grpo(run_folder(tmp_path), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    assert len(synced) == 6
    assert all(not torch.equal(one, other) for one, other in pairwise(synced))


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_an_interrupted_stage_ends_with_the_same_bytes(random_student, tmp_path, monkeypatch, stop_after):
    """`stop_after` counts updates, so that some stops fall between the two updates of a rollout batch."""
    rewards_by_length(monkeypatch)
    train_grpo(run_folder(tmp_path / "a"), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    original, done = Learner.step, 0

    def interrupted(self, *arguments):
        nonlocal done
        if done == stop_after:
            raise KeyboardInterrupt
        done += 1
        return original(self, *arguments)

    monkeypatch.setattr(Learner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_grpo(run_folder(tmp_path / "b"), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    monkeypatch.setattr(Learner, "step", original)
    train_grpo(run_folder(tmp_path / "b"), CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    whole, again = files_of(tmp_path / "a" / NAME), files_of(tmp_path / "b" / NAME)
    for name in whole.keys() - {"timing.jsonl", "receipt.json"}:
        assert again[name] == whole[name], name
    assert again["timing.jsonl"].count(b"\n") == whole["timing.jsonl"].count(b"\n")


def test_an_empty_consolidation_set_leaves_the_model_as_it_was(random_student, tmp_path):
    for _ in range(2):  # also when the stage is kept
        end = train_grpo(run_folder(tmp_path), CONFIG, NAME, random_student.base, [], random_student)
        assert end == random_student.base
    receipt = json.loads((tmp_path / NAME / "receipt.json").read_text())
    assert receipt["done"] and receipt["counts"] == {"problems": 0, "steps": 0}


@pytest.mark.parametrize(("shift", "warned"), [(0.0, False), (0.04, False), (0.06, True)])
def test_a_sampler_that_is_not_this_policy_is_noticed(random_student, tmp_path, monkeypatch, shift, warned):
    """Its log-probabilities are compared with the trainer's at each step."""
    rewards_by_length(monkeypatch)
    original = random_student.sampler.sample

    def shifted(prompts, seeds, sampling):
        groups = original(prompts, seeds, sampling)
        return [
            [replace(one, logprobs=tuple(logprob - shift for logprob in one.logprobs)) for one in group]
            for group in groups
        ]

    monkeypatch.setattr(random_student.sampler, "sample", shifted)
    run, said = run_folder(tmp_path), []
    run.say = said.append
    train_grpo(run, CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    rows = [json.loads(line) for line in (tmp_path / NAME / "metrics.jsonl").read_text().splitlines()]
    assert all(row["sampler_gap"] == pytest.approx(shift, abs=1e-5) for row in rows)
    assert any("nats from the trainer's" in line for line in said) == warned
