"""The symbolic teacher's diagnosis of a wrong response (Eqs. 16 and 17).

The response's equations are followed in order beside the gold program. The first one that is false, uses a number from
nowhere, or leads nowhere is the first error; if all are in order, the error is in how the response ends.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from reference.interfaces import UnusableAnswer
from reference.offline.arithmetic import (
    Equation,
    Number,
    equation_text,
    evaluate,
    find_equations,
    format_expression,
    format_number,
    holds,
    is_short_decimal,
    operands,
    written_numbers,
)
from reference.offline.solution_program import (
    SENTENCE_END,
    Line,
    Program,
    asked_sentence,
    intermediate_values,
    is_known,
    operand_values,
    program_values,
    results,
)
from reference.offline.symbolic_rewriting import with_operations_split
from reference.paper.answers import ANSWER_MARK, extract_answer, is_correct
from reference.paper.recycling import MAX_EXCERPT
from reference.records import Diagnosis, Problem

MAX_READ = 20_000  # characters; 1024 tokens are about 5,000
MIN_REASONING_LINES, MAX_REASONING_LINES = 3, 4  # with the answer line 4 or 5: 3 to 5 by either way of counting

_VERBS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


class Fault(NamedTuple):
    """What is wrong, and with which part of the response: response[start:end]."""

    start: int
    end: int
    error_type: str
    why_wrong: str
    missing_knowledge: str
    minimal_fix: str


def diagnose_response(problem: Problem, program: Program, response: str) -> Diagnosis:
    """e = T(q, a*, o^-) of Eq. 16 for a response that has some text.

    Raises:
        UnusableAnswer: there is no error to be found; a response whose answer is right may have none.
    """
    response = response.strip()[:MAX_READ]
    equations = find_equations(response)
    done = _first_faulty(problem, program, equations)
    next_line = _next_line(program, response, equations, done)
    if done < len(equations):
        fault = _equation_fault(equations[done], _known(problem, program, equations[:done]), next_line, program)
    else:
        fault = _ending_fault(problem, program, response, equations, next_line)
    return Diagnosis(
        first_error=_excerpt(response, fault.start, fault.end),
        error_type=fault.error_type,
        why_wrong=fault.why_wrong,
        missing_knowledge=fault.missing_knowledge,
        minimal_fix=fault.minimal_fix,
        correct_next_step=_shown(next_line) if next_line else f"#### {program.gold}",
        short_correct_reasoning=short_reasoning(problem, program),
    )


def _first_faulty(problem: Problem, program: Program, equations: Sequence[Equation]) -> int:
    """The index of the first faulty equation, or their number if none is. The gold solution's own are never faulty."""
    gold = {
        equation_text(equation) for line in program.lines for equation in (*line.equations, *find_equations(line.text))
    }
    known = _known(problem, program, [])
    leading = _leading_to(equations, known)
    for at, equation in enumerate(equations):
        in_order = holds(equation) and leading[at] and _unsupported(equation, known) is None
        if not in_order and equation_text(equation) not in gold:
            return at
        known |= results([equation]) | intermediate_values(equation)
    return len(equations)


def _known(problem: Problem, program: Program, equations: Sequence[Equation]) -> set[Fraction]:
    """The numbers that a student may use after some equations: theirs, the question's, and the gold solution's.

    A value of the gold solution that the student did not calculate is a jump, but no error.
    """
    used = {operand.number.value for line in program.lines for operand in line.operands}
    own = results(equations).union(*(intermediate_values(equation) for equation in equations))
    return written_numbers(problem.question) | used | program_values(program) | own


def _leading_to(equations: Sequence[Equation], values: set[Fraction]) -> list[bool]:
    """For each equation, whether it gives one of the values, or something that a later such equation uses.

    The values are the known ones: to find one of them again is a check, and no error. What counts is what an equation
    should give, so that a slip does not make the steps before it look useless.
    """
    leading, useful = [False] * len(equations), set(values)
    for at in range(len(equations) - 1, -1, -1):
        if _should_give(equations[at]) & useful:
            leading[at] = True
            useful |= operand_values(equations[at])
    return leading


def _should_give(equation: Equation) -> set[Fraction]:
    if holds(equation):
        return results([equation])
    try:
        return {evaluate(equation.expression)}
    except ZeroDivisionError:
        return set()


def _unsupported(equation: Equation, known: set[Fraction]) -> Number | None:
    """The first operand that is neither known nor the tens or the ones of a known two-digit number."""
    for number, _ in operands(equation.expression):
        if not is_known(number, known) and not any(_is_part(number.value, value) for value in known):
            return number
    return None


def _is_part(part: Fraction, value: Fraction) -> bool:
    return value.denominator == 1 and 10 < value < 100 and part in (value % 10, value - value % 10)


def _next_line(program: Program, response: str, equations: Sequence[Equation], done: int) -> Line | None:
    """The gold line to go on with after the first `done` equations: the one that the faulty equation tried, else the
    first whose results are not found yet. None if only the answer is left.
    """
    found = results(equations[:done])
    left = [line for line in program.lines if line.equations and not results(line.equations) <= found]
    if not any(line.equations for line in program.lines):
        left = [line for line in program.lines if line.text not in response]
    if done < len(equations):
        tried = format_expression(equations[done].expression)
        for line in left:
            if tried in [format_expression(equation.expression) for equation in line.equations]:
                return line
    return left[0] if left else None


