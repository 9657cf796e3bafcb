"""Arithmetic as people write it in solutions: `48/2 = $24`, `600 miles / 50 = 12 hours`, `20% * 1,500 = 300`.

A small recursive-descent parser over exact fractions; nothing is ever evaluated as code. What it reads may be garbage
from a model in training: numbers and expressions have a largest size, and every scan is linear in the text.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

MAX_NUMBER_LENGTH = 30  # characters; a longer run of digits is no number
MAX_OPERATORS = 24  # in one expression; GSM8K's longest has 12
MAX_UNIT_WORDS = 6  # between a number and the next operator, as in `6 pieces of straw per rat * 2`
# They begin something new, so that no number before them is an operand.
_NO_UNITS = frozenset("and or so then because is are was were comes from".split())
MAX_DECIMALS = 4  # an intermediate value that needs more is not written down

_TOKEN = re.compile(
    r"(?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|(?P<word>[^\W\d_]+)|(?P<operator>//|[-+*/\u00d7\u00f7\u2212\u2013\u00b7])|(?P<paren>[()])"
    r"|(?P<equals>=)|(?P<percent>%)|(?P<currency>[$\u20ac\u00a3])|(?P<other>\S|\n)"
)
_PLAIN_OPERATOR = {"//": "/", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-"}

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = {word: value for value, word in enumerate(_ONES)}
NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}


class Token(NamedTuple):
    """A piece of text and where it stands."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Number:
    """A leaf: the exact value (`20%` is 1/5), and how to write it."""

    value: Fraction
    text: str


@dataclass(frozen=True)
class Operation:
    """`left operator right`, the operator one of + - * /."""

    operator: str
    left: "Expression"
    right: "Expression"


Expression = Number | Operation


@dataclass(frozen=True)
class Equation:
    """`expression = result` as found in a text: text[start:end], whose result is text[result_start:end]."""

    expression: Operation
    result: Fraction
    result_text: str
    start: int
    result_start: int
    end: int


