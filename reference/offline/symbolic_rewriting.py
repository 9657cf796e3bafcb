"""How the symbolic teacher rewrites a step: Expand, Compress and Localize of Section 3.2, in few and simple words.

All three keep a `#### n` line. What makes them different: Expand keeps the step's sentence and fills in what it jumps
over; Compress keeps the equations only; Localize says what is known, does one operation a sentence, and then concludes.
"""

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from reference.offline.arithmetic import (
    Equation,
    Number,
    Operation,
    equation_text,
    evaluate,
    find_equations,
    format_expression,
    format_number,
    gives_one_number,
    holds,
    operation_text,
    single_operations,
    tokenize,
    written_numbers,
)
from reference.offline.solution_program import (
    SENTENCE_END,
    STEP_HEAD,
    Program,
    calculations,
    distinct_operands,
    is_known,
    origin,
    results,
    unprepared,
)
from reference.paper.answers import is_answer_line
from reference.records import Problem

CHECK_CUE = re.compile(r"^\s*(?:Step [0-9]+: *)?(?:Check|Verification|Verify) *:")
MAX_GROWTH = 2  # a localized step is at most this many times as long as the step, where that is possible
MAX_RECALLED = 3  # numbers that a step without a calculation recalls

_LETTER = re.compile(r"[A-Za-z]")


def expand_step(problem: Problem, program: Program, context: str, step: str) -> str:
    """The step with every compound calculation split into single operations, and every unprepared number explained.

    Where nothing is missing, it says where the numbers come from.
    """
    body, answer = split_answer(step)
    equations = calculations(program, body)
    explained = [origin(problem, program, *operand) for operand in unprepared(problem, context, equations)]
    if not find_equations(body):
        explained += [f"{text}." for text in _operation_texts(equations)]
    expanded = with_operations_split(body)
    if expanded == body and not explained:
        explained = [origin(problem, program, *operand) for operand in _operands_or_numbers(problem, body, equations)]
    return _after_head(expanded, explained) + answer


def compress_step(step: str) -> str:
    """The step's equations, or its first clause where it has none. Never longer than the step."""
    body, answer = split_answer(step)
    cores = [equation_text(equation) for equation in find_equations(body)]
    short = f"{'. '.join(cores)}." if cores else _first_clause(body)
    return ((short if 0 < len(short) <= len(body) else body) + answer).strip()


def localize_step(problem: Problem, program: Program, context: str, step: str) -> str:
    """The step as: what we know, one operation a sentence, the conclusion.

    Hard operations on two-digit numbers go by tens and ones. Where all this grows too long, the tens and ones go first,
    then what we know.
    """
    body, answer = split_answer(step)
    equations = calculations(program, body)
    true = [equation for equation in equations if holds(equation)]
    recalled = _recall(_operands_or_numbers(problem, body, equations), results(calculations(program, context)))
    plain = _operation_texts(true)
    for sentences in ([*recalled, *_operation_texts(true, by_tens=True)], [*recalled, *plain], plain):
        localized = _after_head(_conclusion(body), [f"{sentence}." for sentence in sentences]).rstrip()
        if len(localized) <= MAX_GROWTH * len(body):
            break
    return localized + answer


def split_answer(step: str) -> tuple[str, str]:
    """The step without its `#### n` line, and that line with what separates it from the step (or nothing)."""
    lines = step.strip().split("\n")
    body = "\n".join(line for line in lines if not is_answer_line(line)).rstrip()
    answers = [line.strip() for line in lines if is_answer_line(line)]
    if not answers:
        return body, ""
    return body, f"\n\n{answers[-1]}" if body else answers[-1]


def with_operations_split(body: str) -> str:
    """Each true compound equation cut down to its last operation.

    The operations before it become sentences before its own; if another equation stands before it in that sentence,
    they stay beside it, so that no number is used before it is found.
    """
    edits: list[tuple[int, int, str]] = []
    last_start = last_end = -1
    for equation in find_equations(body):
        start = _sentence_start(body, equation.start)
        is_first, is_link = start != last_start, equation.start < last_end
        last_start, last_end = start, equation.end
        if is_link or not gives_one_number(equation) or not holds(equation):
            continue
        *before, last = single_operations(equation.expression)
        if not before:
            continue
        texts = [operation_text(operation) for operation in before]
        rest = f"{format_expression(last)} = "
        if is_first:
            leads = ["First", *["Then"] * (len(texts) - 1)]
            edits.append((start, start, "".join(f"{lead} {text}. " for lead, text in zip(leads, texts, strict=True))))
        else:
            rest = "".join(f"{text}, " for text in texts) + rest
        edits.append((equation.start, equation.result_start, rest))
    return _edited(body, edits)


