"""The student as the stages see it: how it is asked, sampled and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock

import torch

from reference.engines.batches import pad_right, response_mask
from reference.engines.chat import Chat, TokenizedExample
from reference.engines.distributed import Process
from reference.engines.policy import Policy
from reference.interfaces import Sampler
from reference.paper.bridge import mean_nll
from reference.paper.prompts import Prompts, student_messages
from reference.records import Problem


@dataclass(frozen=True)
class Student:
    """The base checkpoint and everything that stays the same while its weights change."""

    base: Path
    chat: Chat
    prompts: Prompts
    sampler: Sampler
    process: Process

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.process.device

    def prompt_ids(self, problem: Problem) -> list[int]:
        """The question as the student reads it."""
        return self.chat.prompt_ids(student_messages(self.prompts, problem))


class PolicyStepScorer:
    """Implements `interfaces.StepScorer` with the student itself."""

    def __init__(self, policy: Policy, student: Student):
        self.policy = policy
        self.student = student
        self._one_at_a_time = Lock()  # several threads ask while the teacher answers others

    def step_nlls(self, problem: Problem, steps: Sequence[str]) -> list[float]:
        """Eq. (8) for each step, in nats per token, from one forward. Raises ValueError for a step without tokens."""
        return [mean_nll(logprobs) for logprobs in self.step_logprobs(problem, steps)]

    def step_logprobs(self, problem: Problem, steps: Sequence[str]) -> list[list[float]]:
        """log pi_theta of each step's tokens: D_i is the negative mean of a list, tau_D that of all lists together."""
        messages = student_messages(self.student.prompts, problem)
        token_ids, starts = self.student.chat.trace_ids(messages, steps)
        logprobs = self.token_logprobs(TokenizedExample(token_ids, starts[0]))
        bounds = [start - starts[0] for start in [*starts, len(token_ids)]]
        return [logprobs[begin:end] for begin, end in pairwise(bounds)]

    @torch.no_grad()
    def token_logprobs(self, example: TokenizedExample) -> list[float]:
        """log pi_theta of each supervised token, in order."""
        if example.prompt_length == len(example.token_ids):
            return []
        ids_BT = pad_right([example.token_ids], self.student.device)
        mask_BT = response_mask([example.prompt_length], [len(example.token_ids)], self.student.device)
        with self._one_at_a_time:
            return self.policy(ids_BT, mask_BT).logprobs[mask_BT].tolist()
