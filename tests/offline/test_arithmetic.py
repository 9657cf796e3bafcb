"""Reading arithmetic out of text."""

import time
from fractions import Fraction

import pytest

from reference.offline.arithmetic import (
    MAX_OPERATORS,
    equation_text,
    evaluate,
    find_equations,
    format_expression,
    format_number,
    holds,
    operands,
    operation_text,
    parse_expression,
    single_operations,
    written_numbers,
)


def value(text):
    return evaluate(parse_expression(text))


def found(text):
    return [equation_text(equation) for equation in find_equations(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48/2", 24),
        ("100 - 50 - 30 - 15", 5),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("8 / 4 / 2", 1),
        ("8 / (4 / 2)", 4),
        ("-20+10", -10),
        ("+5 - +2", 3),
        ("71+-3", 68),
        (".5*8", 4),
        ("20% * 50", 10),
        ("$1,500 + $2,000.50", Fraction("3500.5")),
        ("2 x 3 \u00d7 4", 24),
        ("9 \u2212 4 \u2013 1", 4),
        ("12\u00f74", 3),
        ("180//3", 60),
        ("0.1 + 0.2", Fraction(3, 10)),
    ],
)
def test_value_of_an_expression(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize("text", ["", "2 +", "(2", "2)", "2 3", "2 ** 3", "* 2", "x + 1", "2(3)", "1e5", "9" * 400])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="an expression"):
        parse_expression(text)


def test_more_operators_than_anybody_writes_are_refused():
    assert value("1" + "+1" * MAX_OPERATORS) == MAX_OPERATORS + 1
    with pytest.raises(ValueError, match="at most"):
        parse_expression("1" + "+1" * (MAX_OPERATORS + 1))


def test_division_by_zero_has_no_value_and_no_equation_holds():
    with pytest.raises(ZeroDivisionError):
        value("5 / (3 - 3)")
    assert not holds(find_equations("5 / 0 = 0")[0])


@pytest.mark.parametrize(
    "text",
    ["1 - (2 + 3)", "1 - (2 - 3)", "1 / (2 / 3)", "1 / (2 * 3)", "(1 + 2) * 3", "1 - 2 + 3", "2 * 3 / 4", "-2 * -3"],
)
def test_writing_an_expression_keeps_its_value_and_adds_no_parentheses(text):
    assert format_expression(parse_expression(text)) == text


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (Fraction(24), "24"),
        (Fraction(1, 2), "0.5"),
        (Fraction(-13, 4), "-3.25"),
        (Fraction(1, 16), "0.0625"),
        (Fraction(10, 3), "3.33"),
        (Fraction(2, 3), "0.67"),
        (Fraction(-1, 1000000), "0"),
    ],
)
def test_writing_a_number(number, expected):
    assert format_number(number) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Natalia sold 48/2 = 24 clips in May.", ["48 / 2 = 24"]),
        ("She pays 2 x $3.50=$7 and 7+1,000 = $1,007.", ["2 * 3.50 = 7", "7 + 1000 = 1007"]),
        ("600 miles / 50 miles per hour = 12 hours * 60 = 720", ["600 / 50 = 12", "12 * 60 = 720"]),
        ("It uses 500 watt hours/day * 7 days/week = 3500", ["500 * 7 = 3500"]),
        ("2 * (3 + 4) = 2 * 7 = 14", ["2 * (3 + 4) = 2 * 7", "2 * 7 = 14"]),
        ("1/2 * 1/2 = 1/4", ["1 / 2 * 1 / 2 = 1 / 4"]),
        ("100% - 20% = 80%", ["100% - 20% = 80%"]),
        ("It is -20 + 10 = -10 degrees", ["-20 + 10 = -10"]),
        ("5 * x = 10", []),
        ("2x = 10", []),
        ("x + 3 + 4 = 10", []),
        ("3 * 4 = 12x", []),
        ("x = 5", []),
        ("5 = 5", []),
        ("3 + 4 =\n7", []),
        ("3 + 4 = 7\n2 apples", ["3 + 4 = 7"]),
        ("$350 000 x 12 = 42000", []),
        ("100 + ($100 * 2 = $200", []),
    ],
)
def test_equations_in_text(text, expected):
    assert found(text) == expected


def test_an_equation_knows_its_place_in_the_text():
    text = "So she gets 3 * 4 = $1,200 today."
    equation = find_equations(text)[0]
    assert text[equation.start : equation.end] == "3 * 4 = $1,200"
    assert text[equation.result_start : equation.end] == "$1,200"
    assert (equation.result, equation.result_text) == (1200, "1200")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48 / 2 = 24", True),
        ("48 / 2 = 25", False),
        ("10 / 3 = 3.33", True),
        ("20 / 3 = 6.66", True),
        ("10 / 3 = 3.4", False),
        ("10 / 3 = 3", False),
        ("2 * .50 = 1.00", True),
        ("100 - 53 = 47%", True),
        ("100 - 53 = 46%", False),
        ("1 / 3 = 33.3%", True),
    ],
)
def test_whether_an_equation_holds(text, expected):
    assert holds(find_equations(text)[0]) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("100 - 50 - 30 - 15", ["100 - 50 = 50", "50 - 30 = 20", "20 - 15 = 5"]),
        ("2 + 3 * 4", ["3 * 4 = 12", "2 + 12 = 14"]),
        ("(1 + 2) * (3 + 4)", ["1 + 2 = 3", "3 + 4 = 7", "3 * 7 = 21"]),
        ("48 / 2", ["48 / 2 = 24"]),
        ("10 / 3 * 6", ["10 / 3 * 6 = 20"]),
        ("2 + 10 / 3 * 6", ["10 / 3 * 6 = 20", "2 + 20 = 22"]),
    ],
)
def test_single_operations_in_the_order_of_calculation(text, expected):
    assert [operation_text(operation) for operation in single_operations(parse_expression(text))] == expected


def test_operands_come_with_the_operator_that_works_on_them():
    pairs = operands(parse_expression("3 * 15 / 2 - 1"))
    assert [(number.text, operator) for number, operator in pairs] == [("3", "*"), ("15", "*"), ("2", "/"), ("1", "-")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("She has 3 cats, twelve dogs and $1,200.50.", {3, 12, Fraction("1200.5")}),
        ("Half of a dozen, twice a week", set()),
        ("a 20% tip", {20, Fraction(1, 5)}),
        ("twenty-five people", {20, 5, 25}),
        ("a 3-page letter", {3}),
        ("3/4 of it", {3, 4, Fraction(3, 4)}),
        ("5 hundred", {5, 500}),
        ("9" * 400, set()),
    ],
)
def test_numbers_that_a_text_writes(text, expected):
    assert written_numbers(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000,
        ")" * 10_000 + "=1",
        "=" * 20_000,
        "1=" * 10_000,
        "1+1=" * 5_000,
        "1" * 20_000 + "+1=2",
        "((1+" * 5_000 + "=3",
        " " * 19_000 + "=",
        "word " * 4_000 + "= 3",
        "\udcff\x00\u0663 + 1 = 2",
    ],
)
def test_garbage_is_read_in_a_moment(text):
    begin = time.perf_counter()
    find_equations(text)
    written_numbers(text)
    assert time.perf_counter() - begin < 3