def _equation_fault(equation: Equation, known: set[Fraction], next_line: Line | None, program: Program) -> Fault:
    """The equation is wrong: in itself, in what it uses, or in what it is for."""
    written = format_expression(equation.expression)
    place = equation.start, equation.end
    if not holds(equation):
        why = f"{written} is {_value_text(equation)}, not {equation.result_text}."
        knowledge = f"How to {_VERBS[equation.expression.operator]} numbers."
        return Fault(*place, "calculation error", why, knowledge, f"Calculate {written} again.")
    odd = _unsupported(equation, known)
    if odd is not None:
        why = f"The number {odd.text} is not in the question and is no earlier result."
        knowledge = "Every number comes from the question or from an earlier step."
        fix = f"Find the number that belongs in place of {odd.text}."
        return Fault(*place, "unsupported quantity", why, knowledge, fix)
    aim = equation_text(next_line.equations[-1]) if next_line and next_line.equations else f"the answer {program.gold}"
    why = f"{equation_text(equation)} is true, but the question leads to {aim}."
    knowledge = "How to choose the numbers and the operation that the question tells."
    return Fault(*place, "misread the question", why, knowledge, "Read the question again and choose the operation.")


def _value_text(equation: Equation) -> str:
    try:
        value = evaluate(equation.expression)
    except ZeroDivisionError:
        return "not a number"
    return format_number(value) if is_short_decimal(value) else f"about {format_number(value)}"


def _ending_fault(
    problem: Problem, program: Program, response: str, equations: Sequence[Equation], next_line: Line | None
) -> Fault:
    """All equations are in order: the response has none, answers another number, or stops too early."""
    if is_correct(response, problem.gold):
        raise UnusableAnswer(f"the response to problem {problem.id} has the right answer, and no error was found in it")
    answer = extract_answer(response)
    last = response.rfind(ANSWER_MARK) if answer is not None else len(response) - 1
    calculates = any(line.equations for line in program.lines)
    if calculates and not equations:
        why = f"No calculation leads to the answer {answer}." if answer else "No calculation is written."
        knowledge = "An answer needs calculations that lead to it."
        return Fault(0, 1, "no reasoning", why, knowledge, "Write the first calculation before the answer.")
    if next_line is None and answer is not None:
        why = f"The work leads to {program.gold}, but the answer line says {answer}."
        knowledge = "The answer is the last result of the work."
        return Fault(last, last + 1, "wrong final answer", why, knowledge, "Copy the last result to the answer line.")
    if next_line is None:
        why = f"The work finds {program.gold}, but it does not end in an answer line."
        knowledge = "The last line gives the answer after ####."
        return Fault(last, last + 1, "missing step", why, knowledge, "Write the answer line.")
    missing = equation_text(next_line.equations[-1]) if next_line.equations else next_line.text.rstrip(".")
    why = f"The work ends before this step: {missing}."
    hint = format_expression(next_line.equations[-1].expression) if next_line.equations else "the next fact"
    return Fault(last, last + 1, "missing step", why, "All steps are needed before the answer.", f"Go on with {hint}.")


def _excerpt(response: str, start: int, end: int) -> str:
    """The line or sentence around response[start:end], verbatim, cut so that it still shows that part's end."""
    begins = [match.end() for match in SENTENCE_END.finditer(response) if match.end() <= start]
    ends = [match.start() for match in SENTENCE_END.finditer(response) if match.start() >= end]
    begin, finish = max(begins, default=0), min(ends, default=len(response))
    begin = max(begin, min(end, finish) - MAX_EXCERPT)
    return response[begin : min(finish, begin + MAX_EXCERPT)].strip()


def _shown(line: Line) -> str:
    """The line, with its calculation where the text does not show it."""
    if not line.equations or find_equations(line.text):
        return line.text
    return f"{line.text} {'. '.join(equation_text(equation) for equation in line.equations)}."


def short_reasoning(problem: Problem, program: Program) -> str:
    """c_new of Eq. 17: 3 or 4 lines of reasoning, then `#### gold`.

    Short solutions are split into single operations, then get the question and the conclusion around them; of long
    ones neighbouring lines share a line.
    """
    lines = [_shown(line) for line in program.lines]
    if len(lines) < MIN_REASONING_LINES:
        lines = [sentence for line in lines for sentence in SENTENCE_END.split(with_operations_split(line))]
    if len(lines) < MIN_REASONING_LINES:
        lines.insert(0, asked_sentence(problem.question))
    if len(lines) < MIN_REASONING_LINES:
        lines.append(f"So the answer is {program.gold}.")
    count = min(len(lines), MAX_REASONING_LINES)
    bounds = [len(lines) * k // count for k in range(count + 1)]
    joined = [" ".join(_ended(line) for line in lines[i:j]) for i, j in pairwise(bounds)]
    return "\n".join([*joined, f"#### {program.gold}"])


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
