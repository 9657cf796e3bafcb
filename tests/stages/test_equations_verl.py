"""`--equations verl` in the stages: verl's losses whatever the micro-batches, its schedule, its scorer, its mask."""

import json
from dataclasses import replace

import pytest
import torch

from reference.config import Config, GRPOConfig, SFTConfig, flatten
from reference.engines.artifacts import read_records
from reference.engines.chat import TokenizedExample
from reference.engines.distributed import Process
from reference.engines.learner import Learner, frozen_policy
from reference.engines.run_folder import RunFolder
from reference.interfaces import Share
from reference.paper import verl
from reference.paper.grpo import group_advantages
from reference.paper.sft import cosine_schedule
from reference.records import Completion, ExampleKind, Message, Problem, RolloutGroup, SFTExample
from reference.stages import estimate_difficulty, filter_rewards
from reference.stages.train_grpo import grpo_step, train_grpo
from reference.stages.train_sft import sft_step, tokenize, train_sft

CPU = torch.device("cpu")
BUDGETS = {"one by one": 1, "a few together": 60, "all together": 10**9}
LENGTHS = [(3, 17), (9, 2), (1, 1), (12, 30), (4, 8), (2, 45)]
GRPO = GRPOConfig(mini_batch_size=2, num_rollouts=3, kl_coef=0.05, max_grad_norm=1e9)
REWARDS = [(1.0, 0.0, 0.0), (0.0, 1.0, 1.0)]


def learner_of(checkpoint, lr=1e-4):
    return Learner(
        checkpoint, Process(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0, max_grad_norm=1e9, dtype=torch.float64
    )


def gradient(learner):
    return torch.cat([weight.grad.flatten() for weight in learner.policy.parameters()])


def ids_of(draw, length):
    return tuple(torch.randint(3, 768, (length,), generator=draw).tolist())


def logprobs_of(policy, sequences, temperature=1.0):
    """Of the responses alone, padded with 0: [B, T], and their mask. A sequence is (ids, prompt length)."""
    rows = []
    for ids, prompt_length in sequences:
        logits = policy.model(input_ids=torch.tensor([ids])).logits[0] / temperature
        rows.append(
            torch.log_softmax(logits, dim=-1)[:-1].gather(1, torch.tensor(ids)[1:, None])[prompt_length - 1 :, 0]
        )
    lengths = torch.tensor([len(row) for row in rows])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.arange(max(lengths)) < lengths[:, None]


@pytest.mark.parametrize("max_tokens", BUDGETS.values(), ids=BUDGETS)
def test_the_sft_step_is_verls_whatever_the_micro_batches(random_checkpoint, max_tokens):
    draw = torch.Generator().manual_seed(0)
    batch = [TokenizedExample(ids_of(draw, prompt + answer), prompt) for prompt, answer in LENGTHS]
    by_hand = learner_of(random_checkpoint())
    loss = verl.sft_loss(*logprobs_of(by_hand.policy, [(one.token_ids, one.prompt_length) for one in batch]))
    loss.backward()
    learner = learner_of(random_checkpoint())
    metrics = sft_step(learner, batch, max_tokens, mean="tokens")
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(gradient(learner), gradient(by_hand), rtol=0, atol=1e-13)
    papers = sft_step(learner_of(random_checkpoint()), batch, max_tokens)
    assert abs(papers["loss"] - metrics["loss"]) > 0.01


@pytest.mark.parametrize("max_tokens", BUDGETS.values(), ids=BUDGETS)
def test_the_grpo_step_is_verls_whatever_the_micro_batches(random_checkpoint, max_tokens):
    draw = torch.Generator().manual_seed(1)
    prompts = [[5, 9, 33], [700]]
    groups = [
        RolloutGroup(
            f"p{at}",
            tuple(Completion(ids_of(draw, n), "", True, (0.0,) * n) for n in lengths),
            rewards,
        )
        for at, (lengths, rewards) in enumerate(zip([(16, 1, 5), (3, 9, 2)], REWARDS, strict=True))
    ]
    reference = frozen_policy(random_checkpoint(seed=1), CPU).double()
    sequences = [
        ((*prompt, *response.token_ids), len(prompt))
        for prompt, group in zip(prompts, groups, strict=True)
        for response in group.responses
    ]
    by_hand = learner_of(random_checkpoint())
    logprobs, mask = logprobs_of(by_hand.policy, sequences, GRPO.temperature)
    ref = logprobs_of(reference, sequences, GRPO.temperature)[0]
    advantages = group_advantages(torch.tensor(REWARDS, dtype=torch.float64)).flatten()
    loss = verl.grpo_loss(logprobs, logprobs.detach(), ref, advantages, mask, kl_coef=0.05)
    loss.backward()
    learner = learner_of(random_checkpoint())
    settings = replace(GRPO, max_tokens_per_batch=max_tokens)
    metrics = grpo_step(learner, reference, prompts, groups, settings, "verl")
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(gradient(learner), gradient(by_hand), rtol=0, atol=1e-12)
    papers = grpo_step(learner_of(random_checkpoint()), reference, prompts, groups, settings)
    assert abs(papers["loss"] - metrics["loss"]) > 0.01
    assert {name: papers[name] for name in ("kl", "ratio")} == pytest.approx(
        {name: metrics[name] for name in ("kl", "ratio")}, rel=1e-12
    )


EXAMPLES = [
    SFTExample(str(at), ExampleKind.MEDIUM, (Message("user", f"{at} + 1?"), Message("assistant", f"#### {at + 1}")))
    for at in range(12)
]


def test_the_phase_has_verls_schedule(tmp_path, random_student):
    """Six steps of two: warm-up int(0.2 * 6) = 1, so that the first step of verl's schedule moves nothing."""
    name, rates = "iter1/1_sft/1_medium", {}
    for equations, schedule in (("paper", cosine_schedule), ("verl", verl.cosine_schedule)):
        config = Config(sft=SFTConfig(batch_size=2, lr=1e-3), equations=equations)
        run = RunFolder(tmp_path / equations, flatten(config), [name], say=lambda line: None)
        train_sft(run, config, name, random_student.base, EXAMPLES, random_student)
        lines = (tmp_path / equations / name / "metrics.jsonl").read_text().splitlines()
        rates[equations] = [json.loads(line)["lr"] for line in lines]
        assert rates[equations] == pytest.approx([1e-3 * schedule(step, 6) for step in range(1, 7)])
    assert rates["verl"][0] == 0 < rates["paper"][0]


RAGGED = [
    SFTExample(str(at), ExampleKind.MEDIUM, (Message("user", f"{at} + 1?"), Message("assistant", f"#### {10**at}")))
    for at in (0, 3, 9)
]


def test_the_phase_has_verls_loss_and_mask(tmp_path, random_student):
    name = "iter1/1_sft/1_medium"
    config = Config(sft=SFTConfig(batch_size=3), equations="verl")
    run = RunFolder(tmp_path, flatten(config), [name], say=lambda line: None)
    train_sft(run, config, name, random_student.base, RAGGED, random_student)
    (row,) = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())

    def loss_of(mask, mean):
        batch = tokenize(RAGGED, random_student.chat, 999, mask).examples
        return sft_step(learner_of(random_student.base), batch, 10**9, mean=mean)["loss"]

    assert row["loss"] == pytest.approx(loss_of("verl", "tokens"), rel=1e-5)
    for other in (("paper", "tokens"), ("verl", "responses"), ("paper", "responses")):
        assert abs(row["loss"] - loss_of(*other)) > 1e-4 * row["loss"]


