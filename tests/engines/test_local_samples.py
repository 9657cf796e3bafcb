"""The loss of a local sample (Eq. 21) is Eq. 8 of its step after its context, for every tokenizer."""

import math

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from reference.engines.batches import pad_right, response_mask
from reference.engines.distributed import Process
from reference.engines.learner import frozen_policy, save_checkpoint
from reference.engines.student import PolicyStepScorer, Student
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.offline.word_problems import generate
from reference.paper.bridge import bridge_examples, bridge_trace, split_steps
from reference.paper.prompts import Prompts, student_messages
from reference.paper.sft import sft_loss
from reference.records import Action, Thresholds
from reference.stages.train_sft import tokenize

PROBLEMS = generate("train", 6, seed=5)
EVERY_STEP = Thresholds(importance=-1.0, jumpiness=1.0, difficulty=-1.0)  # each is important and difficult: Localize


@pytest.fixture(params=["chatml", "qwen", "phi", "llama", "llama_32", "chat"])  # `chat`: the offline world's
def scorer(request, tmp_path):
    """A student of random weights with this tokenizer."""
    chat = request.getfixturevalue(request.param)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(chat.tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )
    model = Qwen2ForCausalLM(config)
    save_checkpoint(model, chat, tmp_path / "checkpoint", dict(model.named_parameters()))
    device = torch.device("cpu")
    student = Student(tmp_path / "checkpoint", chat, Prompts(), None, Process(device))
    return PolicyStepScorer(frozen_policy(student.base, device), student)


def logprobs_of(scorer, example):
    """log pi of each supervised token, from the model's own table of logits."""
    ids_BT = torch.tensor([example.token_ids])
    with torch.no_grad():
        logits_TV = scorer.policy.model(input_ids=ids_BT).logits[0].double()
    logprobs_TV = logits_TV.log_softmax(-1)
    return [logprobs_TV[at - 1, example.token_ids[at]].item() for at in range(example.prompt_length, ids_BT.shape[1])]


def loss_of(scorer, example):
    """Eq. 21 as the SFT stage has it."""
    ids_BT = pad_right([example.token_ids], scorer.student.device)
    mask_BT = response_mask([example.prompt_length], [len(example.token_ids)], scorer.student.device)
    with torch.no_grad():
        return sft_loss(scorer.policy(ids_BT, mask_BT).logprobs, mask_BT).item()


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.id)
def test_before_training_the_loss_of_a_local_sample_is_the_difficulty_of_its_step(scorer, problem):
    bridged = bridge_trace(problem, SymbolicTeacher().solve(problem), SymbolicTeacher(), scorer, EVERY_STEP)
    assert {step.action for step in bridged.steps} == {Action.LOCALIZE}
    processed = [step.rewritten for step in bridged.steps]
    _, *samples = bridge_examples(problem, bridged, scorer.student.prompts)
    assert [sample.ends_turn for sample in samples] == [False] * (len(samples) - 1) + [True]
    ids = tokenize(samples, scorer.student.chat, 10**6).examples
    for index, (sample, tokens) in enumerate(zip(samples, ids, strict=True)):
        difficulty = scorer.step_nlls(problem, processed[: index + 1])[-1]
        oracle = logprobs_of(scorer, tokens)
        if sample.ends_turn:
            assert tokens.token_ids[-1] in scorer.student.chat.end_ids
            assert loss_of(scorer, tokens) == pytest.approx(-sum(oracle) / len(oracle), rel=1e-5)
            step_ids, _ = scorer.student.chat.trace_ids(sample.messages[:-1], [sample.messages[-1].content])
            del oracle[len(step_ids) - tokens.prompt_length :]  # Eq. 8 does not score the end of the turn
        else:
            assert loss_of(scorer, tokens) == pytest.approx(difficulty, rel=1e-5)
        assert -math.fsum(oracle) / len(oracle) == pytest.approx(difficulty, rel=1e-5)


def test_as_a_turn_of_its_own_a_sample_trains_another_probability(scorer):
    """The other reading of A20: that is why it is not the default."""
    problem = PROBLEMS[0]
    bridged = bridge_trace(problem, SymbolicTeacher().solve(problem), SymbolicTeacher(), scorer, EVERY_STEP)
    difficulty = scorer.step_nlls(problem, [step.rewritten for step in bridged.steps])[1]
    for layout, equal in (("continuation", True), ("own_turn", False)):
        sample = bridge_examples(problem, bridged, scorer.student.prompts, layout)[2]
        (tokens,) = tokenize([sample], scorer.student.chat, 10**6).examples
        assert (abs(loss_of(scorer, tokens) - difficulty) < 1e-4) == equal


def test_the_token_weighted_mean_of_the_difficulties_is_the_loss_of_the_trace(scorer):
    """So that tau_D, the mean over all tokens, is the mean of what it is compared with (ambiguity A16)."""
    for problem in PROBLEMS:
        steps = split_steps(SymbolicTeacher().solve(problem))
        token_ids, starts = scorer.student.chat.trace_ids(student_messages(scorer.student.prompts, problem), steps)
        lengths = [end - begin for begin, end in zip(starts, [*starts[1:], len(token_ids)], strict=True)]
        difficulties = scorer.step_nlls(problem, steps)
        total = sum(length * difficulty for length, difficulty in zip(lengths, difficulties, strict=True))
        whole = scorer.token_logprobs(
            scorer.student.chat.step_ids(student_messages(scorer.student.prompts, problem), "", "".join(steps))
        )
        assert total / sum(lengths) == pytest.approx(-sum(whole) / len(whole), rel=1e-5)
