"""How a benchmark's responses are judged: each kind of answer by its own verifier (ambiguity A48)."""

from collections.abc import Iterable
from dataclasses import dataclass

from reference.engines.math_verifier import MathVerifier
from reference.paper.answers import (
    answer_text,
    extract_answer,
    extract_letter,
    is_correct,
    is_rounded,
)
from reference.records import AnswerKind, Problem


@dataclass(frozen=True)
class Judged:
    """A verdict; without a readable answer it is never correct."""

    correct: bool
    has_answer: bool


class Judge:
    """Judges the responses to these problems."""

    def __init__(self, problems: Iterable[Problem]):
        """Raises ValueError where a verifier that they need is not installed."""
        needs_latex = any(problem.kind is AnswerKind.LATEX for problem in problems)
        self._latex = MathVerifier() if needs_latex else None

    @property
    def num_timeouts(self) -> int:
        """How many LaTeX answers could not be compared in time; they count as wrong."""
        return self._latex.num_timeouts if self._latex else 0

    def judge(self, problem: Problem, response: str) -> Judged:
        """Whether the response answers the problem."""
        if problem.kind is AnswerKind.NUMBER:
            return Judged(is_correct(response, problem.gold), extract_answer(response) is not None)
        if problem.kind is AnswerKind.ROUNDED:
            answer = extract_answer(response)
            return Judged(answer is not None and is_rounded(answer, problem.gold), answer is not None)
        if problem.kind is AnswerKind.LETTER:
            letter = extract_letter(response)
            return Judged(letter == problem.gold, letter is not None)
        text = answer_text(response)
        if text is None:
            return Judged(False, False)
        assert self._latex is not None, "the judge was made for other problems"
        return Judged(text == problem.gold or self._latex.equal(text, problem.gold), True)
