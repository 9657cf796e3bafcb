"""A worked solution in GSM8K's format, read as a program: what each line calculates, and from which numbers.

One line a step, calculator annotations `<<48/2=24>>`, last line `#### 72`. GSM8K and the offline world are read alike.
Where a line has no annotation that can be read, the equations in its text count.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

from reference.interfaces import UnusableAnswer
from reference.offline.arithmetic import (
    Equation,
    Number,
    equation_text,
    evaluate,
    find_equations,
    holds,
    operands,
    single_operations,
    written_numbers,
)
from reference.paper.answers import extract_answer, is_answer_line, normalize_number
from reference.records import Problem

STEP_HEAD = re.compile(r"^\s*Step [0-9]+: *")
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)\s+|\n\s*")
_ANNOTATION = re.compile(r"<<([^<>]*)>>")

# Numbers that a question only implies: the value, the operator that works on it ("" for any), the beginnings of the
# words that imply it, and what they mean.
_MEANINGS = (
    ("2", "/", "half|halv", "Half means dividing by 2."),
    ("2", "*", "twice|doubl", "Twice means times 2."),
    ("3", "/", "third", "A third means dividing by 3."),
    ("3", "*", "tripl|thrice", "Triple means times 3."),
    ("4", "/", "quarter|fourth", "A quarter means dividing by 4."),
    ("5", "/", "fifth", "A fifth means dividing by 5."),
    ("6", "/", "sixth", "A sixth means dividing by 6."),
    ("7", "/", "seventh", "A seventh means dividing by 7."),
    ("8", "/", "eighth", "An eighth means dividing by 8."),
    ("9", "/", "ninth", "A ninth means dividing by 9."),
    ("10", "/", "tenth", "A tenth means dividing by 10."),
    ("0.5", "", "half|halv", "Half is 0.5."),
    ("0.25", "", "quarter", "A quarter is 0.25."),
    ("1", "", "half|halv|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth|/|%", "The whole is 1."),
    ("12", "", "dozen", "A dozen is 12."),
    ("12", "", "year|month|annual", "A year has 12 months."),
    ("12", "", "inch|feet|foot", "A foot has 12 inches."),
    ("7", "", "week|day|daily", "A week has 7 days."),
    ("24", "", "day|hour", "A day has 24 hours."),
    ("60", "", "hour", "An hour has 60 minutes."),
    ("60", "", "minute|second", "A minute has 60 seconds."),
    ("52", "", "year|week|annual", "A year has 52 weeks."),
    ("365", "", "year|day|daily", "A year has 365 days."),
    ("30", "", "month", "A month has 30 days."),
    ("4", "", "month", "A month has 4 weeks."),
    ("100", "", "%|percent", "Percent means out of 100."),
    ("0.01", "", "%|percent", "One percent is 0.01."),
    ("100", "", "dollar|cent|\\$", "A dollar has 100 cents."),
    ("100", "", "meter", "A meter has 100 centimeters."),
    ("1000", "", "kilo|gram|liter|km|kg", "Kilo means times 1000."),
    ("10", "", "decade", "A decade has 10 years."),
    ("3", "", "yard", "A yard has 3 feet."),
    ("16", "", "pound|ounce", "A pound has 16 ounces."),
)


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


@lru_cache(maxsize=256)  # every verb asks for it again, at every step
def read_program(problem: Problem) -> Program:
    """The program of the problem's own solution.

    Raises:
        UnusableAnswer: there is no solution, it has no line before its answer, or its answer is not the gold one.
    """
    lines = [line.strip() for line in problem.solution.split("\n") if line.strip()]
    gold = normalize_number(problem.gold)
    if not lines or not is_answer_line(lines[-1]):
        raise UnusableAnswer(f"the solution of problem {problem.id} does not end in a line '#### <number>'")
    if gold is None or extract_answer(lines[-1]) != gold:
        raise UnusableAnswer(f"the solution of problem {problem.id} ends in {lines[-1]!r}, not in {problem.gold!r}")
    if len(lines) == 1:
        raise UnusableAnswer(f"the solution of problem {problem.id} is an answer without a line of reasoning")
    asked = written_numbers(problem.question)
    found: set[Fraction] = set()
    program = []
    for line in lines[:-1]:
        equations = _line_equations(line)
        program.append(Line(_plain_text(line), equations, _operands(equations, found, asked)))
        found |= results(equations)
    return Program(tuple(program), gold)


def _plain_text(line: str) -> str:
    """The line without its annotations, its spaces tidied."""
    return " ".join(_ANNOTATION.sub("", line).split())


def _line_equations(line: str) -> tuple[Equation, ...]:
    """The annotations' equations, or those of the text where no annotation can be read."""
    annotated = [equation for content in _ANNOTATION.findall(line) for equation in find_equations(content)]
    return tuple(annotated or find_equations(_plain_text(line)))


