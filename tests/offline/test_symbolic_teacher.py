"""The symbolic teacher, by hand on small problems and as properties over GSM8K and the generated problems."""

import json
import os
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from reference.interfaces import UnusableAnswer
from reference.offline.arithmetic import (
    equation_text,
    find_equations,
    format_number,
    holds,
    written_numbers,
)
from reference.offline.solution_program import Source, read_program, results
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.offline.word_problems import generate
from reference.paper.answers import extract_answer, is_correct
from reference.paper.bridge import (
    apply_action,
    choose_action,
    importance_score,
    jumpiness_score,
    processed_trace,
    split_steps,
)
from reference.paper.recycling import (
    DIAGNOSIS_KEYS,
    MAX_EXCERPT,
    correct_prefix,
    parse_diagnosis,
)
from reference.records import Action, Problem, StepScores, Thresholds

NUM_SAMPLED = 120

TEACHER = SymbolicTeacher(seed=0)

NATALIA = Problem(
    "natalia",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?",
    "72",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72",
)
BETTY = Problem(
    "betty",
    "Betty is saving money for a new wallet which costs $100. Betty has only half of the money she needs. Her parents "
    "decided to give her $15 for that purpose, and her grandparents twice as much as her parents. How much more money "
    "does Betty need to buy the wallet?",
    "5",
    "In the beginning, Betty has only 100 / 2 = $<<100/2=50>>50.\n"
    "Betty's grandparents gave her 15 * 2 = $<<15*2=30>>30.\n"
    "This means, Betty needs 100 - 50 - 30 - 15 = $<<100-50-30-15=5>>5 more.\n#### 5",
)
MAY = "Step 1: Natalia sold 48/2 = 24 clips in May."
BOTH = "Step 2: Natalia sold 48+24 = 72 clips altogether in April and May."
NEEDS = "Step 3: This means, Betty needs 100 - 50 - 30 - 15 = $5 more."


