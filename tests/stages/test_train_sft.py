"""Eq. 21 as it is trained: exact whatever the micro-batches, and nothing lost in silence."""

import json
from dataclasses import replace

import pytest
import torch

from reference.config import Config, ReadingsConfig, SFTConfig, flatten
from reference.engines.artifacts import read_records
from reference.engines.chat import TokenizedExample
from reference.engines.distributed import Process
from reference.engines.learner import Learner
from reference.engines.run_folder import RunFolder
from reference.paper.prompts import Prompts
from reference.records import ExampleKind, Message, SFTExample
from reference.stages.train_sft import sft_step, tokenize, train_sft

CPU = torch.device("cpu")
# (prompt, answer) lengths of eight samples; one answer is a single token
LENGTHS = [(3, 17), (9, 2), (1, 1), (12, 30), (4, 8), (2, 45), (7, 5), (5, 11)]
BUDGETS = {"8 x 1": 1, "a few together": 60, "in between": 110, "1 x 8": 10**9}


def batch():
    draw = torch.Generator().manual_seed(0)
    return [
        TokenizedExample(tuple(torch.randint(3, 768, (prompt + answer,), generator=draw).tolist()), prompt)
        for prompt, answer in LENGTHS
    ]


def learner_of(checkpoint, dtype=torch.float32):
    return Learner(checkpoint, Process(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, max_grad_norm=1e9, dtype=dtype)


def gradient(learner):
    return torch.cat([weight.grad.flatten() for weight in learner.policy.parameters()])


def eq_21_by_loops(learner):
    """Loss and gradient of Eq. 21 over one sequence after the other, unpadded: the mean over samples of each mean."""
    learner.policy.zero_grad()
    total = 0.0
    for example in batch():
        logits_TV = learner.policy.model(input_ids=torch.tensor([example.token_ids])).logits[0]
        loss, num_supervised = 0.0, 0
        for at in range(example.prompt_length, len(example.token_ids)):
            loss = loss - torch.log_softmax(logits_TV[at - 1], dim=-1)[example.token_ids[at]]
            num_supervised += 1
        share = loss / num_supervised / len(LENGTHS)
        share.backward()
        total += share.item()
    return total, gradient(learner)


@pytest.mark.parametrize("max_tokens", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_loss_and_gradient_are_those_of_eq_21_whatever_the_micro_batches(random_checkpoint, max_tokens, dtype, bound):
    expected_loss, expected = eq_21_by_loops(learner_of(random_checkpoint(), dtype))
    learner = learner_of(random_checkpoint(), dtype)
    metrics = sft_step(learner, batch(), max_tokens)
    largest = expected.abs().max()
    torch.testing.assert_close(gradient(learner) / largest, expected / largest, rtol=0, atol=bound)
    assert metrics["loss"] == pytest.approx(expected_loss, rel=max(bound, 1e-12))
    assert metrics["grad_norm"] == pytest.approx(expected.norm().item(), rel=max(bound, 1e-12))
    assert metrics["supervised_tokens"] == sum(answer for _, answer in LENGTHS)


def test_the_gradient_is_not_the_token_mean_of_the_frameworks(random_checkpoint):
    """With answers of 1 to 45 tokens the two differ by far more than rounding."""
    learner = learner_of(random_checkpoint(), torch.float64)
    _, expected = eq_21_by_loops(learner)
    learner.policy.zero_grad()
    tokens = sum(answer for _, answer in LENGTHS)
    for example in batch():
        logits_TV = learner.policy.model(input_ids=torch.tensor([example.token_ids])).logits[0]
        logp_TV = torch.log_softmax(logits_TV, dim=-1)
        ids_T, at_T = torch.tensor(example.token_ids), torch.arange(example.prompt_length, len(example.token_ids))
        (-logp_TV[at_T - 1, ids_T[at_T]].sum() / tokens).backward()
    assert (gradient(learner) - expected).norm() > 0.1 * expected.norm()


def test_the_first_token_of_an_answer_is_learnt_and_the_prompt_is_not(random_checkpoint):
    """[prompt][r1]: the loss is -log p(r1 | prompt), neither a position too early nor too late."""
    learner = learner_of(random_checkpoint(), torch.float64)
    with torch.no_grad():
        logits_V = learner.policy.model(input_ids=torch.tensor([[11, 12, 13]])).logits[0, -1]
        expected = -torch.log_softmax(logits_V, dim=-1)[14].item()
    assert sft_step(learner, [TokenizedExample((11, 12, 13, 14), 3)], 100)["loss"] == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_follows_the_schedule_of_the_step(random_checkpoint):
    learner = learner_of(random_checkpoint())
    sft_step(learner, batch(), 1000, lr_scale=0.25)
    assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(0.25e-4)


def example_of(question, answer, kind=ExampleKind.MEDIUM):
    return SFTExample(question, kind, (Message("user", question), Message("assistant", answer)))


def test_what_truncation_does_is_counted(chat):
    """Right truncation (Table 5) first takes the answer line, then the whole answer when the prompt is too long."""
    short, cut = example_of("one", "2\n#### 2"), example_of("two", "step " * 30 + "\n#### 2")
    local, hopeless = example_of("three", "word " * 40), example_of("many " * 60, "2\n#### 2")
    limit = len(chat.example_ids(short.messages).token_ids) + 5
    found = tokenize([short, cut, local, hopeless], chat, limit)
    assert (found.num_truncated, found.num_answers_lost, found.num_empty) == (3, 2, 1)
    assert found.examples[0] == chat.example_ids(short.messages)
    whole = chat.example_ids(cut.messages)
    assert found.examples[1] == TokenizedExample(whole.token_ids[:limit], whole.prompt_length)
    assert [len(example.token_ids) for example in found.examples[1:]] == [limit, limit]
    assert all(len(example.token_ids) > example.prompt_length for example in found.examples)


def test_a_sample_of_exactly_the_limit_is_not_truncated(chat):
    example = example_of("one", "2\n#### 2")
    length = len(chat.example_ids(example.messages).token_ids)
    assert tokenize([example], chat, length).num_truncated == 0
    below = tokenize([example], chat, length - 1)
    assert (below.num_truncated, below.num_empty) == (1, 0)


NAME = "iter1/1_sft/1_medium"
SETTINGS = Config(sft=SFTConfig(batch_size=2, lr=1e-3, save_every=2, epochs=2))


def run_folder(path, settings=SETTINGS):
    run = RunFolder(path, flatten(settings), [NAME], say=lambda line: None)
    run.take_up([], [], Prompts())
    return run


def receipt(path):
    return json.loads((path / NAME / "receipt.json").read_text())


EXAMPLES = [example_of(f"What is {n} + 1?", f"{n} + 1 = {n + 1}\n#### {n + 1}") for n in range(5)]


def test_a_phase_writes_its_examples_its_metrics_and_a_checkpoint(random_student, tmp_path):
    start = random_student.base
    checkpoint = train_sft(run_folder(tmp_path), SETTINGS, NAME, start, EXAMPLES, random_student)
    assert checkpoint == tmp_path / NAME / "checkpoint" and (checkpoint / "model.safetensors").exists()
    assert read_records(tmp_path / NAME / "examples.jsonl", SFTExample) == EXAMPLES
    counts = receipt(tmp_path)["counts"]
    assert (counts["examples"], counts["truncated"], counts["answers lost"], counts["left empty"]) == (5, 0, 0, 0)
    assert counts["steps"] == 2 * 3  # two epochs of 2 + 2 + 1
    read, own = receipt(tmp_path)["settings"], ("seed", "equations", "readings.sft_mean")
    assert {name for name in read if not name.startswith(("sft.", "model."))} == set(own)
    assert read["sft.lr"] == 1e-3 and "sft.max_tokens_per_batch" in read
    assert sorted(path.name for path in (tmp_path / NAME).iterdir()) == [
        "checkpoint",
        "examples.jsonl",
        "metrics.jsonl",
        "receipt.json",
    ]


def test_a_phase_makes_the_next_one_better_at_its_examples(random_student, tmp_path):
    settings = replace(SETTINGS, sft=replace(SETTINGS.sft, epochs=20))
    train_sft(run_folder(tmp_path), settings, NAME, random_student.base, EXAMPLES, random_student)
    rows = [json.loads(line) for line in (tmp_path / NAME / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["lr"] == pytest.approx(1e-3 * 0.1)  # the minimum of the cosine


def test_the_phase_has_the_mean_of_its_reading(random_student, tmp_path):
    """Ambiguity A31: responses of different lengths, so that the two means differ."""
    ragged = [example_of(f"{n}?", f"{'one ' * n}\n#### {n}") for n in (1, 40)]
    for mean in ("responses", "tokens"):
        settings = replace(SETTINGS, readings=ReadingsConfig(sft_mean=mean))
        train_sft(run_folder(tmp_path / mean, settings), settings, NAME, random_student.base, ragged, random_student)
        row = json.loads((tmp_path / mean / NAME / "metrics.jsonl").read_text().splitlines()[0])
        batch = tokenize(ragged, random_student.chat, 999).examples
        losses = {}
        for other in ("responses", "tokens"):
            losses[other] = sft_step(learner_of(random_student.base), batch, 10**9, mean=other)["loss"]
        assert row["loss"] == pytest.approx(losses[mean], rel=1e-5)
        assert abs(losses["responses"] - losses["tokens"]) > 1e-3


def test_a_done_phase_is_not_trained_again(random_student, tmp_path):
    first = train_sft(run_folder(tmp_path), SETTINGS, NAME, random_student.base, EXAMPLES, random_student)
    before = (first / "model.safetensors").stat().st_mtime_ns
    (first.parent / "state.pt").write_text("left by a kill behind the receipt")
    assert train_sft(run_folder(tmp_path), SETTINGS, NAME, random_student.base, EXAMPLES, random_student) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before
    assert not (first.parent / "state.pt").exists()


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_an_interrupted_phase_ends_with_the_same_bytes(random_student, tmp_path, monkeypatch, stop_after):
    whole = train_sft(run_folder(tmp_path / "a"), SETTINGS, NAME, random_student.base, EXAMPLES, random_student)
    done = 0
    original = Learner.step

    def interrupted(self, *arguments):
        nonlocal done
        if done == stop_after:
            raise KeyboardInterrupt
        done += 1
        return original(self, *arguments)

    monkeypatch.setattr(Learner, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_sft(run_folder(tmp_path / "b"), SETTINGS, NAME, random_student.base, EXAMPLES, random_student)
    monkeypatch.setattr(Learner, "step", original)
    again = train_sft(run_folder(tmp_path / "b"), SETTINGS, NAME, random_student.base, EXAMPLES, random_student)
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    for name in ("metrics.jsonl", "examples.jsonl"):
        assert (tmp_path / "b" / NAME / name).read_bytes() == (tmp_path / "a" / NAME / name).read_bytes()


@pytest.mark.parametrize("examples", [[], [example_of("many " * 300, "2\n#### 2")]], ids=["none", "none that fits"])
def test_without_anything_to_learn_the_model_stays_as_it_was(random_student, tmp_path, examples):
    settings = replace(SETTINGS, sft=replace(SETTINGS.sft, max_length=100))
    for _ in range(2):  # also when the stage is kept
        end = train_sft(run_folder(tmp_path), settings, NAME, random_student.base, examples, random_student)
        assert end == random_student.base
    assert receipt(tmp_path)["counts"]["steps"] == 0
