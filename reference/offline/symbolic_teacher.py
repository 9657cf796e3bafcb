"""A teacher without a language model: it reads a problem's worked solution as a program and answers from that.

It stands in for the strong LLM of Sections 3.2 and 3.3 wherever a solution in GSM8K's format is at hand. Its two judges
follow fixed rules where the paper's follow a prompt (Appendix D.1); its texts are short, because a tiny model has to
learn to write them. The same arguments and seed give the same answer in every process.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from random import Random

from reference.interfaces import UnusableAnswer
from reference.offline.arithmetic import (
    Equation,
    Number,
    Operation,
    evaluate,
    find_equations,
    format_expression,
    format_number,
    gives_one_number,
    num_operations,
    written_numbers,
)
from reference.offline.solution_program import (
    STEP_HEAD,
    Program,
    asked_sentence,
    calculations,
    hidden_equations,
    intermediate_values,
    operand_values,
    read_program,
    results,
    unprepared,
)
from reference.offline.symbolic_diagnosis import diagnose_response
from reference.offline.symbolic_rewriting import (
    CHECK_CUE,
    compress_step,
    expand_step,
    localize_step,
)
from reference.paper.answers import is_answer_line
from reference.records import Problem

SHARE_WITH_CHECK = 2 / 3
SHARE_OF_CHECKS_THAT_VERIFY = 0.7
MAX_POINTS = 4  # of jumpiness: each is a quarter

_ASKED = ("We want to know: {}", "The question is: {}", "We have to find out: {}")
_INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


class SymbolicTeacher:
    """Implements `interfaces.Teacher`. Verbs raise UnusableAnswer for a solution they cannot read."""

    concurrency = 1  # it computes: threads bring nothing

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def solve(self, problem: Problem, attempt: int = 0) -> str:
        """C of Eq. 4: what is asked, one paragraph a gold line, often a check, then `#### gold`.

        The check is a step with a number, so that `split_steps` makes it a unit of its own.
        """
        program = read_program(problem)
        rng = Random(f"{self._seed}:{problem.id}:{attempt}")
        asked = _ASKED[int(rng.random() * len(_ASKED))].format(asked_sentence(problem.question))
        bodies = [line.text for line in program.lines]
        if rng.random() < SHARE_WITH_CHECK:
            bodies.append(_check(program, verify=rng.random() < SHARE_OF_CHECKS_THAT_VERIFY))
        steps = [f"Step {number}: {body}" for number, body in enumerate(bodies, start=1)]
        return "\n\n".join([asked, *steps, f"#### {program.gold}"])

    def importance(self, problem: Problem, trace: str, trace_without_step: str, step: str) -> float:
        """J_imp of Eq. 5, from what the answer depends on.

        1: the answer needs a result that only this step gives. 0.75: it needs it, but the result can be read elsewhere;
        also a line of algebra, which is not followed. 0.5: a new result that the answer does not need, or a gold line
        without numbers. 0.25: known quantities or results once more. 0: nothing of use.
        """
        program = read_program(problem)
        before, _, after = trace.partition(step)
        earlier, own, later = (calculations(program, _without_checks(part)) for part in (before, step, after))
        needed = _needed_values([*earlier, *own, *later], Fraction(program.gold))
        asked = written_numbers(problem.question)
        elsewhere = asked | _stated_numbers(trace_without_step)
        known = asked | _stated_numbers(before) | results(earlier)
        if own:
            return max(_value_importance(results([equation]), needed, elsewhere, known) for equation in own)
        return _importance_without_calculation(program, step, needed, elsewhere, known)

    def jumpiness(self, problem: Problem, context: str, step: str) -> float:
        """J_jump of Eq. 7: min(points, 4) / 4.

        Two points for each operation whose value is not written, one for each operand that neither the context nor the
        question writes. Without a context there is nothing to jump from: 0.
        """
        if not context.strip():
            return 0.0
        program = read_program(problem)
        missing = unprepared(problem, context, calculations(program, step))
        points = 2 * _num_unwritten_operations(program, step) + len(missing)
        return min(points, MAX_POINTS) / MAX_POINTS

    def expand(self, problem: Problem, context: str, step: str, later: Sequence[str] = ()) -> str:
        """The step with its compound calculations done one operation at a time, and unprepared numbers explained."""
        return expand_step(problem, read_program(problem), context, step)

    def compress(self, step: str) -> str:
        """The step's equations only, or its first clause where it has none; never longer than the step."""
        return compress_step(step)

    def localize(self, problem: Problem, context: str, step: str, later: Sequence[str] = ()) -> str:
        """The step as: what we know, one operation a sentence, the conclusion. At most about twice as long."""
        return localize_step(problem, read_program(problem), context, step)

    def diagnose(self, problem: Problem, response: str) -> str:
        """e of Eqs. 16 and 17 as JSON text.

        Raises:
            UnusableAnswer: the response has no text, or no error can be found in it.
        """
        if not response.strip():
            raise UnusableAnswer(f"the response to problem {problem.id} has no text, so it has no first error")
        diagnosis = diagnose_response(problem, read_program(problem), response)
        return json.dumps(asdict(diagnosis), ensure_ascii=False)


