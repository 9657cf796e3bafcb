"""Eq. 8 with the student itself: the steps' losses are the trace's loss, cut up."""

import pytest
import torch

from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.learner import frozen_policy
from reference.engines.student import PolicyStepScorer, Student
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.offline.word_problems import generate
from reference.paper.bridge import split_steps
from reference.paper.prompts import Prompts, student_messages


@pytest.fixture(scope="module")
def scorer():
    device = torch.device("cpu")
    student = Student(BASE_CHECKPOINT, Chat.from_checkpoint(BASE_CHECKPOINT), Prompts(), None, Process(device))
    return PolicyStepScorer(frozen_policy(BASE_CHECKPOINT, device), student)


@pytest.mark.parametrize("problem", generate("train", 8, seed=3), ids=lambda problem: problem.id)
def test_the_losses_of_the_steps_add_up_to_the_loss_of_the_trace(scorer, problem):
    """The chain rule. It fails when a step is tokenised apart from the blank lines it stands in."""
    chat, messages = scorer.student.chat, student_messages(scorer.student.prompts, problem)
    trace = SymbolicTeacher().solve(problem)
    steps = split_steps(trace)
    difficulties = scorer.step_nlls(problem, steps)
    total, num_tokens = 0.0, 0
    for index, step in enumerate(steps):
        example = chat.step_ids(messages, "".join(steps[:index]), step)
        length = len(example.token_ids) - example.prompt_length
        alone = scorer.step_nlls(problem, ["".join(steps[:index]), step])[1] if index else difficulties[0]
        assert difficulties[index] == pytest.approx(alone, rel=1e-4, abs=1e-6)
        total += length * difficulties[index]
        num_tokens += length
    whole = scorer.token_logprobs(chat.step_ids(messages, "", trace))
    assert num_tokens == len(whole)
    assert total == pytest.approx(-sum(whole), rel=1e-4)


def test_a_step_of_the_teacher_is_likelier_than_the_same_step_with_its_words_turned_round(scorer):
    problem = generate("train", 1, seed=3)[0]
    steps = split_steps(SymbolicTeacher().solve(problem))
    turned = " ".join(reversed(steps[1].split())) + "\n\n"
    assert scorer.step_nlls(problem, steps[:2])[1] < scorer.step_nlls(problem, [steps[0], turned])[1]


def test_a_step_without_tokens_has_no_difficulty(scorer):
    with pytest.raises(ValueError, match="at least one token"):
        scorer.step_nlls(generate("train", 1, seed=3)[0], ["Step 1: 1 + 1 = 2.", ""])