def gsm8k_problems():
    if "GSM8K_DIR" not in os.environ:
        pytest.skip("no real data: set GSM8K_DIR to a folder with GSM8K's train.jsonl")
    problems = []
    with Path(os.environ["GSM8K_DIR"], "train.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            record = json.loads(line)
            gold = record["answer"].rsplit("####", 1)[1].strip().replace(",", "")
            problems.append(Problem(f"gsm8k-{number}", record["question"], gold, record["answer"]))
    return problems


def sampled(source):
    if source == "gsm8k":
        return Random(7).sample(gsm8k_problems(), NUM_SAMPLED)
    return generate(source, NUM_SAMPLED // 2, seed=3)


def steps_with_context(problem, rewrite=None):
    """Each step of a trace behind the steps before it, as they are or rewritten by a verb."""
    context = ""
    for step in split_steps(TEACHER.solve(problem)):
        yield context.strip(), step
        context += step if rewrite is None else f"{rewrite(problem, context.strip(), step)}\n\n"


def diagnosis(problem, response):
    return parse_diagnosis(TEACHER.diagnose(problem, response), problem.gold)


def all_numbers(text):
    return written_numbers(text) | results(find_equations(text))


def test_where_the_operands_of_a_solution_come_from():
    first, second = read_program(NATALIA).lines
    assert [(operand.number.text, operand.source) for operand in first.operands] == [
        ("48", Source.QUESTION),
        ("2", Source.UNPREPARED),
    ]
    assert [operand.source for operand in second.operands] == [Source.QUESTION, Source.RESULT]
    assert second.text == "Natalia sold 48+24 = 72 clips altogether in April and May."


def test_a_line_without_a_readable_annotation_is_read_from_its_text():
    solution = "It is 3 + 4 = <<3 plus 4>>7.\nThen 7 * 2 = 14.\n#### 14"
    lines = read_program(Problem("odd", "3 and 4?", "14", solution)).lines
    assert [equation_text(line.equations[0]) for line in lines] == ["3 + 4 = 7", "7 * 2 = 14"]


@pytest.mark.parametrize(
    ("gold", "solution", "message"),
    [
        ("72", "", "does not end in"),
        ("72", "Natalia sold 72 clips.", "does not end in"),
        ("72", "#### 72", "without a line of reasoning"),
        ("72", "48 + 24 = 73\n#### 73", "not in '72'"),
        ("many", "48 + 24 = 72\n#### 72", "not in 'many'"),
    ],
)
def test_a_solution_that_cannot_be_read_is_refused_in_a_sentence(gold, solution, message):
    problem = Problem("p", NATALIA.question, gold, solution)
    with pytest.raises(UnusableAnswer, match=message):
        TEACHER.solve(problem)


def test_every_gsm8k_solution_can_be_read_and_solved():
    problems = gsm8k_problems()
    assert len(problems) == 7473
    for problem in problems:
        program, trace = read_program(problem), TEACHER.solve(problem)
        assert trace.rsplit("\n", 1)[1] == f"#### {program.gold}"
        assert extract_answer(trace) == program.gold and is_correct(trace, problem.gold)
        assert "<<" not in trace


def test_a_trace_says_what_is_asked_then_the_steps_then_perhaps_a_check():
    seen = set()
    for attempt in range(30):
        asked, *rest = TEACHER.solve(NATALIA, attempt).split("\n\n")
        assert asked.endswith(": How many clips did Natalia sell altogether in April and May?")
        assert rest[:2] == [MAY, BOTH] and rest[-1] == "#### 72"
        seen.add(tuple(rest[2:-1]))
    assert seen == {(), ("Step 3: Check: 72 - 24 = 48, so 72 is right.",), ("Step 3: Check: The answer is 72.",)}


def test_a_title_does_not_end_the_sentence_that_asks():
    problem = Problem("p", "A ticket costs $2. How much did Mr. Benson pay in all?", "2", "It is 2.\n#### 2")
    assert TEACHER.solve(problem).split("\n")[0].endswith(": How much did Mr. Benson pay in all?")


def test_two_thirds_of_the_traces_have_a_check_and_the_seed_decides_which():
    problems = generate("train", 300, seed=1)
    with_check = [": Check: " in TEACHER.solve(problem) for problem in problems]
    assert 0.6 < sum(with_check) / len(with_check) < 0.73
    again = SymbolicTeacher(seed=0)
    assert [TEACHER.solve(problem) for problem in problems] == [again.solve(problem) for problem in problems]
    assert with_check != [": Check: " in SymbolicTeacher(seed=1).solve(problem) for problem in problems]


@pytest.mark.parametrize("source", ["gsm8k", "train", "ood_operations", "ood_style", "ood_logic"])
def test_the_units_of_a_trace_are_what_is_asked_the_lines_and_the_check(source):
    for problem in sampled(source):
        trace = TEACHER.solve(problem)
        num_expected = 1 + len(read_program(problem).lines) + (": Check: " in trace)
        assert len(split_steps(trace)) == num_expected


def importances(problem, trace):
    steps = split_steps(trace)
    return [importance_score(problem, trace, steps, index, TEACHER) for index in range(len(steps))]


def test_importance_of_the_steps_of_two_traces():
    asked = "We want to know: How many clips?\n\n"
    assert importances(NATALIA, f"{asked}{MAY}\n\n{BOTH}\n\n#### 72") == [0.0, 1.0, 1.0]
    check = "Step 3: Check: 72 - 24 = 48, so 72 is right."
    assert importances(NATALIA, f"{asked}{MAY}\n\n{BOTH}\n\n{check}\n\n#### 72") == [0.0, 1.0, 0.75, 0.25]


def test_a_result_that_the_question_has_too_is_less_important():
    problem = Problem("p", "Tom has 3 bags of 4 and 12 more.", "24", "3*4 = 12\n12+12 = 24\n#### 24")
    assert importances(problem, "Step 1: 3*4 = 12\n\nStep 2: 12+12 = 24\n\n#### 24") == [0.75, 1.0]


def test_a_result_that_nothing_needs_is_half_important_and_a_repetition_a_quarter():
    useless = "Step 2: In a week she sells 48 * 7 = 336 clips."
    again = "Step 3: As before, 48/2 = 24 and April had 48."
    last = "Step 4: 48+24 = 72."
    assert importances(NATALIA, f"{MAY}\n\n{useless}\n\n{last}\n\n#### 72") == [1.0, 0.5, 1.0]
    assert importances(NATALIA, f"{MAY}\n\n{useless}\n\n{useless[:5]}3{useless[6:]}\n\n{last}")[1:3] == [0.5, 0.25]
    restated = "Step 2: So there are 48 clips in April."
    assert importances(NATALIA, f"{MAY}\n\n{restated}\n\n{last}\n\n#### 72") == [1.0, 0.25, 1.0]
    assert importances(NATALIA, f"{MAY}\n\n{again}\n\n{last}\n\n#### 72")[0] == 0.75


def test_algebra_and_lines_without_numbers_are_not_thrown_away():
    solution = "Let x be the price.\n5*x = x + 24\n4*x = 24\nx = 6\n#### 6"
    problem = Problem("p", "Five pens cost 24 dollars more than one.", "6", solution)
    assert importances(problem, TEACHER.solve(problem))[1:5] == [0.5, 0.75, 0.5, 1.0]


@pytest.mark.parametrize(
    ("problem", "context", "step", "expected"),
    [
        (NATALIA, "", MAY, 0.0),
        (NATALIA, "   ", MAY, 0.0),
        (NATALIA, "We begin.", MAY, 0.25),  # half does not write 2
        (NATALIA, MAY, BOTH, 0.0),
        (NATALIA, "We begin.", BOTH, 0.25),  # 24 stands nowhere
        (BETTY, "She has 50 and 30.", NEEDS, 1.0),  # two operations inside
        (BETTY, "She has 50.", "Step 3: She needs 100 - 50 - 15 = $35.", 0.5),
        (BETTY, "We begin.", "Step 3: She needs 100 - 50 - 15 = $35.", 0.75),
        (BETTY, "Step 2: We begin.", "She has 15 * 2 = 30.", 0.25),  # the number of a step is no 2
        (BETTY, "We begin.", "She has 10 + 15 - 20 * 7 = 1.", 1.0),
        (BETTY, "We begin.", "She has 100 * 15 + 15 * 15 = 1500 + 225 = 1725.", 0.0),  # a chain writes its values
    ],
)
def test_jumpiness(problem, context, step, expected):
    assert TEACHER.jumpiness(problem, context, step) == expected


def test_a_number_does_not_come_from_a_later_result():
    problem = Problem("p", "A box is 5 cm wide.", "10", "5*2 = 10\n10/5 = 2\n5*2 = 10\n#### 10")
    assert "The question does not give 2." in TEACHER.expand(problem, "We begin.", "Step 1: 5*2 = 10")


def test_a_line_that_hides_its_calculation_jumps_over_all_of_it():
    problem = Problem("p", "Three boxes of 5 cost?", "15", "That is $<<3*5=15>>15.\n#### 15")
    assert TEACHER.jumpiness(problem, "We begin.", "Step 1: That is $15.") == 0.5
    assert TEACHER.expand(problem, "We begin.", "Step 1: That is $15.") == "Step 1: 3 * 5 = 15. That is $15."


@pytest.mark.parametrize(
    ("problem", "context", "step", "expected"),
    [
        (NATALIA, "We begin.", MAY, "Step 1: Half means dividing by 2. Natalia sold 48/2 = 24 clips in May."),
        (
            NATALIA,
            MAY,
            "Step 2: It is 48+24 = 72.\n\n#### 72",
            "Step 2: The 48 is in the question. The 24 comes from 48 / 2 = 24. It is 48+24 = 72.\n\n#### 72",
        ),
        (
            BETTY,
            "She has 50 and 30.",
            NEEDS,
            "Step 3: First 100 - 50 = 50. Then 50 - 30 = 20. This means, Betty needs 20 - 15 = $5 more.",
        ),
        (
            BETTY,
            "We begin.",
            "Step 2: She gets 15 * 2 + 8 = 38, so 100 - 38 - 15 = 47 are left.",
            "Step 2: Twice means times 2. The question does not give 8. First 15 * 2 = 30. "
            "She gets 30 + 8 = 38, so 100 - 38 = 62, 62 - 15 = 47 are left.",
        ),
        (BETTY, "We begin.", "Step 2: She is sad.", "Step 2: She is sad."),
        (  # a chain explains itself
            BETTY,
            "We begin.",
            "Step 2: It is 100 + 15 * 100 = 100 + 1500 = 1600.",
            "Step 2: The 100 is in the question. The 15 is in the question. It is 100 + 15 * 100 = 100 + 1500 = 1600.",
        ),
        (  # a number that two equations share belongs to both
            BETTY,
            "We begin.",
            "Step 2: It is 3 * 5 = 15 * 15 - 100 = 125.",
            "Step 2: The question does not give 3. The 5 comes from 100 - 50 - 30 - 15 = 5. "
            "It is 3 * 5 = 15 * 15 - 100 = 125.",
        ),
    ],
)
def test_expand(problem, context, step, expected):
    assert TEACHER.expand(problem, context, step) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (MAY, "48 / 2 = 24."),
        (f"{BOTH}\n\n#### 72", "48 + 24 = 72.\n\n#### 72"),
        ("Step 1: 3+4=7", "3 + 4 = 7."),
        ("3+4=7", "3+4=7"),
        ("We want to know: How many clips? It is hard.", "How many clips?"),
        ("Step 3: Check: The answer is 72.\n\n#### 72", "The answer is 72.\n\n#### 72"),
        ("#### 72", "#### 72"),
    ],
)
def test_compress(step, expected):
    assert TEACHER.compress(step) == expected


