"""The only sockets: what the method needs from the outside, whoever provides it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from reference.records import Completion, Problem

Item = TypeVar("Item")


class UnusableAnswer(ValueError):
    """A teacher's answer that the method cannot use. The item is left out and counted, never replaced by a guess."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. Temperature 0 is greedy decoding; `top_p` then has no effect.

    Defaults: Table 6 (temperature 0.7, top-p 0.9, response length 1024).
    """

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 1024
    with_logprobs: bool = False


@dataclass(frozen=True)
class Share:
    """The part of a stage's work that falls to this process: every `count`-th item, from `index` on.

    Processes that work as one (the tensor-parallel group of an engine) have the same share; the first of them `writes`.
    """

    index: int = 0
    count: int = 1
    writes: bool = True

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Which part an item is in follows from its place in the list alone."""
        return items[self.index :: self.count]


class Sampler(Protocol):
    """Draws responses o_i ~ pi_theta(. | q) (Eqs. 1 and 22)."""

    share: Share

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """One response for each seed of each prompt (token ids in, token ids out).

        A response depends on its prompt, its seed and the weights alone, up to floating-point rounding that may
        change with the batch; equal calls give equal responses. `sampling.with_logprobs` adds log pi_theta of each
        token at temperature 1, of the whole vocabulary, as the sampler's own forward has it.
        """

    def load(self, checkpoint: Path) -> None:
        """Take the weights of a checkpoint directory."""

    def sync(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over the trainer's weights, named as in the checkpoint."""

    def close(self) -> None:
        """Give back what it holds; it samples no more."""


class Teacher(Protocol):
    """The stronger model T. Each verb is one prompt of `paper.prompts`; scores are one of 0, 0.25, 0.5, 0.75, 1.

    Every verb may raise `UnusableAnswer` with the reason why it has nothing usable to say about an item. `concurrency`
    is the number of threads that may ask at a time. `context` is P_i: for `jumpiness` that of Eq. 6, for `expand` and
    `localize` that of Algorithm 1's line 9, the processed steps (ambiguity A14). `later` are the steps after the one to
    be rewritten: it must not say what they say.
    """

    concurrency: int

    def solve(self, problem: Problem, attempt: int = 0) -> str:
        """A reasoning trace C that ends in `#### a*` (Eq. 4). Another `attempt` may give another trace."""

    def importance(self, problem: Problem, trace: str, trace_without_step: str, step: str) -> float:
        """J_imp(q, a*, C, C without s_i, s_i) (Eq. 5)."""

    def jumpiness(self, problem: Problem, context: str, step: str) -> float:
        """J_jump(q, P_i, s_i) (Eq. 7)."""

    def expand(self, problem: Problem, context: str, step: str, later: Sequence[str]) -> str:
        """The step with its missing intermediate reasoning spelled out."""

    def compress(self, step: str) -> str:
        """The step's core meaning, shorter."""

    def localize(self, problem: Problem, context: str, step: str, later: Sequence[str]) -> str:
        """The step in a form that a small model learns more easily."""

    def diagnose(self, problem: Problem, response: str) -> str:
        """The seven-field diagnosis of a wrong response, as JSON text (Eqs. 16 and 17)."""


class StepScorer(Protocol):
    """D_i under the current student (Eq. 8)."""

    def step_nlls(self, problem: Problem, steps: Sequence[str]) -> list[float]:
        """Each step's mean negative log-likelihood, teacher-forced after q and the steps before it, in nats per token.

        `"".join(steps)` is the text as the assistant would write it, blank lines included.
        """