def _operands(equations: Iterable[Equation], found: set[Fraction], asked: set[Fraction]) -> tuple[Operand, ...]:
    """The operands of a line. A number that was calculated counts as a result even if the question has it too."""
    found, distinguished = set(found), []
    for equation in equations:
        for number, _ in operands(equation.expression):
            source = Source.QUESTION if is_known(number, asked) else Source.UNPREPARED
            distinguished.append(Operand(number, Source.RESULT if is_known(number, found) else source))
        found |= results([equation])
    return tuple(distinguished)


def is_known(number: Number, known: set[Fraction]) -> bool:
    """Whether a number is among the known values; 20% is known where 20 is."""
    return number.value in known or (number.text.endswith("%") and number.value * 100 in known)


def results(equations: Iterable[Equation]) -> set[Fraction]:
    """The values that equations give; what was found as 47% may be used as 47."""
    values = set()
    for equation in equations:
        values.add(equation.result)
        if equation.result_text.endswith("%"):
            values.add(equation.result * 100)
    return values


def operand_values(equation: Equation) -> set[Fraction]:
    """The values that an equation starts from; what it uses as 47% may have been found as 47."""
    values = set()
    for number, _ in operands(equation.expression):
        values.add(number.value)
        if number.text.endswith("%"):
            values.add(number.value * 100)
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
    """The values that a compound calculation passes through, as far as they can be written exactly."""
    try:
        return {evaluate(operation) for operation in single_operations(equation.expression)[:-1]}
    except ZeroDivisionError:
        return set()


def calculations(program: Program, text: str) -> list[Equation]:
    """The equations of a text, line by line; for a gold line that does not show its calculation, the program's."""
    found: list[Equation] = []
    for line in text.split("\n"):
        found += find_equations(line) or hidden_equations(program, line)
    return found


def hidden_equations(program: Program, line: str) -> list[Equation]:
    """What a gold line in a trace calculates, whether or not its text shows it; nothing for any other line."""
    said = STEP_HEAD.sub("", line).strip()
    return [equation for gold_line in program.lines if gold_line.text == said for equation in gold_line.equations]


def origin(problem: Problem, program: Program, number: Number, operator: str) -> str:
    """A sentence on where an operand comes from: the question, what a word in it means, or an earlier result."""
    if is_known(number, written_numbers(problem.question)):
        return f"The {number.text} is in the question."
    for value, works, words, meaning in _MEANINGS:
        fits = Fraction(value) == number.value and works in ("", operator)
        if fits and re.search(rf"(?<![a-z])(?:{words})", problem.question.lower()):
            return meaning
    for equation in (equation for line in program.lines for equation in line.equations):
        if number.value in operand_values(equation):
            break
        if number.value in results([equation]) and holds(equation):
            return f"The {number.text} comes from {equation_text(equation)}."
    return f"The question does not give {number.text}."


def asked_sentence(question: str) -> str:
    """The last sentence that ends in a question mark, else the last sentence."""
    sentences = [" ".join(sentence.split()) for sentence in SENTENCE_END.split(question.strip())]
    asking = [sentence for sentence in sentences if sentence.endswith("?")]
    return (asking or sentences)[-1]


def distinct_operands(equations: Sequence[Equation]) -> list[tuple[Number, str]]:
    """The operands that the equations do not calculate themselves, each once, with the operator that works on it.

    In `8 * 2 + 4 * 5 = 16 + 20 = 36` the 16 and the 20 are calculated.
    """
    distinct: dict[Fraction, tuple[Number, str]] = {}
    given: set[Fraction] = set()
    for equation in equations:
        for number, operator in operands(equation.expression):
            if not is_known(number, given):
                distinct.setdefault(number.value, (number, operator))
        given |= results([equation]) | intermediate_values(equation)
    return list(distinct.values())


def unprepared(problem: Problem, context: str, equations: Sequence[Equation]) -> list[tuple[Number, str]]:
    """Those of `distinct_operands` that neither the question nor the context writes."""
    said = "\n".join(STEP_HEAD.sub("", line) for line in context.split("\n"))
    known = written_numbers(problem.question) | written_numbers(said)
    return [(number, operator) for number, operator in distinct_operands(equations) if not is_known(number, known)]