@pytest.mark.parametrize(
    ("problem", "context", "step", "expected"),
    [
        (NATALIA, "", MAY, "Step 1: We know 48 and 2. 48 / 2 = 24. Natalia sold 24 clips in May."),
        (
            NATALIA,
            MAY,
            f"{BOTH}\n\n#### 72",
            "Step 2: We know 48. We found 24. 48 + 20 = 68. 68 + 4 = 72. "
            "Natalia sold 72 clips altogether in April and May.\n\n#### 72",
        ),
        (
            NATALIA,
            "",
            "Step 1: After some time she has 52 - 37 = 15 clips.",
            "Step 1: We know 52 and 37. 52 - 30 = 22. 22 - 7 = 15. After some time she has 15 clips.",
        ),
        (
            NATALIA,
            "",
            "Step 1: With all of these boxes she has 3 * 24 = 72 clips.",
            "Step 1: We know 3 and 24. 20 * 3 = 60. 4 * 3 = 12. 60 + 12 = 72. "
            "With all of these boxes she has 72 clips.",
        ),
        (
            NATALIA,
            "",
            "Step 1: After some time she has 24 + 31 = 55 clips.",
            "Step 1: We know 24 and 31. 24 + 31 = 55. After some time she has 55 clips.",
        ),
        (NATALIA, "", "Step 1: 30/6=5", "Step 1: 30 / 6 = 5."),
        (NATALIA, "", "Step 1: Then x + 48 = 60.", "Step 1: We know 48. Then x + 48 = 60."),
    ],
)
def test_localize(problem, context, step, expected):
    assert TEACHER.localize(problem, context, step) == expected


