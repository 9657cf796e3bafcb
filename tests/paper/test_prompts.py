"""Appendix D. The placeholders are typed here a second time, from the paper."""

import re
from dataclasses import asdict, fields

import pytest

from reference.paper.prompts import (
    Prompts,
    compress_messages,
    diagnose_student_messages,
    expand_messages,
    fill,
    importance_messages,
    jumpiness_messages,
    localize_messages,
    next_step_messages,
    recycling_messages,
    repair_messages,
    replace_templates,
    solve_messages,
    student_messages,
)
from reference.records import AnswerKind, Diagnosis, Message, Problem

PROMPTS = Prompts()
PROBLEM = Problem(id="1", question="How many?", gold="15")

PLACEHOLDERS = {
    "importance_system": "",
    "importance_user": "question gold_answer full_cot cot_without_step step_to_score",
    "jumpiness_system": "",
    "jumpiness_user": "question prev_context curr_step",
    "recycling_system": "",
    "recycling_user": "question ground_truth student_response optional_reference_block",
    "recycling_reference": "reference_cot",
    "solve": "question",
    "expand": "question prev_context curr_step",
    "compress": "curr_step",
    "localize": "question prev_context curr_step",
    "student": "question",
    "student_letter": "question",
    "student_latex": "question",
    "next_step": "question prev_context",
    "diagnose_student": "question student_response",
    "repair": "question prefix first_error minimal_fix",
}


def test_every_template_has_its_placeholders_once_and_in_the_papers_order():
    found = {name: " ".join(re.findall(r"\{(.*?)\}", text)) for name, text in asdict(PROMPTS).items()}
    assert found == PLACEHOLDERS


@pytest.mark.parametrize("system, rules", [(PROMPTS.importance_system, 5), (PROMPTS.jumpiness_system, 4)])
def test_a_judge_has_all_rules_and_an_interpretation_of_each_score(system, rules):
    assert len(re.findall(r"^- ", system, re.MULTILINE)) == rules
    assert re.findall(r"^([0-9.]+): ", system, re.MULTILINE) == ["0", "0.25", "0.5", "0.75", "1"]
    assert "number alone" in system


@pytest.mark.parametrize("user", [PROMPTS.importance_user, PROMPTS.jumpiness_user])
def test_a_judge_is_reminded_of_the_five_scores(user):
    assert user.split(":")[-1].split() == ["0,", "0.25,", "0.5,", "0.75", "or", "1."]


