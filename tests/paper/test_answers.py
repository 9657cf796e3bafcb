r"""Ans(.) and Eq. 2. The oracle of a number is `decimal`: two writings are equal when their decimals are."""

import random
import time
from decimal import Decimal

import pytest

from reference.paper.answers import (
    answer_text,
    extract_answer,
    extract_letter,
    is_answer_line,
    is_correct,
    is_rounded,
    normalize_number,
    reward,
)

SEVENTY_TWO = [
    "#### 72",
    "####72",
    "####   72   ",
    "####\t72",
    "#### 72.",
    "#### 72.0",
    "#### 72.000",
    "#### 072",
    "#### +72",
    "#### $72",
    r"#### \$72",
    "#### $72.00",
    "#### 72 dollars",
    "#### 72%",
    "#### 72°",
    "#### 72, as was asked",
    "#### 72!",
    "#### **72**",
    "#### **72**.",
    "**#### 72**",
    "#### `72`",
    "#### (72)",
    "#### [72]",
    r"#### \boxed{72}",
    r"#### $\boxed{72}$",
    r"#### \(\boxed{72}\)",
    r"#### \[72\]",
    r"#### \text{72} eggs",
    r"#### $\mathbf{72}$",
    "#### 72 = 8 * 9",
    "He has 8 bags of 9.\n#### 72\n",
    "#### 72\r\nDone.",
    "#### 72\n\nThe other number is 5.",
    "#### 72\n/ 3 is 24.",
    "#### 71\nNo, wait.\n#### 72",
    "#### 71 #### 72",
    "##### 72",
    "#### Step 1\n8 * 9 = 72\n#### 72",
]

NONE = [
    "",
    "72",
    "The answer is 72.",
    "### 72",
    "# # # # 72",
    "####",
    "####\n72",
    "#### seventy-two",
    "#### x = 72",
    "#### Step 2",
    "#### Answer: 72",
    "#### 72\n####",
    "#### 72\n#### so many",
    "#### 3/4",
    "#### 3 / 4",
    r"#### \frac{3}{4}",
    "#### 12:30",
    "#### 10 - 3 = 7",
    "#### 12-14",
    "#### 12\u201314",
    "#### 3 * 4",
    "#### 3 \u00d7 $4",
    "#### 7\u00b2",
    "#### 1e5",
    "#### 2.5E-3",
    "#### 10^6",
    "#### 1.000.000",
    "#### 1.2.3",
    "#### 1,23",
    "#### 1,2345",
    "#### 1234,567",
    "#### 12,34,567",
    "#### .",
    "#### -",
    "#### $",
    "#### --5",
    "#### \u0663",
    "#### \u00b2",
]

OTHERS = {
    "#### 0": "0",
    "#### -0": "0",
    "#### -0.00": "0",
    "#### .5": "0.5",
    "#### 0.50": "0.5",
    "#### 007": "7",
    "#### 1000": "1000",
    "#### 1,000": "1000",
    "#### $1,234.50": "1234.5",
    "#### 1,234,567 people": "1234567",
    "#### 1,234.": "1234",
    "#### 1{,}234": "1234",
    r"#### $\boxed{1{,}234{,}567}$": "1234567",
    "#### -5": "-5",
    "#### - 5": "-5",
    "#### -$5": "-5",
    "#### $-5": "-5",
    "#### **-5**": "-5",
    r"#### \boxed{-5}": "-5",
    "#### \u22125": "-5",
    "#### -1,000.250": "-1000.25",
    "#### 5 - a lot": "5",
    "#### 5 = five": "5",
    "#### 5\n- 3 are left\nand that is all": "5",  # the line ends the calculation
    "#### 100": "100",
}


@pytest.mark.parametrize("response", SEVENTY_TWO)
def test_every_way_of_writing_72_is_72(response):
    assert extract_answer(response) == "72"
    assert reward(response, "72") == 1.0
    assert reward(response, "73") == 0.0


