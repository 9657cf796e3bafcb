"""LogiQA's own text file -> records: the options under the letters that are printed before them.

An item has eight lines: an empty one, the right letter, context, question, four options. In 19 items of the test set
the options are printed in the order A, C, B, D, and the right letter is the printed one: whoever takes the place for
the letter has the wrong answer in 12 of them, as the copies on the hub do. One of those also cuts off three characters
of each option whatever stands there, and with them the first digit of 55 options.
"""

import re

LETTERS = "ABCD"
LINES = 8
_OPTION = re.compile(r"([A-D])(?:[.?]\s*|\s+)(.+)")


def read_logiqa_text(text: str, name: str) -> list[dict[str, object]]:
    """The items of the file `name`: `context`, `question`, `options` in the order of their letters, `answer` from 0.

    Raises:
        ValueError: an item is not of this form; says which.
    """
    lines = [line.strip() for line in text.rstrip().split("\n")]
    return [_item(lines[at : at + LINES], f"{name}, line {at + 1}") for at in range(0, len(lines), LINES)]


def _item(lines: list[str], place: str) -> dict[str, object]:
    if len(lines) != LINES or lines[0] or not all(lines[1:]) or lines[1].upper() not in LETTERS:
        raise ValueError(f"{place}: expected an empty line, a letter, context, question and four options")
    _, letter, context, question, *printed = lines
    return {
        "context": context,
        "question": question,
        "options": _by_letter(printed, place),
        "answer": LETTERS.index(letter.upper()),
    }


def _by_letter(printed: list[str], place: str) -> list[str]:
    """Two items have options without a letter: they stand where they belong, and so must the others there."""
    matches = [_OPTION.fullmatch(option) for option in printed]
    letters = [match[1] if match else LETTERS[place] for place, match in enumerate(matches)]
    if sorted(letters) != list(LETTERS):
        raise ValueError(f"{place}: expected options A to D, found {', '.join(letters)}")
    texts = [match[2] if match else option for match, option in zip(matches, printed, strict=True)]
    return [texts[letters.index(letter)] for letter in LETTERS]