@pytest.mark.parametrize("source", ["gsm8k", "train", "ood_operations"])
def test_rewritten_steps_keep_their_result_and_say_nothing_false(source):
    num_steps = num_long = 0
    for problem in sampled(source):
        for context, step in steps_with_context(problem):
            equations = find_equations(step)
            if not all(map(holds, equations)):
                continue  # a few lines of GSM8K are wrong
            num_steps += 1
            expanded, localized = TEACHER.expand(problem, context, step), TEACHER.localize(problem, context, step)
            compressed = TEACHER.compress(step)
            num_long += len(localized) > 2 * len(step.strip())
            assert len(compressed) <= len(step.strip())
            for text in (expanded, compressed, localized):
                assert all(map(holds, find_equations(text))), (step, text)
                assert results(equations[-1:]) <= all_numbers(text), (step, text)
                assert extract_answer(text) == extract_answer(step)
    assert num_steps > NUM_SAMPLED
    assert num_long <= 0.005 * num_steps


@pytest.mark.parametrize("source", ["train", "ood_operations"])
def test_an_expanded_step_does_not_jump(source):
    num_jumpy = 0
    for problem in sampled(source):
        for context, step in steps_with_context(problem):
            if TEACHER.jumpiness(problem, context, step) > 0.5:
                num_jumpy += 1
                assert TEACHER.jumpiness(problem, context, TEACHER.expand(problem, context, step)) <= 0.5
    assert num_jumpy > 0


def test_all_five_actions_are_reached_and_every_bridged_trace_is_whole():
    thresholds = Thresholds(0.5, 0.5, 1.0)
    counts = Counter()
    for problem in sampled("train"):
        trace = TEACHER.solve(problem)
        steps, processed = split_steps(trace), []
        for index, step in enumerate(steps):
            context = "".join(processed).strip()
            scores = StepScores(
                importance_score(problem, trace, steps, index, TEACHER),
                jumpiness_score(problem, context, step, TEACHER),
                difficulty=2.0 * (index % 2),
            )
            action, _ = choose_action(scores, thresholds)
            counts[action] += 1
            rewritten = apply_action(action, problem, context, step, TEACHER)
            processed += [] if rewritten is None else [rewritten]
        assert is_correct(processed_trace(processed, problem.gold), problem.gold)
    assert set(counts) == set(Action)