def test_the_diagnosis_has_seven_keys_and_the_papers_limits():
    system = PROMPTS.recycling_system
    assert re.findall(r'^"(\w+)": ', system, re.MULTILINE) == [field.name for field in fields(Diagnosis)]
    assert re.findall(r"^(\d)\. ", system, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    for input_name in ("question", "ground_truth", "student_response", "reference_cot"):
        assert re.search(rf"^{input_name}: ", system, re.MULTILINE)
    for label in ("calculation error", "unit conversion error", "misread the question", "logical leap", "missing case"):
        assert f'"{label}"' in system
    for fact in ("word for word", "120 characters", "one or two sentences", "one sentence", "3 to 5 steps", "English"):
        assert fact in system
    for fact in ("#### <number>", "equals ground_truth", "no unit", "no currency", "no thousands", "no punctuation"):
        assert fact in system.replace("\n ", "")


@pytest.mark.parametrize("name", ["solve", "student"])
def test_a_whole_solution_is_asked_to_end_as_the_verifier_reads_it(name):
    assert "#### <number>" in asdict(PROMPTS)[name]


@pytest.mark.parametrize(
    "name, change", [("expand", "spell out"), ("compress", "Shorten"), ("localize", "easier to learn")]
)
def test_a_rewritten_step_is_changed_as_its_name_says_and_keeps_its_answer_line(name, change):
    template = asdict(PROMPTS)[name]
    assert change in template
    assert re.search(r"line that begins with\s+####", template)


def test_the_student_reads_at_most_twelve_words_beside_the_question():
    assert len(PROMPTS.student.replace("{question}", "").split()) <= 12


def test_no_eight_words_in_a_row_are_the_papers(paper_text):
    eights_of_paper = _eights(paper_text)
    assert len(eights_of_paper) > 5000
    for name, template in asdict(PROMPTS).items():
        assert not _eights(template) & eights_of_paper, name


def _eights(text):
    words = re.findall(r"[a-z0-9_]+(?:[.'’][a-z0-9_]+)*", text.lower())
    return {tuple(words[at : at + 8]) for at in range(len(words) - 7)}


def test_fill_leaves_other_braces_alone():
    values = {"question": r"Is \frac{1}{2} of {x} in {a, b}?"}
    assert fill(r"\boxed{1} {} {y} {question}", values) == r"\boxed{1} {} {y} Is \frac{1}{2} of {x} in {a, b}?"


def test_fill_substitutes_once():
    values = {"question": "<{gold_answer}>", "gold_answer": "<{question}>"}
    assert fill("{question} {gold_answer} {question}", values) == "<{gold_answer}> <{question}> <{gold_answer}>"


def test_fill_takes_a_backslash_in_a_value_literally():
    assert fill("{question}", {"question": r"\1 \g<0> \n"}) == r"\1 \g<0> \n"


def test_a_template_is_replaced_by_name_and_the_others_stay():
    new = replace_templates(PROMPTS, {"student": r"{question} \frac{1}{2}", "importance_system": "Judge."})
    assert new.student == r"{question} \frac{1}{2}"
    assert new.importance_system == "Judge."
    changed = {name for name, text in asdict(new).items() if text != asdict(PROMPTS)[name]}
    assert changed == {"student", "importance_system"}
    assert replace_templates(new, {"solve": "Solve. {question}"}).student == new.student
    assert PROMPTS == Prompts()


@pytest.mark.parametrize(
    "texts, sentence",
    [
        ({"studnet": "{question}"}, "there is no prompt named 'studnet'; the nearest name is 'student'"),
        ({"qqqq": "{question}"}, "there is no prompt named 'qqqq'; the nearest name is "),
        ({"compress": "Shorten."}, "the prompt 'compress' lacks {curr_step}; write it"),
        ({"localize": "{curr_step}"}, "the prompt 'localize' lacks {prev_context}, {question}; write it"),
        ({"compress": "{a} {b} {curr_step}"}, "'compress' has {a}, {b}, but its placeholders are {curr_step}; braces"),
        ({"next_step": "{prev_context} {question} {a}"}, "but its placeholders are {prev_context}, {question}; braces"),
        ({"expand": "{question} {curr_step}"}, "the prompt 'expand' lacks {prev_context}; write it"),
        ({"student": "{question} {Answer}"}, "'student' has {Answer}, but its placeholders are {question}; braces"),
        ({"solve": "{question} {gold_answer}"}, "'solve' has {gold_answer}, but its placeholders are {question}"),
        ({"importance_system": "{question}"}, "has {question}, but its placeholders are none; braces"),
    ],
)
def test_a_faulty_replacement_is_refused_in_one_sentence(texts, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        replace_templates(PROMPTS, texts)


def test_every_value_lands_in_its_own_place():
    """Templates of bare placeholders, so that two swapped values show."""
    bare = replace_templates(
        PROMPTS,
        {name: "|".join(f"{{{word}}}" for word in words.split()) for name, words in PLACEHOLDERS.items()},
    )
    user_turns = {
        "importance_user": importance_messages(bare, PROBLEM, "C", "C without s", "s"),
        "jumpiness_user": jumpiness_messages(bare, PROBLEM, "P", "s"),
        "recycling_user": recycling_messages(bare, PROBLEM, "o", "c"),
        "solve": solve_messages(bare, PROBLEM),
        "expand": expand_messages(bare, PROBLEM, "P", "s"),
        "compress": compress_messages(bare, "s"),
        "localize": localize_messages(bare, PROBLEM, "P", "s"),
        "student": student_messages(bare, PROBLEM),
        "next_step": next_step_messages(bare, PROBLEM, "P"),
        "diagnose_student": diagnose_student_messages(bare, PROBLEM, "o"),
        "repair": repair_messages(bare, PROBLEM, "p", "f", "h"),
    }
    assert {name: messages[-1] for name, messages in user_turns.items()} == {
        "importance_user": Message("user", "How many?|15|C|C without s|s"),
        "jumpiness_user": Message("user", "How many?|P|s"),
        "recycling_user": Message("user", "How many?|15|o|c"),
        "solve": Message("user", "How many?"),
        "expand": Message("user", "How many?|P|s"),
        "compress": Message("user", "s"),
        "localize": Message("user", "How many?|P|s"),
        "student": Message("user", "How many?"),
        "next_step": Message("user", "How many?|P"),
        "diagnose_student": Message("user", "How many?|o"),
        "repair": Message("user", "How many?|p|f|h"),
    }


def test_each_message_builder_fills_its_own_template():
    """Expand and Localize, or the two judges, have equal placeholders: only the instruction tells them apart."""
    alone = {
        PROMPTS.solve: solve_messages(PROMPTS, PROBLEM),
        PROMPTS.expand: expand_messages(PROMPTS, PROBLEM, "", ""),
        PROMPTS.compress: compress_messages(PROMPTS, ""),
        PROMPTS.localize: localize_messages(PROMPTS, PROBLEM, "", ""),
        PROMPTS.student: student_messages(PROMPTS, PROBLEM),
        PROMPTS.next_step: next_step_messages(PROMPTS, PROBLEM, ""),
        PROMPTS.diagnose_student: diagnose_student_messages(PROMPTS, PROBLEM, ""),
        PROMPTS.repair: repair_messages(PROMPTS, PROBLEM, "", "", ""),
    }
    for template, messages in alone.items():
        assert messages == (Message("user", _emptied(template)),)
    judged = {
        (PROMPTS.importance_system, PROMPTS.importance_user): importance_messages(PROMPTS, PROBLEM, "", "", ""),
        (PROMPTS.jumpiness_system, PROMPTS.jumpiness_user): jumpiness_messages(PROMPTS, PROBLEM, "", ""),
        (PROMPTS.recycling_system, PROMPTS.recycling_user): recycling_messages(PROMPTS, PROBLEM, ""),
    }
    for (system, user), messages in judged.items():
        assert messages == (Message("system", system), Message("user", _emptied(user)))


def _emptied(template):
    """The template with this file's question and gold answer, and nothing else."""
    text = template.replace("{question}", "How many?").replace("{gold_answer}", "15").replace("{ground_truth}", "15")
    return re.sub(r"\{\w+\}", "", text)


def test_the_reference_block_appears_only_with_a_reference():
    without = recycling_messages(PROMPTS, PROBLEM, "I say 14.")[1].content
    assert "[student_response]\nI say 14.\n\nReply" in without
    assert "reference_cot" not in without
    with_reference = recycling_messages(PROMPTS, PROBLEM, "I say 14.", r"{question} = \frac{1}{2}")[1].content
    assert "I say 14.\n\n[reference_cot]\n{question} = \\frac{1}{2}\n\nReply" in with_reference


def test_the_student_prompt_is_the_question_and_a_short_instruction():
    assert student_messages(PROMPTS, PROBLEM) == (
        Message("user", "How many?\nThink step by step. End with #### <number>"),
    )


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        (AnswerKind.NUMBER, "#### <number>"),
        (AnswerKind.ROUNDED, "#### <number>"),
        (AnswerKind.LETTER, "#### <letter>"),
        (AnswerKind.LATEX, "#### <answer>, the answer in LaTeX"),
    ],
)
def test_the_student_is_asked_for_the_kind_of_answer_that_is_judged(kind, ends):
    (message,) = student_messages(PROMPTS, Problem("p", "Which?", "B", kind=kind))
    assert message.content.startswith("Which?\n") and message.content.endswith(ends)


def test_a_raw_trace_is_asked_for_without_a_word_of_the_student():
    """Ambiguity A23: the Bridge makes a trace learnable, the prompt for it must not. Expand and Localize are told."""
    (raw,) = solve_messages(Prompts(), PROBLEM)
    rewriting = [messages(Prompts(), PROBLEM, "P", "s")[0] for messages in (expand_messages, localize_messages)]
    for word in ("student", "learn", "small", "every calculation", "one idea"):
        assert word not in raw.content.lower()
    assert all("small language model is to learn" in message.content for message in rewriting)
