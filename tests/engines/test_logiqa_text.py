"""LogiQA's own text file: options under their printed letters, wherever they stand."""

import json

import pytest

from reference.engines.logiqa_text import read_logiqa_text

ITEM = """
{letter}
A context.
Which is it?
{options}
"""


def item(options, letter="b"):
    return ITEM.format(letter=letter, options="\n".join(options))


@pytest.mark.parametrize(
    ("printed", "options"),
    [
        (["A.w", "B.x", "C.y", "D.z"], ["w", "x", "y", "z"]),
        (["A.w", "C.y", "B.x", "D.z"], ["w", "x", "y", "z"]),  # in 19 items
        (["A w", "B x", "C y", "D z"], ["w", "x", "y", "z"]),
        (["A? w", "B? x", "C.y", "D.z"], ["w", "x", "y", "z"]),
        (["A.A.", "B.B.", "C.C.", "D.Ding."], ["A.", "B.", "C.", "Ding."]),
        (["A.20 men", "B.3.5", "C. 4", "D.-5"], ["20 men", "3.5", "4", "-5"]),
        (["When it is so.", "B.x", "C.y", "When not."], ["When it is so.", "x", "y", "When not."]),
        (["A.w", "Storehouse B.3", "C.y", "D.z"], ["w", "Storehouse B.3", "y", "z"]),
    ],
)
def test_options_stand_under_their_letters(printed, options):
    (record,) = read_logiqa_text(item(printed), "file")
    assert record == {"context": "A context.", "question": "Which is it?", "options": options, "answer": 1}


def test_items_follow_one_another_and_lines_may_end_as_on_windows():
    text = item(["A.w", "B.x", "C.y", "D.z"], "a") + item(["A.1", "B.2", "C.3", "D.4"], "d") + "\n"
    for read in (read_logiqa_text(text, "file"), read_logiqa_text(text.replace("\n", "\r\n"), "file")):
        assert [record["answer"] for record in read] == [0, 3]
        assert [record["options"][0] for record in read] == ["w", "1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "file, line 1: expected an empty line, a letter"),
        (item(["A.w", "B.x", "C.y", "D.z"], "e"), "file, line 1: expected an empty line, a letter"),
        (item(["A.w", "B.x", "C.y", "D.z"]) + item(["A.w", "B.x", "C.y"]), "file, line 9: expected an empty line"),
        (item(["A.w", "B.x", "B.y", "D.z"]), "file, line 1: expected options A to D, found A, B, B, D"),
        (item(["B.w", "no letter", "C.y", "D.z"]), "found B, B, C, D"),
    ],
)
def test_what_is_no_item_is_named_with_its_line(text, says):
    with pytest.raises(ValueError, match=says):
        read_logiqa_text(text, "file")


def test_the_real_items_come_out_of_a_file_printed_as_the_source_prints_them(data_dir):
    lines = (data_dir / "logiqa/test.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    text = "".join(
        item([f"{at}.{r['options']['ABCD'.index(at)]}" for at in r["printed_order"]], r["answer_letter"].lower())
        for r in records
    )
    read = read_logiqa_text(text, "file")
    assert [r["options"] for r in read] == [[option.strip() for option in r["options"]] for r in records]
    assert [r["answer"] for r in read] == [r["answer"] for r in records]