@pytest.mark.parametrize(
    ("response", "error_type", "first_error", "why", "next_step"),
    [
        (
            f"{MAY}\n\nStep 2: She sold 48 + 24 = 62 clips.\n\n#### 62",
            "calculation error",
            "Step 2: She sold 48 + 24 = 62 clips.",
            "48 + 24 is 72, not 62.",
            BOTH[8:],
        ),
        (
            "First we look. In May it is 48 * 2 = 96 clips. So 48 + 96 = 144.\n#### 144",
            "misread the question",
            "In May it is 48 * 2 = 96 clips.",
            "48 * 2 = 96 is true, but the question leads to 48 / 2 = 24.",
            MAY[8:],
        ),
        (
            f"{MAY}\n\nStep 2: She sold 24 + 31 = 55 clips.\n\n#### 55",
            "unsupported quantity",
            "Step 2: She sold 24 + 31 = 55 clips.",
            "The number 31 is not in the question and is no earlier result.",
            BOTH[8:],
        ),
        ("48 + 24 = 62.", "calculation error", "48 + 24 = 62.", "48 + 24 is 72, not 62.", BOTH[8:]),
        (f"{MAY}\n\n#### 24", "missing step", "#### 24", "The work ends before this step: 48 + 24 = 72.", BOTH[8:]),
        (MAY, "missing step", MAY, "The work ends before this step: 48 + 24 = 72.", BOTH[8:]),
        (
            f"{MAY}\n\n{BOTH}\n\n#### 27",
            "wrong final answer",
            "#### 27",
            "The work leads to 72, but the answer line says 27.",
            "#### 72",
        ),
        (
            f"{MAY}\n{BOTH}",
            "missing step",
            BOTH,
            "The work finds 72, but it does not end in an answer line.",
            "#### 72",
        ),
        ("I guess.\n#### 50", "no reasoning", "I guess.", "No calculation leads to the answer 50.", MAY[8:]),
        (
            "Step 1: 48 / 0 = 24",
            "calculation error",
            "Step 1: 48 / 0 = 24",
            "48 / 0 is not a number, not 24.",
            MAY[8:],
        ),
        (
            "48 / 2 = 24. 48 + 20 = 68. 68 + 4 = 73.\n#### 73",
            "calculation error",
            "68 + 4 = 73.",
            "68 + 4 is 72, not 73.",
            BOTH[8:],
        ),
    ],
)
def test_diagnosis_of_a_wrong_response(response, error_type, first_error, why, next_step):
    found = diagnosis(NATALIA, response)
    assert (found.error_type, found.first_error, found.why_wrong) == (error_type, first_error, why)
    assert found.correct_next_step == next_step
    assert "\n" not in found.minimal_fix


def test_a_long_error_is_cut_to_an_excerpt_that_shows_the_equation():
    response = f"{MAY} {'Then she goes on and on ' * 20} until 48 + 24 = 62 clips are sold {'and so on ' * 30}."
    found = diagnosis(NATALIA, response)
    assert len(found.first_error) <= MAX_EXCERPT and "48 + 24 = 62" in found.first_error
    assert correct_prefix(response, found.first_error).startswith(MAY)


@pytest.mark.parametrize("response", ["", "  \n\t "])
def test_a_response_without_text_is_refused(response):
    with pytest.raises(UnusableAnswer, match="no text"):
        TEACHER.diagnose(NATALIA, response)


def test_a_right_response_has_no_error():
    with pytest.raises(UnusableAnswer, match="right answer"):
        TEACHER.diagnose(NATALIA, f"{MAY}\n{BOTH}\n#### 72")