@pytest.mark.parametrize("response", NONE)
def test_without_a_mark_and_a_decimal_behind_it_there_is_no_answer(response):
    assert extract_answer(response) is None
    assert reward(response, "72") == 0.0


@pytest.mark.parametrize("response, answer", OTHERS.items())
def test_a_number_is_normalised(response, answer):
    assert extract_answer(response) == answer


# Where verl's strict scorer gives 0: it compares strings and reads 300 characters.
@pytest.mark.parametrize(
    "response", ["#### 72.", "#### 72.0", "#### $72", "####72", "#### **72**", "#### 72\n" + "I checked it. " * 30]
)
def test_what_verl_scores_zero_for_its_writing_is_right_here(response):
    assert is_correct(response, "72")


@pytest.mark.parametrize(
    "written, gold, equal",
    [
        ("72.0", "72", True),
        ("0.1", ".10", True),
        ("1,200.50", "$1200.5", True),
        ("-0.0", "0", True),
        ("72", "72.0000000001", False),
        ("0.1", "0.10000000000000001", False),  # equal as floats
        ("123456789012345678901234567890", "123456789012345678901234567890", True),
        ("123456789012345678901234567890", "123456789012345678901234567891", False),  # equal as floats
        ("5", "-5", False),
        ("1200", "1,200", True),
    ],
)
def test_answers_are_compared_as_exact_decimals(written, gold, equal):
    assert is_correct(f"#### {written}", gold) is equal


def test_four_hundred_digits_are_exact():
    number = "7" * 399
    assert extract_answer(f"#### {number}1") == number + "1"
    assert is_correct(f"#### {number}1", number + "1")
    assert not is_correct(f"#### {number}1", number + "2")


def test_reward_is_the_indicator_as_a_float():
    values = [reward("#### 72", "72"), reward("#### 71", "72"), reward("no answer", "72")]
    assert values == [1.0, 0.0, 0.0]
    assert {type(value) for value in values} == {float}


@pytest.mark.parametrize("gold", ["", "seventy-two", "3/4", "A", "#### 72", "1e5"])
def test_a_gold_answer_that_is_no_number_is_refused(gold):
    with pytest.raises(ValueError, match="gold answer .* is not a decimal number; mend or remove"):
        is_correct("#### 72", gold)


def test_random_writings_agree_with_decimal():
    draw = random.Random(1)
    for _ in range(2000):
        sign = draw.choice(["", "", "-", "+", "\u2212"])
        whole = draw.randrange(10 ** draw.randint(1, 9))
        part = draw.choice(["", ".", f".{draw.randrange(1000):03d}"])
        commas = draw.random() < 0.5
        written = f"{sign}{whole:,}{part}" if commas else f"{sign}{whole}{part}"
        value = Decimal(f"{sign}{whole}{part}".replace("\u2212", "-").rstrip("."))
        before, after = draw.choice(["", "$", "**", "(", " "]), draw.choice(["", " eggs", "**"])
        found = extract_answer(f"#### {before}{written}{after}")
        assert Decimal(found) == value, written
        assert normalize_number(found) == found  # normal form
        assert "," not in found and not (found.endswith("0") and "." in found)


def test_no_text_makes_it_raise():
    draw = random.Random(2)
    pieces = ["####", "#", " ", "\n", "\r", "\\boxed{", "{,}", "$", "*", "(", ",", ".", "-", "\u2212"]
    pieces += ["/", "^", "e5", "12", "0"]
    for _ in range(3000):
        random_characters = [chr(draw.randrange(1, 0xD800)) for _ in range(draw.randrange(4))]
        parts = [draw.choice(pieces) for _ in range(draw.randrange(12))] + random_characters
        draw.shuffle(parts)
        found = extract_answer("".join(parts))
        assert found is None or str(Decimal(found))