def test_what_the_template_writes_behind_the_turn_is_supervised(chat):
    (plain,), (with_tail,) = (tokenize(EXAMPLES[:1], chat, 999, which).examples for which in ("paper", "verl"))
    tail = with_tail.token_ids[len(plain.token_ids) :]
    assert with_tail.token_ids[: len(plain.token_ids)] == plain.token_ids
    assert with_tail.prompt_length == plain.prompt_length and plain.token_ids[-1] in chat.end_ids
    assert chat.tokenizer.decode(tail) == "\n"


class FullStop:
    """A sampler whose every response is right and ends in a full stop."""

    share = Share()

    def load(self, checkpoint):
        pass

    def sample(self, prompts, seeds, sampling):
        return [[Completion((5,), "#### 72.", True, (0.0,)) for _ in row] for row in seeds]


@pytest.mark.parametrize(("equations", "expected"), [("paper", 1.0), ("verl", 0.0)])
def test_difficulty_and_rollouts_have_verls_scorer(tmp_path, random_student, equations, expected):
    problems, student = [Problem("p0", "8 * 9?", "72")], replace(random_student, sampler=FullStop())
    config = Config(equations=equations)
    names = [estimate_difficulty.STAGE, "iter1/2_filter"]
    run = RunFolder(tmp_path / "run", flatten(config), names, say=lambda line: None)
    run.problems_path.parent.mkdir(parents=True, exist_ok=True)
    for record in (run.problems_path, run.prompts_path):
        record.write_text("")
    (graded,) = estimate_difficulty.estimate_difficulty(run, config, problems, student)
    assert graded.accuracy == expected
    filter_rewards.filter_rewards(run, config, names[1], student.base, problems, student)
    (group,) = read_records(run.folder(names[1]) / "rollouts.jsonl", RolloutGroup)
    assert set(group.rewards) == {expected}


class Ragged(FullStop):
    """A sampler of three responses of 12, 2 and 5 tokens; the first is right for the paper, the second for both."""

    def sample(self, prompts, seeds, sampling):
        texts = {"#### 72.": 12, "#### 72": 2, "#### 7": 5}
        group = [Completion((5,) * length, text, True, (0.0,) * length) for text, length in texts.items()]
        return [group for _ in prompts]

    def sync(self, weights):
        list(weights)


@pytest.mark.parametrize(("equations", "rewards"), [("paper", (1.0, 1.0, 0.0)), ("verl", (0.0, 1.0, 0.0))])
def test_the_stage_has_verls_loss_and_scorer(tmp_path, random_student, equations, rewards):
    """With every ratio 1 and no divergence the loss is the mean advantage: of responses 0, of tokens it is not."""
    name, problems = "iter1/3_grpo", [Problem("p0", "8 * 9?", "72")]
    config = Config(grpo=replace(GRPO, batch_size=1, mini_batch_size=1, epochs=1), equations=equations)
    (tmp_path / "iter1" / "2_filter").mkdir(parents=True)
    (tmp_path / "iter1" / "2_filter" / "rollouts.jsonl").write_text("")
    run = RunFolder(tmp_path, flatten(config), [name], say=lambda line: None)
    run.take_up(problems, [], random_student.prompts)
    train_grpo(run, config, name, random_student.base, problems, replace(random_student, sampler=Ragged()))
    (row,) = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
    assert row["reward"] == pytest.approx(sum(rewards) / 3)
    (advantages,) = group_advantages(torch.tensor([rewards], dtype=torch.float64)).tolist()
    lengths = (12, 2, 5) if equations == "verl" else (1, 1, 1)
    expected = -sum(a * length for a, length in zip(advantages, lengths, strict=True)) / sum(lengths)
    assert row["loss"] == pytest.approx(expected, abs=1e-5) and (abs(expected) > 0.3) == (equations == "verl")