@pytest.mark.parametrize("source", ["gsm8k", "train", "ood_operations"])
def test_the_diagnosis_finds_the_one_number_that_was_changed(source):
    rng = Random(11)
    num_found = 0
    for problem in sampled(source):
        trace = TEACHER.solve(problem)
        equations = find_equations(trace)
        if not equations:
            continue
        wrong = equations[int(rng.random() * len(equations))]
        number = format_number(wrong.result + 1)
        response = f"{trace[: wrong.result_start]}{number}{trace[wrong.end :]}"
        line_start = trace.rfind("\n", 0, wrong.start) + 1
        line = response[line_start:].split("\n", 1)[0]
        found = diagnosis(problem, response)
        assert found.error_type == "calculation error"
        assert found.first_error in line and trace[wrong.start : wrong.result_start] + number in found.first_error
        num_found += 1
    assert num_found > NUM_SAMPLED / 3


@pytest.mark.parametrize("source", ["train", "ood_operations", "ood_style", "ood_logic"])
@pytest.mark.parametrize("verb", ["keep", "expand", "localize"])
def test_the_teacher_finds_no_error_in_its_own_work(source, verb):
    verbs = {"keep": None, "expand": TEACHER.expand, "localize": TEACHER.localize}
    for problem in sampled(source):
        *_, (context, last) = steps_with_context(problem, verbs[verb])
        with pytest.raises(UnusableAnswer, match="no error was found"):
            TEACHER.diagnose(problem, f"{context}\n\n{last}")


@pytest.mark.parametrize("source", ["gsm8k", "train", "ood_operations", "ood_style", "ood_logic"])
def test_a_diagnosis_has_seven_fields_and_a_short_reasoning(source):
    for problem in sampled(source):
        response = "It must be so.\n#### 123456789"
        values = json.loads(TEACHER.diagnose(problem, response))
        assert tuple(values) == DIAGNOSIS_KEYS
        assert values["first_error"] in response
        lines = values["short_correct_reasoning"].split("\n")
        assert 3 <= len(lines) - 1 and len(lines) <= 5
        assert lines[-1] == f"#### {problem.gold}"
        assert Fraction(problem.gold) == Fraction(lines[-1][5:])
        assert "\n" not in values["correct_next_step"]


def test_short_reasoning_splits_short_solutions_and_joins_long_ones():
    one_line = Problem("p", "Tom has 9 - 2. How many?", "4", "Tom has 9-2-3 = <<9-2-3=4>>4.\n#### 4")
    assert diagnosis(one_line, "no idea").short_correct_reasoning.split("\n") == [
        "How many?",
        "First 9 - 2 = 7.",
        "Tom has 7 - 3 = 4.",
        "#### 4",
    ]
    lines = "".join(f"{k}+1 = <<{k}+1={k + 1}>>{k + 1}\n" for k in range(1, 7))
    assert diagnosis(Problem("p", "1 more?", "7", f"{lines}#### 7"), "no idea").short_correct_reasoning.split("\n") == [
        "1+1 = 2.",
        "2+1 = 3. 3+1 = 4.",
        "4+1 = 5.",
        "5+1 = 6. 6+1 = 7.",
        "#### 7",
    ]


@pytest.mark.parametrize(
    "response",
    [
        "\x00\xff\ufffd",
        "(" * 9_000,
        "1=" * 5_000,
        "1+1=" * 2_500,
        "5/0=3 5/(1-1)=2",
        "7" * 400 + " + " + "8" * 400 + " = 9",
        "blah " * 2_000,
        "48 / 2 = 24. " * 700,
        " " * 30_000 + "word",
        "####" * 3_000,
        "#### 1e9",
        "\u0663 + \u0664 = \u0667",
    ],
)
def test_garbage_is_diagnosed_in_a_moment(response):
    begin = time.perf_counter()
    found = diagnosis(NATALIA, response)
    assert found.first_error.strip() and len(found.first_error) <= MAX_EXCERPT
    assert time.perf_counter() - begin < 3


def test_random_characters_never_break_a_verb():
    rng = Random(5)
    alphabet = "0123456789+-*/=()%$.,x \n#ab\u00d7\u2212\ufffd"
    for _ in range(60):
        text = "".join(alphabet[int(rng.random() * len(alphabet))] for _ in range(400))
        diagnosis(NATALIA, text)
        assert TEACHER.compress(text) and TEACHER.expand(NATALIA, "So.", text) and TEACHER.localize(NATALIA, "", text)
        assert TEACHER.jumpiness(NATALIA, "So.", text) in (0, 0.25, 0.5, 0.75, 1)
        assert TEACHER.importance(NATALIA, text, "", text) in (0, 0.25, 0.5, 0.75, 1)