def _edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """The text with each text[start:end] replaced; the edits come in order."""
    pieces, at = [], 0
    for start, end, replacement in edits:
        pieces += [text[at:start], replacement]
        at = end
    return "".join([*pieces, text[at:]])


def _sentence_start(text: str, at: int) -> int:
    """Where the sentence around text[at] begins, behind a step's head."""
    head = STEP_HEAD.match(text)
    starts = [head.end() if head and head.end() <= at else 0]
    return max(starts + [match.end() for match in SENTENCE_END.finditer(text) if match.end() <= at])


def _after_head(body: str, sentences: Sequence[str]) -> str:
    """The sentences put between `Step k: ` and the rest."""
    head = STEP_HEAD.match(body)
    at = head.end() if head else 0
    return body[:at] + " ".join([*sentences, body[at:]])


def _operation_texts(equations: Iterable[Equation], by_tens: bool = False) -> list[str]:
    """Every operation of the equations in order; the last one of each with the result as it was written."""
    texts = []
    for equation in equations:
        operations = single_operations(equation.expression)
        if by_tens:
            operations = [part for operation in operations for part in _by_tens(operation)]
        texts += [operation_text(operation) for operation in operations[:-1]]
        texts.append(f"{format_expression(operations[-1])} = {equation.result_text}")
    return texts


def _by_tens(operation: Operation) -> list[Operation]:
    """A hard operation as operations on tens and on ones; any other as it is.

    Hard: a sum with a carry or a difference with a borrow of two-digit numbers, a two-digit times a one-digit number.
    """
    if not isinstance(operation.left, Number) or not isinstance(operation.right, Number):
        return [operation]
    a, b = operation.left.value, operation.right.value
    if operation.operator == "*":
        a, b = max(a, b), min(a, b)
        if not _has_tens_and_ones(a) or b not in range(2, 10):
            return [operation]
        tens, ones = _operation(a - a % 10, "*", b), _operation(a % 10, "*", b)
        return [tens, ones, _operation(evaluate(tens), "+", evaluate(ones))]
    carries = operation.operator == "+" and a % 10 + b % 10 >= 10
    borrows = operation.operator == "-" and a % 10 < b % 10
    if not (_has_tens_and_ones(a) and _has_tens_and_ones(b) and (carries or borrows)):
        return [operation]
    tens = _operation(a, operation.operator, b - b % 10)
    return [tens, _operation(evaluate(tens), operation.operator, b % 10)]


def _has_tens_and_ones(value: Fraction) -> bool:
    return value.denominator == 1 and 11 <= value <= 99 and value % 10 != 0


def _operation(left: Fraction, operator: str, right: Fraction) -> Operation:
    return Operation(operator, Number(left, format_number(left)), Number(right, format_number(right)))


def _operands_or_numbers(problem: Problem, body: str, equations: Sequence[Equation]) -> list[tuple[Number, str]]:
    """A step's operands; where it calculates nothing, the first few of its numbers that the question has too."""
    if equations:
        return distinct_operands(equations)
    asked = written_numbers(problem.question)
    texts = [token.text.replace(",", "") for token in tokenize(STEP_HEAD.sub("", body)) if token.kind == "number"]
    shared = [text for text in dict.fromkeys(texts) if Fraction(text) in asked]
    return [(Number(Fraction(text), text), "") for text in shared[:MAX_RECALLED]]


def _recall(operands: Sequence[tuple[Number, str]], calculated: set[Fraction]) -> list[str]:
    """`We know 48`, `We found 24`: the operands by whether the steps before calculated them."""
    known = [number.text for number, _ in operands if not is_known(number, calculated)]
    found = [number.text for number, _ in operands if is_known(number, calculated)]
    recalled = [f"We know {_enumerated(known)}"] if known else []
    return recalled + ([f"We found {_enumerated(found)}"] if found else [])


def _enumerated(texts: Sequence[str]) -> str:
    """`1`, `1 and 2`, `1, 2 and 3`."""
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]


def _conclusion(body: str) -> str:
    """The step without the calculations in front of its results; if no word is left, only its head."""
    true = [equation for equation in find_equations(body) if holds(equation)]
    conclusion = _edited(body, [(equation.start, equation.result_start, "") for equation in true])
    head = STEP_HEAD.match(conclusion)
    at = head.end() if head else 0
    return conclusion if not true or _LETTER.search(conclusion[at:]) else conclusion[:at]


def _first_clause(body: str) -> str:
    """The first clause; of `We want to know: How many ...?` only the question."""
    said = CHECK_CUE.sub("", STEP_HEAD.sub("", body)).strip()
    clause = SENTENCE_END.split(said)[0].split("; ")[0]
    return clause.rpartition(": ")[2] if clause.endswith("?") else clause
