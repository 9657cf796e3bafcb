"""What the tiny base model has read: solved problems in several styles, with slips.

It stands for the instruct models of the paper, which know how a teacher writes and make mistakes. The shares and the
rate of slips were fixed before any run was measured (docs/offline_world.md).
"""

import re
from dataclasses import dataclass
from random import Random

from reference.offline.arithmetic import evaluate, parse_expression
from reference.offline.solution_program import read_program
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.offline.word_problems import generate
from reference.paper.bridge import split_steps
from reference.paper.prompts import Prompts, student_messages
from reference.records import Message, Problem

SLIP_RATE = 0.12  # of the calculations
STYLES = ("trace", "localized", "expanded", "lines")
STYLE_SHARES = (0.65, 0.15, 0.10, 0.10)

_EQUATION = re.compile(r"(?<![0-9.])([0-9]+(?: [-+*/] [0-9]+)+) = ([0-9]+)(?![0-9])")
_NUMBER = re.compile(r"(?<!Step )(?<![0-9])[0-9]+(?![0-9])")
_ANNOTATED = re.compile(r"<<([^=]*)=")
_OPERATOR = re.compile(r"[-+*/]")
_SLIPS = (-10, -2, -1, 1, 2, 10)


@dataclass(frozen=True)
class Lesson:
    """One solved problem as a chat, and how many operations it takes."""

    chat: tuple[Message, ...]
    num_operations: int


def pretraining_lessons(count: int, seed: int) -> list[Lesson]:
    """`count` problems of the split `pretrain`, each with one solution."""
    teacher, prompts = SymbolicTeacher(seed), Prompts()
    lessons = []
    for problem in generate("pretrain", count, seed):
        rng = Random(f"{seed}:corpus:{problem.id}")
        solution = solution_in(rng.choices(STYLES, STYLE_SHARES)[0], problem, teacher)
        answer = Message("assistant", with_slips(solution, rng, SLIP_RATE))
        lessons.append(Lesson((*student_messages(prompts, problem), answer), num_operations(problem)))
    return lessons


def num_operations(problem: Problem) -> int:
    """How many single operations the solution's annotations hold."""
    return sum(len(_OPERATOR.findall(expression)) for expression in _ANNOTATED.findall(problem.solution))


def solution_in(style: str, problem: Problem, teacher: SymbolicTeacher) -> str:
    """A correct solution in one of the `STYLES`."""
    if style == "lines":
        program = read_program(problem)
        return "\n".join([*(line.text for line in program.lines), f"#### {program.gold}"])
    steps = split_steps(teacher.solve(problem))
    if style == "trace":
        return "".join(steps)
    rewrite = teacher.localize if style == "localized" else teacher.expand
    contexts = ["".join(steps[:index]) for index in range(len(steps))]
    return "\n\n".join(rewrite(problem, context, step) for context, step in zip(contexts, steps, strict=True))


def with_slips(solution: str, rng: Random, rate: float) -> str:
    """Each calculation goes wrong with probability `rate`; what follows calculates on with the wrong number."""
    changed: dict[str, str] = {}
    pieces, at = [], 0
    for equation in _EQUATION.finditer(solution):
        pieces.append(_renumber(solution[at : equation.start()], changed))
        expression = _renumber(equation[1], changed)
        value = _value(expression)
        if rng.random() < rate:
            value = max(0, value + rng.choice(_SLIPS))
        changed[equation[2]] = str(value)
        pieces.append(f"{expression} = {value}")
        at = equation.end()
    return "".join(pieces) + _renumber(solution[at:], changed)


def _renumber(text: str, changed: dict[str, str]) -> str:
    return _NUMBER.sub(lambda match: changed.get(match[0], match[0]), text)


def _value(expression: str) -> int:
    """As a pupil writes it: a division that does not come out even is cut off, one by zero gives zero."""
    try:
        return int(evaluate(parse_expression(expression)))
    except ZeroDivisionError:
        return 0
