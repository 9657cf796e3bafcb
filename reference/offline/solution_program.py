"""A worked solution in GSM8K's format, read as a program: what each line calculates, and from which numbers.

One line a step, calculator annotations `<<48/2=24>>`, last line `#### 72`. GSM8K and the offline world are read alike.
Where a line has no annotation that can be read, the equations in its text count.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from reference.interfaces import UnusableAnswer
from reference.offline.arithmetic import (
    Equation,
    Number,
    evaluate,
    find_equations,
    operands,
    single_operations,
    written_numbers,
)
from reference.paper.answers import extract_answer, is_answer_line, normalize_number
from reference.records import Problem

_ANNOTATION = re.compile(r"<<([^<>]*)>>")


class Source(StrEnum):
    """Where an operand comes from. An unprepared one stands nowhere before: 60 minutes, 7 days, half, a dozen."""

    RESULT = "result"
    QUESTION = "question"
    UNPREPARED = "unprepared"


@dataclass(frozen=True)
class Operand:
    """A number in a line's calculation."""

    number: Number
    source: Source


@dataclass(frozen=True)
class Line:
    """One line of a solution: its text without annotations, its equations and the numbers that they use."""

    text: str
    equations: tuple[Equation, ...]
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Program:
    """A solution's lines, and the gold answer as a normalised decimal."""

    lines: tuple[Line, ...]
    gold: str


def read_program(problem: Problem) -> Program:
    """The program of the problem's own solution.

    Raises:
        UnusableAnswer: there is no solution, it has no line before its answer, or its answer is not the gold one.
    """
    lines = [line.strip() for line in problem.solution.splitlines() if line.strip()]
    gold = normalize_number(problem.gold)
    if not lines or not is_answer_line(lines[-1]):
        raise UnusableAnswer(f"the solution of problem {problem.id} does not end in a line '#### <number>'")
    if gold is None or extract_answer(lines[-1]) != gold:
        raise UnusableAnswer(f"the solution of problem {problem.id} ends in {lines[-1]!r}, its gold is {problem.gold!r}")
    if len(lines) == 1:
        raise UnusableAnswer(f"the solution of problem {problem.id} is an answer without a line of reasoning")
    known, asked = set(), written_numbers(problem.question)
    program = []
    for line in lines[:-1]:
        equations = line_equations(line)
        program.append(Line(plain_text(line), equations, _sources(equations, known, asked)))
        known |= results(equations)
    return Program(tuple(program), gold)


def plain_text(line: str) -> str:
    """The line without its annotations, its spaces tidied."""
    return " ".join(_ANNOTATION.sub("", line).split())


def line_equations(line: str) -> tuple[Equation, ...]:
    """The annotations' equations, or those of the text where no annotation can be read."""
    annotated = [equation for content in _ANNOTATION.findall(line) for equation in find_equations(content)]
    return tuple(annotated or find_equations(plain_text(line)))


def results(equations: Iterable[Equation]) -> set[Fraction]:
    """The values that equations give; `47%` may be used as 47 later on."""
    values = set()
    for equation in equations:
        values.add(equation.result)
        if equation.result_text.endswith("%"):
            values.add(equation.result * 100)
    return values


def program_values(program: Program) -> set[Fraction]:
    """Every value on the way to the answer, those inside compound calculations too."""
    values = {Fraction(program.gold)}
    for line in program.lines:
        values |= results(line.equations)
        for equation in line.equations:
            values |= intermediate_values(equation)
    return values


def intermediate_values(equation: Equation) -> set[Fraction]:
    """The values that a compound calculation passes through without writing them."""
    try:
        return {evaluate(operation) for operation in single_operations(equation.expression)[:-1]}
    except ZeroDivisionError:
        return set()


def _sources(equations: Iterable[Equation], known: set[Fraction], asked: set[Fraction]) -> tuple[Operand, ...]:
    """The operands of a line; a number is a result if an earlier line gives it, even if the question has it too."""
    known, found = set(known), []
    for equation in equations:
        for number in operands(equation.expression):
            source = Source.RESULT if number.value in known else Source.UNPREPARED
            if source is Source.UNPREPARED and number.value in asked:
                source = Source.QUESTION
            found.append(Operand(number, source))
        known |= results([equation])
    return tuple(found)
