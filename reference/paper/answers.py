"""Section 3.1, the verifier: Ans(.) and the reward of Eq. 2.

verl's GSM8K scorer compares strings and reads only the last 300 characters, so `#### 72.` and `#### $72` score 0 there;
here any way of writing the same decimal is the same answer (ambiguity A48).
"""

import re
from decimal import Decimal

# What may stand between the mark and the number: spaces, bold, currency, LaTeX wrappers.
# Possessive (*+), since a model in training writes thousands of spaces.
_WRAPPERS = r"(?:[ \t\u00a0*_`$\u20ac\u00a3(\[{]|\\(?:boxed|mathbf|text)\{|\\[$(\[!,;])*+"
# The number ends here: not inside a longer number, a fraction, a time, a range, a calculation or a power.
_END = r"(?![0-9]|[.,][0-9]|[ \t]+[0-9]|\s*[/:^+*\-\u2212\u2013\u00d7\u00f7]\s*\$?[0-9]|[eE][+-]?[0-9]|[\u00b2\u00b3])"
_NUMBERED_HEADING = re.compile(r"#+\s*[0-9]+[.)]\s+\S")
_ANSWER = re.compile(
    rf"{_WRAPPERS}(?P<sign>[+\-\u2212]?){_WRAPPERS}"
    rf"(?P<whole>[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]*)(?:\.(?P<part>[0-9]+))?{_END}"
)
# An option's letter and what may close it; text may only follow a closing sign.
_LETTER = re.compile(
    r"[ \t*_`$(\[{]*(?:\\(?:boxed|text|mathrm)\{)*[(\[]?([A-Da-d])(?:[ \t*_`$)\]}.,:;]*$|[ \t*_`$\]}]*[).:]+[ \t*]+\S)"
)
ANSWER_MARK = "####"
_ANSWER_MARK = re.compile(r"####(?!#)")
ROUNDED_DECIMALS = 4
FLOAT_DECIMALS = 10  # more of them are rounding


def normalize_number(text: str) -> str | None:
    """The number that `text` begins with, as a plain decimal: `$1,200.50` -> `1200.5`; None if it begins with none."""
    match = _ANSWER.match(text.replace("{,}", ","))
    if match is None or not (match["whole"] or match["part"]):
        return None
    whole = match["whole"].replace(",", "").lstrip("0") or "0"
    part = (match["part"] or "").rstrip("0")
    number = f"{whole}.{part}" if part else whole
    return f"-{number}" if match["sign"] in ("-", "\u2212") and number != "0" else number


def extract_answer(text: str) -> str | None:
    """Ans(o): the number that follows the last `####` on its line, as a normalised decimal string.

    Tolerates `$`, thousands commas, spaces, a trailing full stop, bold, `\\boxed{}` and a unit behind the number.
    A fraction, a time, a calculation, a number in scientific notation or two numbers in a row are no decimal: None.
    Never raises.
    """
    _, mark, after = text.rpartition(ANSWER_MARK)
    return normalize_number(after.split("\n", 1)[0]) if mark else None


def answer_text(text: str) -> str | None:
    """What stands behind the last `####`, to the end of its line, without the marks around it; None if nothing does.

    A full stop at the end is none of it.
    """
    _, mark, after = text.rpartition(ANSWER_MARK)
    inner = after.split("\n", 1)[0].strip().strip("*").removesuffix(".").strip("*").strip()
    for opening, closing in (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("\\boxed{", "}")):
        if inner.startswith(opening) and inner.endswith(closing) and len(inner) >= len(opening) + len(closing):
            inner = inner[len(opening) : len(inner) - len(closing)].strip()
    return inner or None if mark else None


def extract_letter(text: str) -> str | None:
    """The option A to D that follows the last `####` on its line: `B`, `(b)`, `B.`, `**B**`, `B. the option's text`.

    A letter that begins a word or a sentence is none.
    """
    _, mark, after = text.rpartition(ANSWER_MARK)
    match = _LETTER.match(after.split("\n", 1)[0]) if mark else None
    return match[1].upper() if match else None


def is_rounded(answer: str, gold: str) -> bool:
    """Whether two plain decimals are equal as far as both are given: 1.83 for 1.8333333, but not 1.8.

    The answer has at least two decimals and two digits that count, so that -0.05 is not -0.04545. For golds that were
    computed in floating point or rounded themselves, of ROUNDED_DECIMALS decimals or more.
    """
    places = min(FLOAT_DECIMALS, *(len(number.partition(".")[2]) for number in (answer, gold)))
    if places < 2 or len(Decimal(answer).as_tuple().digits) < 2:
        return Decimal(answer) == Decimal(gold)
    step = Decimal(1).scaleb(-places)
    return abs(Decimal(answer) - Decimal(gold)) <= step / 2


def gold_number(gold: str) -> str:
    """a* as a plain decimal. Raises ValueError where it is no decimal number: then nothing can be judged by it."""
    number = normalize_number(gold)
    if number is None:
        raise ValueError(f"the gold answer {gold!r} is not a decimal number; mend or remove the problem")
    return number


def is_correct(response: str, gold: str) -> bool:
    """Whether Ans(o) = a*, compared as exact decimals (Eq. 2's indicator).

    Raises:
        ValueError: `gold` is not a decimal number; a wrong gold answer must not pass for a wrong response.
    """
    return extract_answer(response) == gold_number(gold)


def reward(response: str, gold: str) -> float:
    """Eq. (2): r_{j,i} = 1[Ans(o_{j,i}) = a_j*], as 0.0 or 1.0. Raises ValueError as `is_correct`."""
    return float(is_correct(response, gold))


def stated_answers(text: str) -> list[str]:
    """Every final answer in a text, wherever in a line it stands: `So #### 16. Done` states 16.

    A line that begins as a numbered heading does, `#### 2. Check`, states nothing.
    """
    found = []
    for mark in _ANSWER_MARK.finditer(text):
        before = text[: mark.start()].rpartition("\n")[2].strip(" \t*")
        line = text[mark.start() :].split("\n", 1)[0]
        answer = normalize_number(line.removeprefix(ANSWER_MARK))
        if answer is not None and (before or not _NUMBERED_HEADING.match(line)):
            found.append(answer)
    return found


def is_answer_line(line: str) -> bool:
    """Whether a line is a final answer such as `#### 72`, and no heading such as `#### Step 2` or `#### 2. Check`."""
    stripped = line.strip().strip("*").strip()
    if not stripped.startswith(ANSWER_MARK) or _NUMBERED_HEADING.match(stripped):
        return False
    return extract_answer(stripped) is not None