@pytest.mark.parametrize(
    "text",
    [
        "#### " + "7" * 200_000,
        "#### " + "1,234" * 40_000,
        "#" * 200_000,
        "#### 5\n" * 30_000,
        "####" + " " * 1500 + "/2",
        "####" + "$*" * 5000 + "/2",
        "####" + "\\boxed{" * 5000 + "e5",
        "#### 5" + " " * 200_000 + "x",
    ],
    ids=["digits", "commas", "hashes", "answers", "spaces", "wrappers", "boxes", "tail"],
)
def test_a_long_degenerate_response_takes_no_time(text):
    """A small model does repeat itself to the limit; the verifier must not try every way of reading it."""
    begin = time.perf_counter()
    extract_answer(text)
    assert time.perf_counter() - begin < 0.25


@pytest.mark.parametrize(
    "line", ["#### 72", "  #### 72  ", "**#### 72**", "####72", r"#### \boxed{72}", "#### -3 apples"]
)
def test_an_answer_line(line):
    assert is_answer_line(line)


@pytest.mark.parametrize(
    "line", ["", "72", "### 72", "#### Step 2", "#### Check", "####", "so #### 72", "X#### 72", "### Step 4: 72"]
)
def test_no_answer_line(line):
    assert not is_answer_line(line)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("#### B", "B"),
        ("#### b", "B"),
        ("####C", "C"),
        ("#### (D)", "D"),
        ("#### [a]", "A"),
        ("#### B.", "B"),
        ("#### **B**", "B"),
        ("#### `C`", "C"),
        ("#### $\\boxed{A}$", "A"),
        ("#### \\text{D}", "D"),
        ("#### B. The leisure area", "B"),
        ("#### B) The leisure area", "B"),
        ("#### (C): it is so", "C"),
        ("#### A\n#### D", "D"),
        ("#### A\nor so\nit seems", "A"),
        ("first #### A, then #### B", "B"),
        ("B", None),
        ("#### E", None),
        ("#### A leisure area", None),
        ("#### Both", None),
        ("#### ", None),
        ("#### A and B", None),
        ("#### AB", None),
        ("####\nA", None),
        ("", None),
        ("#### .B", None),
    ],
)
def test_an_options_letter_stands_alone_behind_the_mark(text, letter):
    assert extract_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### \\frac{1}{2}", "\\frac{1}{2}"),
        ("#### $x+1$ ", "x+1"),
        ("#### \\(x\\)", "x"),
        ("#### \\[x\\]", "x"),
        ("#### \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("#### $\\boxed{3}$", "3"),
        ("#### **7**", "7"),
        ("#### 5\nmore\nand more", "5"),
        ("#### 5\n#### 7", "7"),
        ("#### **X**", "X"),
        ("#### **$x$**.", "x"),
        ("#### 5.", "5"),
        ("#### $x$.", "x"),
        ("#### **$x$.**", "x"),
        ("#### \\begin{pmatrix}1\\\\2\\end{pmatrix}.", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("#### .", None),
        ("5", None),
        ("#### ", None),
        ("#### $$", None),
        ("#### $", "$"),
        ("", None),
    ],
)
def test_the_text_behind_the_mark_without_its_wrapping(text, answer):
    assert answer_text(text) == answer


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("1.83", "1.8333333333333335", True),
        ("1.8333", "1.8333333333333335", True),
        ("1.84", "1.8333333333333335", False),
        ("1.8", "1.8333333333333335", False),
        ("2", "1.8333333333333335", False),
        ("1.83", "1.8350", True),  # half of the last decimal, on either side
        ("1.84", "1.8350", True),
        ("0.67", "0.6667", True),
        ("0.66667", "0.6667", True),
        ("0.66", "0.6667", False),
        ("-0.05", "-0.04545", False),  # one digit that counts
        ("-0.045", "-0.04545", True),
        ("0.17", "0.1666666667", True),
        ("0.1667", "0.1666666667", True),
        ("0.2", "0.1666666667", False),
        ("0.05", "-0.04545", False),
        ("5.6667", "5.666666666666667", True),
        ("0.6666666666666667", "0.6666666666666666", True),
    ],
)
def test_a_rounded_gold_is_met_to_the_decimals_that_both_have(answer, gold, equal):
    assert is_rounded(answer, gold) == equal