def _check(program: Program, verify: bool) -> str:
    """The last calculation undone; the answer restated where that is not wanted or not possible."""
    undone = _undone(program.lines[-1].equations[-1:]) if verify else None
    return f"Check: {undone}, so {program.gold} is right." if undone else f"Check: The answer is {program.gold}."


def _undone(equations: Sequence[Equation]) -> str | None:
    """`48 + 24 = 72` as `72 - 24 = 48`; None for a compound or a rounded calculation, or for none at all."""
    for equation in equations:
        left, right = equation.expression.left, equation.expression.right
        if isinstance(left, Operation) or isinstance(right, Operation) or right.value == 0:
            return None
        result = Number(equation.result, format_number(equation.result))
        inverse = Operation(_INVERSE[equation.expression.operator], result, right)
        if evaluate(inverse) == left.value:
            return f"{format_expression(inverse)} = {left.text}"
    return None


def _without_checks(text: str) -> str:
    """The text without its checks, on which no answer depends."""
    return "\n".join(line for line in text.split("\n") if not CHECK_CUE.match(line))


def _needed_values(equations: Sequence[Equation], final: Fraction) -> set[Fraction]:
    """The values that the last equation with the final value goes back to, itself included.

    Where no equation gives the final value, the last equation counts as the one that leads there.
    """
    needed = {final}
    ends = [at for at, equation in enumerate(equations) if final in results([equation])]
    last = ends[-1] if ends else len(equations) - 1
    for at in range(last, -1, -1):
        given = results([equations[at]])
        if at == last or given & needed:
            needed |= given | operand_values(equations[at])
    return needed


def _value_importance(
    values: set[Fraction], needed: set[Fraction], elsewhere: set[Fraction], known: set[Fraction]
) -> float:
    """The importance of giving these values."""
    if values & needed:
        return 0.75 if values & needed <= elsewhere else 1.0
    return 0.25 if values <= known else 0.5


def _importance_without_calculation(
    program: Program, step: str, needed: set[Fraction], elsewhere: set[Fraction], known: set[Fraction]
) -> float:
    """The importance of a step that calculates nothing, or that only checks."""
    if CHECK_CUE.match(step):
        return 0.25
    stated = _stated_numbers(step)
    if stated - known:
        return _value_importance(stated - known, needed, elsewhere, known)
    if "=" in step:
        return 0.75
    if stated:
        return 0.25
    is_gold_line = any(line.text == STEP_HEAD.sub("", step).strip() for line in program.lines)
    return 0.5 if is_gold_line else 0.0


def _stated_numbers(text: str) -> set[Fraction]:
    """The numbers that a text gives: not step numbers, not the operands of its equations, not the answer line."""
    numbers: set[Fraction] = set()
    for line in text.split("\n"):
        if is_answer_line(line):
            continue
        for equation in reversed(find_equations(line)):
            line = f"{line[: equation.start]} {line[equation.result_start :]}"
        numbers |= written_numbers(STEP_HEAD.sub("", line))
    return numbers


def _num_unwritten_operations(program: Program, step: str) -> int:
    """Operations beyond the one that each equation writes; all of them where a gold line writes no equation."""
    written = find_equations(step)
    if written:
        return sum(num_operations(equation.expression) - 1 - _num_written_on(step, equation) for equation in written)
    hidden = [equation for line in step.split("\n") for equation in hidden_equations(program, line)]
    return sum(num_operations(equation.expression) for equation in hidden)


def _num_written_on(step: str, equation: Equation) -> int:
    """How many intermediate values the right side writes, as in `8 * 2 + 4 * 5 = 16 + 20`."""
    if gives_one_number(equation):
        return 0
    return len(intermediate_values(equation) & written_numbers(step[equation.result_start : equation.end]))