def tokenize(text: str) -> list[Token]:
    """The text's tokens. A line break is one, since no equation goes on after it.

    An `x` before a number is an operator, the slash of `miles/hour` is a word, and a number too long to be meant is
    `other`.
    """
    tokens = [Token(str(match.lastgroup), match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]
    for i, token in enumerate(tokens):
        if token.kind == "number" and len(token.text) > MAX_NUMBER_LENGTH:
            tokens[i] = token._replace(kind="other")
        elif token.text == "/" and i + 1 < len(tokens) and _is_unit_slash(token, tokens[i + 1]):
            tokens[i] = token._replace(kind="word", text="per")
        elif token.kind == "operator":
            tokens[i] = token._replace(text=_PLAIN_OPERATOR.get(token.text, token.text))
        elif token.text in ("x", "X") and 0 < i < len(tokens) - 1 and _starts_operand(tokens[i + 1]):
            tokens[i] = token._replace(kind="operator", text="*")
    return tokens


def _starts_operand(token: Token) -> bool:
    return token.kind in ("number", "currency") or token.text == "("


def _is_unit_slash(slash: Token, following: Token) -> bool:
    return following.kind == "word" and len(following.text) > 1 and slash.end == following.start


def parse_expression(text: str) -> Expression:
    """The tree of an expression such as `(1+.5)*20%`.

    Raises:
        ValueError: the text is no expression of numbers, + - * /, parentheses and %.
    """
    return _parse([token for token in tokenize(text) if token.kind != "currency"])


def _parse(tokens: list[Token]) -> Expression:
    """The tree of tokens that must all belong to one expression. Raises ValueError."""
    if sum(token.kind == "operator" for token in tokens) > MAX_OPERATORS:
        raise ValueError(f"an expression may have at most {MAX_OPERATORS} operators")
    expression, at = _parse_sum(tokens, 0)
    if at != len(tokens):
        raise ValueError(f"cannot read {tokens[at].text!r} as a part of an expression")
    return expression


def _parse_sum(tokens: list[Token], at: int) -> tuple[Expression, int]:
    left, at = _parse_product(tokens, at)
    while at < len(tokens) and tokens[at].text in ("+", "-"):
        right, after = _parse_product(tokens, at + 1)
        left, at = Operation(tokens[at].text, left, right), after
    return left, at


def _parse_product(tokens: list[Token], at: int) -> tuple[Expression, int]:
    left, at = _parse_operand(tokens, at)
    while at < len(tokens) and tokens[at].text in ("*", "/"):
        right, after = _parse_operand(tokens, at + 1)
        left, at = Operation(tokens[at].text, left, right), after
    return left, at


def _parse_operand(tokens: list[Token], at: int) -> tuple[Expression, int]:
    """A number with its sign and %, or a sum in parentheses."""
    sign = ""
    if at < len(tokens) and tokens[at].text in ("+", "-"):
        sign, at = tokens[at].text.replace("+", ""), at + 1
    if at < len(tokens) and tokens[at].kind == "number":
        is_percent = at + 1 < len(tokens) and tokens[at + 1].kind == "percent"
        digits = sign + tokens[at].text.replace(",", "")
        value = Fraction(digits) / 100 if is_percent else Fraction(digits)
        return Number(value, f"{digits}%" if is_percent else digits), at + 1 + is_percent
    if at < len(tokens) and tokens[at].text == "(" and not sign:
        inner, at = _parse_sum(tokens, at + 1)
        if at < len(tokens) and tokens[at].text == ")":
            return inner, at + 1
    raise ValueError("a number or a complete pair of parentheses is missing in an expression")


def evaluate(expression: Expression) -> Fraction:
    """The exact value. Raises ZeroDivisionError."""
    if isinstance(expression, Number):
        return expression.value
    left, right = evaluate(expression.left), evaluate(expression.right)
    if expression.operator == "+":
        return left + right
    if expression.operator == "-":
        return left - right
    return left * right if expression.operator == "*" else left / right


def operands(expression: Expression, operator: str = "") -> list[tuple[Number, str]]:
    """The numbers of an expression from left to right, each with the operator that works on it.

    That is the sign before it; also the one behind it for + and *. In 3 * 15 / 2: `*` on 3 and 15, `/` on 2.
    """
    if isinstance(expression, Number):
        return [(expression, operator)]
    before = expression.operator if expression.operator in "+*" else ""
    return operands(expression.left, before) + operands(expression.right, expression.operator)


def num_operations(expression: Expression) -> int:
    """How many operators an expression has."""
    return len(operands(expression)) - 1


def is_short_decimal(value: Fraction) -> bool:
    """Whether the value can be written exactly, with a few decimals at most."""
    return 10**MAX_DECIMALS % value.denominator == 0


def format_number(value: Fraction) -> str:
    """`12`, `0.5`, `-3.25`; a value that is no short decimal is rounded to two places."""
    if value.denominator == 1:
        return str(value.numerator)
    places = MAX_DECIMALS if is_short_decimal(value) else 2
    scaled = round(abs(value) * 10**places)
    whole, part = divmod(scaled, 10**places)
    digits = f"{whole}.{part:0{places}d}".rstrip("0").rstrip(".")
    return f"-{digits}" if value < 0 and scaled else digits


def format_expression(expression: Expression) -> str:
    """`100 - 50`, with parentheses only where the tree needs them."""
    if isinstance(expression, Number):
        return expression.text
    left, right = format_expression(expression.left), format_expression(expression.right)
    if _binds_looser(expression.left, expression.operator):
        left = f"({left})"
    if _binds_looser(expression.right, expression.operator) or (
        isinstance(expression.right, Operation) and expression.operator in "-/"
    ):
        right = f"({right})"
    return f"{left} {expression.operator} {right}"


def operation_text(operation: Operation) -> str:
    """`48 / 2 = 24`, with the value as `format_number` writes it. Raises ZeroDivisionError."""
    return f"{format_expression(operation)} = {format_number(evaluate(operation))}"


def equation_text(equation: Equation) -> str:
    """`48 / 2 = 24`, with the result as it was written, without currency and thousands commas."""
    return f"{format_expression(equation.expression)} = {equation.result_text}"


def gives_one_number(equation: Equation) -> bool:
    """Whether the right side is one number, and not `1 / 4` or `2 * 7`."""
    return not any(operator in equation.result_text[1:] for operator in "+-*/")


def _binds_looser(inner: Expression, operator: str) -> bool:
    return isinstance(inner, Operation) and inner.operator in "+-" and operator in "*/"


def single_operations(expression: Operation) -> list[Operation]:
    """The operations in the order in which one calculates them; the last one gives the value of the whole.

    Each has the values found before it as operands. An intermediate value that cannot be written exactly (10 / 3 * 6)
    is left inside the operation that uses it, so that no written equation is false. Raises ZeroDivisionError.
    """
    found: list[Operation] = []
    last = Operation(expression.operator, _calculated(expression.left, found), _calculated(expression.right, found))
    return [*found, last]


def _calculated(expression: Expression, found: list[Operation]) -> Expression:
    """The expression's value as a number, after noting the operations that lead to it."""
    if isinstance(expression, Number):
        return expression
    operation = Operation(
        expression.operator, _calculated(expression.left, found), _calculated(expression.right, found)
    )
    value = evaluate(operation)
    if not is_short_decimal(value):
        return operation
    found.append(operation)
    return Number(value, format_number(value))


def holds(equation: Equation) -> bool:
    """Whether the equation is true. Decimals may be rounded or cut off; `100 - 20 = 80%` passes as 80."""
    try:
        value = evaluate(equation.expression)
    except ZeroDivisionError:
        return False
    is_percent = equation.result_text.endswith("%")
    if value == equation.result or (is_percent and value == equation.result * 100):
        return True
    _, point, decimals = equation.result_text.rstrip("%").partition(".")
    unit = Fraction(1, 10 ** len(decimals)) / (100 if is_percent else 1)
    too_small = abs(value) - abs(equation.result)
    return point != "" and value * equation.result >= 0 and -unit / 2 <= too_small < unit


def find_equations(text: str) -> list[Equation]:
    """The equations `a op b = c` anywhere in a text, in order, those with unknowns or unreadable parts left out.

    Units may stand behind the numbers. In a chain `2 * 3 = 6 * 5 = 30` each link is an equation.
    """
    if "=" not in text:
        return []
    tokens = tokenize(text)
    found = [_equation_at(text, tokens, at) for at, token in enumerate(tokens) if token.kind == "equals"]
    return [equation for equation in found if equation is not None]


def _equation_at(text: str, tokens: list[Token], at: int) -> Equation | None:
    """The equation around the equals sign tokens[at]."""
    first = _expression_start(text, tokens, at)
    if first is None:
        return None
    try:
        expression = _parse(_without_units(tokens[first:at]))
        result, result_text, end = _result_after(tokens, at + 1, expression)
    except ValueError:
        return None
    if isinstance(expression, Number):
        return None
    return Equation(expression, result, result_text, tokens[first].start, tokens[at + 1].start, end)


def _without_units(tokens: list[Token]) -> list[Token]:
    return [token for token in tokens if token.kind not in ("word", "currency")]


def _expression_start(text: str, tokens: list[Token], at: int) -> int | None:
    """Where the expression that ends before tokens[at] begins: operands and operators in turn, read backwards."""
    start, at = None, at - 1
    for _ in range(MAX_OPERATORS + 1):
        operand = _operand_start(tokens, at)
        if operand is None:
            return None
        start, at = operand, operand - 1
        if at >= 0 and _is_sign(text, tokens, at):
            start, at = at, at - 1
        if at < 0 or tokens[at].kind != "operator":
            broken = at >= 0 and (tokens[at].kind == "number" or tokens[at].text == "(")
            return None if broken else start
        at -= 1
    return None


def _is_sign(text: str, tokens: list[Token], at: int) -> bool:
    """Whether the operator tokens[at] is the sign of the number behind it."""
    if tokens[at].text not in ("+", "-"):
        return False
    before = tokens[at - 1] if at > 0 else None
    if before is None or before.kind in ("operator", "equals", "other") or before.text == "(":
        return True
    touches_number = tokens[at].end == tokens[at + 1].start
    is_apart = before.kind == "word" and touches_number and text[tokens[at].start - 1].isspace()
    return is_apart and _operand_start(tokens, at - 1) is None


def _operand_start(tokens: list[Token], at: int) -> int | None:
    """Where the operand that ends with tokens[at] begins: a number, perhaps with units, or a pair of parentheses."""
    furthest = at - MAX_UNIT_WORDS
    while at > furthest and at >= 0 and _is_unit_word(tokens[at]):
        at -= 1
    if at >= 0 and tokens[at].kind == "percent":
        at -= 1
    if at >= 0 and tokens[at].text == ")":
        opening = _opening(tokens, at)
        if opening is None:
            return None
        at = opening
    elif at < 0 or tokens[at].kind != "number":
        return None
    return at - 1 if at > 0 and tokens[at - 1].kind == "currency" else at


def _is_unit_word(token: Token) -> bool:
    return token.kind == "word" and len(token.text) > 1 and token.text not in _NO_UNITS


def _opening(tokens: list[Token], at: int) -> int | None:
    """The index of the parenthesis that tokens[at] closes, if it is not too far away."""
    depth = 0
    for i in range(at, max(-1, at - 4 * MAX_OPERATORS), -1):
        depth += {")": 1, "(": -1}.get(tokens[i].text, 0)
        if depth == 0:
            return i
        if tokens[i].kind in ("equals", "other") or (tokens[i].kind == "word" and len(tokens[i].text) == 1):
            return None
    return None


def _result_after(tokens: list[Token], at: int, expression: Expression) -> tuple[Fraction, str, int]:
    """The result that begins at tokens[at], how to write it, and where in the text it ends. Raises ValueError.

    The result is one number; of `1/2 * 1/2 = 1/4` and `2 * (3 + 4) = 2 * 7` it is the whole right side, if that makes
    the equation true.
    """
    side = []
    for token in tokens[at : at + 4 * MAX_OPERATORS]:
        if token.kind in ("equals", "other"):
            break
        side.append(token)
    side = [token for token in side if token.kind != "currency"]
    number, used = _parse_operand(side, 0)
    if isinstance(number, Operation):
        raise ValueError("the right side of an equation must begin with a number")
    if used < len(side) and len(side[used].text) == 1 and side[used].kind == "word":
        raise ValueError("the right side of an equation has an unknown")
    while side[-1].kind == "word":
        side.pop()
    try:
        whole = _parse(_without_units(side))
        if evaluate(whole) == evaluate(expression) != number.value:
            return evaluate(whole), format_expression(whole), side[-1].end
    except (ValueError, ZeroDivisionError):
        pass  # the right side goes on in another way: the number alone counts
    return number.value, number.text, side[used - 1].end


def written_numbers(text: str) -> set[Fraction]:
    """Every number that a text writes down, in digits or in words: `20%` writes 20 and 1/5, `3/4` also 3/4.

    Words such as half, twice, dozen or week do not write their number.
    """
    tokens = tokenize(text.lower())
    numbers: set[Fraction] = set()
    for i, token in enumerate(tokens):
        value = _written_value(token)
        if value is None:
            continue
        numbers.add(value)
        following = tokens[i + 1] if i + 1 < len(tokens) else token
        after = _written_value(tokens[i + 2]) if i + 2 < len(tokens) else None
        if following.kind == "percent" or following.text == "percent":
            numbers.add(value / 100)
        elif following.text in _SCALES:
            numbers.add(value * _SCALES[following.text])
        elif following.text == "/" and after:
            numbers.add(value / after)
        elif following.text == "-" and token.text in _TENS and after is not None and 0 < after < 10:
            numbers.add(value + after)
    return numbers


def _written_value(token: Token) -> Fraction | None:
    """The value of a number in digits or of a number word."""
    if token.kind == "number":
        return Fraction(token.text.replace(",", ""))
    if token.kind == "word" and token.text in NUMBER_WORDS:
        return Fraction(NUMBER_WORDS[token.text])
    return None
