"""Section 3.3 and Appendix C.2: Eqs. 14-20 and 29-34."""

import json
import random
import time
from dataclasses import asdict, replace

import pytest

from reference.interfaces import UnusableAnswer
from reference.paper import verl
from reference.paper.prompts import (
    Prompts,
    diagnose_student_messages,
    repair_messages,
    student_messages,
)
from reference.paper.recycling import (
    correct_prefix,
    diagnose,
    diagnostic_example,
    format_score,
    has_repair,
    incorrect_responses,
    length_score,
    locate_excerpt,
    near_miss_score,
    new_trace_example,
    next_sft_set,
    parse_diagnosis,
    recycled_set,
    repair_example,
    select_near_miss,
    split_by_reward,
    step_score,
    validate_diagnosis,
)
from reference.paper.reported import LLAMA, QWEN, TABLE_9_STEPS, TABLE_9_TOKENS
from reference.records import (
    Completion,
    Diagnosis,
    ExampleKind,
    Message,
    Problem,
    RolloutGroup,
    SFTExample,
)

PROMPTS = Prompts()
QWEN_TAUS = {"tau_length": TABLE_9_TOKENS[QWEN].mean, "tau_steps": TABLE_9_STEPS[QWEN].mean}


def group(name, rewards):
    responses = tuple(Completion((index,), f"{name} {index}", True) for index in range(len(rewards)))
    return RolloutGroup(name, responses, tuple(map(float, rewards)))


# Eqs. 14, 15 and 29


def test_one_correct_response_is_enough_for_consolidation():
    none, one = group("a", [0] * 8), group("b", [0] * 7 + [1])
    some, every = group("c", [1, 0]), group("d", [1] * 8)
    assert split_by_reward([none, one, some, every]) == ([one, some, every], [none])


def test_every_problem_is_in_exactly_one_of_the_two_sets():
    draw = random.Random(0)
    groups = [group(str(number), [draw.random() < 0.1 for _ in range(8)]) for number in range(200)]
    consolidation, failed = split_by_reward(groups)
    for one in groups:
        total = 0.0
        for r in one.rewards:
            total += r
        assert (one in consolidation) == (total > 0)
        assert (one in failed) == (total == 0)
    assert consolidation and failed
    assert len(consolidation) + len(failed) == 200


def test_a_group_without_rewards_is_refused():
    with pytest.raises(ValueError, match="problem a has no rewards"):
        split_by_reward([group("a", [])])


def test_the_incorrect_responses_in_sample_order():
    one = group("a", [0, 1, 0, 0, 1])
    assert [response.text for response in incorrect_responses(one)] == ["a 0", "a 2", "a 3"]
    assert incorrect_responses(group("b", [1, 1])) == []
    with pytest.raises(ValueError, match="zip"):
        incorrect_responses(replace(one, rewards=(0.0, 1.0)))


# Eqs. 30 to 34


@pytest.mark.parametrize(
    "tokens, steps, has_answer, score",
    [
        (121.49, 3.68, True, 2.0),  # half of Qwen's tau_l and tau_s: 0.5 + 0.5 + 1
        (121.49, 3.68, False, 1.0),
        (242.98, 7.36, True, 3.0),
        (1024, 153, True, 3.0),  # more than the teacher's mean earns no more
        (1024, 0, False, 1.0),
        (0, 153, False, 1.0),
        (0, 0, True, 1.0),
        (0, 0, False, 0.0),
    ],
)
def test_near_miss_scores_by_hand(tokens, steps, has_answer, score):
    assert near_miss_score(tokens, steps, has_answer, **QWEN_TAUS) == pytest.approx(score, rel=1e-12)


def test_each_part_of_the_score():
    assert length_score(100, 400) == 0.25
    assert length_score(500, 400) == 1.0
    assert step_score(3, 4) == 0.75
    assert step_score(5, 4) == 1.0
    assert (format_score(True), format_score(False)) == (1.0, 0.0)


def test_near_miss_score_agrees_with_a_loop():
    draw = random.Random(1)
    for _ in range(300):
        tokens, steps, has_answer = draw.randrange(1025), draw.randrange(30), draw.random() < 0.5
        tau_length, tau_steps = draw.uniform(1, 600), draw.uniform(1, 20)
        cuts = sorted([draw.uniform(0, 3), draw.uniform(0, 3)])
        weights = (cuts[0], cuts[1] - cuts[0], 3 - cuts[1])
        expected = 0.0
        for weight, part, whole in zip(
            weights, (tokens, steps, float(has_answer)), (tau_length, tau_steps, 1.0), strict=True
        ):
            expected += weight * (part / whole if part < whole else 1.0)
        found = near_miss_score(tokens, steps, has_answer, tau_length=tau_length, tau_steps=tau_steps, weights=weights)
        assert found == pytest.approx(expected, rel=1e-12)


def test_each_weight_belongs_to_its_part():
    half = {"tau_length": 200.0, "tau_steps": 10.0}
    assert near_miss_score(100, 0, False, **half, weights=(3, 0, 0)) == 1.5
    assert near_miss_score(0, 5, False, **half, weights=(0, 3, 0)) == 1.5
    assert near_miss_score(0, 0, True, **half, weights=(0, 0, 3)) == 3.0


@pytest.mark.parametrize("weights", [(1, 1, 0.9), (0, 0, 0), (-1, 2, 2), (2, 2, -1)])
def test_weights_are_not_negative_and_sum_to_3(weights):
    with pytest.raises(ValueError, match="weights must be >= 0 and sum to 3"):
        near_miss_score(1, 1, True, **QWEN_TAUS, weights=weights)


@pytest.mark.parametrize("taus", [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_thresholds_are_positive(taus):
    with pytest.raises(ValueError, match="must be positive"):
        near_miss_score(1, 1, True, tau_length=taus[0], tau_steps=taus[1])
    assert near_miss_score(1, 1, True, tau_length=0.5, tau_steps=0.5) == 3.0


def test_the_near_miss_is_counted_in_tokens_units_and_by_the_verifier():
    texts = ["x", "Step 1: x\nStep 2: y\nStep 3: z", "x\n#### 4", "The answer is 4."]
    responses = [Completion((0,) * tokens, text, True) for tokens, text in zip([80, 40, 20, 60], texts, strict=True)]
    taus = {"tau_length": 100.0, "tau_steps": 6.0}
    by_hand = [0.8 + 1 / 6, 0.4 + 3 / 6, 0.2 + 1 / 6 + 1, 0.6 + 1 / 6]
    assert select_near_miss(responses, **taus) == (2, pytest.approx(by_hand[2], rel=1e-12))
    # With a weight on one part only, that part decides.
    chosen = [select_near_miss(responses, **taus, weights=weights) for weights in [(3, 0, 0), (0, 3, 0), (0, 0, 3)]]
    assert chosen == [(0, pytest.approx(2.4)), (1, pytest.approx(1.5)), (2, 3.0)]


def test_the_near_miss_is_the_argmax_of_the_score():
    draw = random.Random(2)
    taus = {"tau_length": TABLE_9_TOKENS[LLAMA].mean, "tau_steps": TABLE_9_STEPS[LLAMA].mean}
    for _ in range(100):
        responses = []
        for _ in range(draw.randint(1, 8)):
            steps = draw.randint(2, 20)
            text = "\n".join(f"Step {number}: x" for number in range(steps)) + draw.choice(["", "\n#### 4"])
            responses.append(Completion((0,) * draw.randrange(400), text, True))
        best, best_score = None, -1.0
        for index, response in enumerate(responses):
            steps, has_answer = response.text.count("Step"), "####" in response.text
            score = near_miss_score(len(response.token_ids), steps, has_answer, **taus)
            if score > best_score:
                best, best_score = index, score
        assert select_near_miss(responses, **taus) == (best, best_score)


def test_the_verifier_of_the_rewards_says_what_has_an_answer():
    responses = [Completion((0,), text, True) for text in ("a\n####72", "a\n#### 71")]
    assert select_near_miss(responses, **QWEN_TAUS)[0] == 0
    assert select_near_miss(responses, **QWEN_TAUS, answer_of=verl.extract_answer)[0] == 1


def test_on_a_tie_the_first_response_is_chosen():
    responses = [Completion((0,), text, True) for text in ("x", "a\n#### 4", "b\n#### 5", "y")]
    assert select_near_miss(responses, **QWEN_TAUS)[0] == 1


def test_there_must_be_a_response_to_choose():
    with pytest.raises(ValueError, match="^no incorrect response to choose a near miss from$"):
        select_near_miss([], **QWEN_TAUS)


# Eqs. 16 to 20 on Figures 13 and 14: the numbers are the paper's, the wording is ours

TANK = Problem(
    id="tank",
    question=(
        "In the first round Tank found 10 Easter eggs more than Emma. In the second round Emma found twice as many "
        "as Tank, and Tank 20 fewer than in the first. Emma's second round brought 60 eggs. With 6 others they have a "
        "pile of 400. How many did the 6 others find?"
    ),
    gold="220",
)
FIRST_ERROR = "Say that Emma found E eggs"
PREFIX = "Two children and two rounds, one pile.\n\nStep 1: Name the unknowns."
NEAR_MISS = f"""{PREFIX}
{FIRST_ERROR}. Then Tank found E + 10, Emma 2(E + 10) = 2E + 20, and Tank E - 20.
Step 2: Add them up.
E + (2E + 20) + (E - 20) = 4E = 400, so E = 100.
Step 3: Put E in.
Tank: 110, then 80. Emma: 220.
Step 4: The others.
100 + 220 + 80 + 80 = 400
#### 400"""
DIAGNOSIS = Diagnosis(
    first_error=FIRST_ERROR,
    error_type="misread the question",
    why_wrong="E stands for both of Emma's rounds at once, but her second round is known: 60 eggs.",
    missing_knowledge="One unknown for each child and round.",
    minimal_fix="Let E1 be Emma's first round only, since her second one is 60.",
    correct_next_step="Let E1 be what Emma found in the first round. Tank then found E1 + 10 in that round.",
    short_correct_reasoning=(
        "Tank's second round is half of Emma's: 60 / 2 = 30.\n"
        "Tank's first round: 30 + 20 = 50. Emma's first round: 50 - 10 = 40.\n"
        "Emma: 40 + 60 = 100. Tank: 50 + 30 = 80. Both: 100 + 80 = 180.\n"
        "The 6 others: 400 - 180 = 220.\n"
        "#### 220"
    ),
)


class ScriptedTeacher:
    def __init__(self, text):
        self.text = text
        self.calls = []

    def diagnose(self, problem, response):
        self.calls.append((problem, response))
        return self.text


def test_the_teacher_is_asked_about_the_near_miss_and_its_answer_is_read():
    teacher = ScriptedTeacher(json.dumps(asdict(DIAGNOSIS)))
    assert diagnose(teacher, TANK, NEAR_MISS) == DIAGNOSIS
    assert teacher.calls == [(TANK, NEAR_MISS)]


def test_an_invalid_answer_of_the_teacher_is_refused():
    wrong = replace(DIAGNOSIS, short_correct_reasoning="#### 400")
    with pytest.raises(UnusableAnswer, match="must end in '#### 220'"):
        diagnose(ScriptedTeacher(json.dumps(asdict(wrong))), TANK, NEAR_MISS)


def test_the_fields_may_come_in_any_order():
    shuffled = dict(reversed(asdict(DIAGNOSIS).items()))
    assert parse_diagnosis(json.dumps(shuffled), "220") == DIAGNOSIS


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "is not JSON"),
        ("The error is in step 1.", "is not JSON"),
        ('{"first_error": "Say', "is not JSON"),
        ("```json\n{}\n```", "is not JSON"),
        (json.dumps(asdict(DIAGNOSIS)) + " That is all.", "is not JSON"),
        (json.dumps([asdict(DIAGNOSIS)]), "must be a JSON object"),
        ("null", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        ("{}", "exactly the keys"),
    ],
)
def test_the_teacher_must_answer_with_one_json_object(text, sentence):
    with pytest.raises(UnusableAnswer, match=sentence):
        parse_diagnosis(text, "220")


def test_of_a_long_answer_the_message_shows_80_characters():
    with pytest.raises(UnusableAnswer, match=rf"is not JSON .*: '{'x' * 80}'$"):
        parse_diagnosis("x" * 100, "220")
    with pytest.raises(UnusableAnswer, match=rf"must be a JSON object, got '\[\"{'x' * 78}'$"):
        parse_diagnosis(json.dumps(["x" * 100]), "220")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"minimal_fix": None}, "must be a text that is not empty"),
        ({"minimal_fix": ""}, "must be a text that is not empty"),
        ({"why_wrong": " \n"}, "'why_wrong' must be a text that is not empty"),
        ({"error_type": 3}, "must be a text that is not empty"),
        ({"correct_next_step": ["a", "b"]}, "must be a text that is not empty"),
        ({"why_wrong": "a smile \ud83d"}, r"'why_wrong' has half of a surrogate pair: 'a smile \\ud83d'"),
        ({"severity": "high"}, r"missing or unknown: \['severity'\]"),
        ({"first_error": NEAR_MISS[:121]}, "has 121 characters, at most 120"),
        ({"short_correct_reasoning": "400 - 180 = 220"}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "#### 220\nDone."}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "So it is #### 220"}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "...\n#### 400"}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "...\n#### 220 eggs"}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "...\n#### 220."}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "...\n#### $220"}, "must end in '#### 220'"),
        ({"short_correct_reasoning": "...\n####220"}, "must end in '#### 220'"),
    ],
)
def test_each_rule_of_appendix_d_2(change, sentence):
    with pytest.raises(UnusableAnswer, match=sentence):
        validate_diagnosis({**asdict(DIAGNOSIS), **change}, "220")


@pytest.mark.parametrize("key", asdict(DIAGNOSIS))
def test_each_of_the_seven_fields_is_needed(key):
    values = {name: value for name, value in asdict(DIAGNOSIS).items() if name != key}
    with pytest.raises(UnusableAnswer, match=rf"missing or unknown: \['{key}'\]"):
        validate_diagnosis(values, "220")


def test_the_last_line_has_no_thousands_separator_whatever_the_gold_answer_has():
    values = asdict(DIAGNOSIS)
    with pytest.raises(UnusableAnswer, match="must end in '#### 1200'"):
        validate_diagnosis({**values, "short_correct_reasoning": "...\n#### 1,200"}, "1,200")
    assert validate_diagnosis({**values, "short_correct_reasoning": "...\n#### 1200"}, "1,200")


def test_the_limits_themselves_are_allowed():
    longest = NEAR_MISS[:120]
    values = {**asdict(DIAGNOSIS), "first_error": longest, "short_correct_reasoning": "a\n#### 220\n\n"}
    assert validate_diagnosis(values, "220").first_error == longest


# Eq. 18: where f_err stands in o^- (ambiguity A43)

FIGURE_13 = "Let us go step by step.\n\nStep 1: Define variables. Let:\n- Let {} = number of eggs Emma collected.\nTank"


@pytest.mark.parametrize(
    "variable", ["E", "$E$", "$ E $", "**E**", "\\(E\\)", "\\[ E \\]", "`E`", "$$\nE\n$$", "__E__"]
)
def test_figure_14s_excerpt_is_in_figure_13s_response_however_that_writes_its_formulas(variable):
    response = FIGURE_13.format(variable)
    start, end = locate_excerpt(response, "Let $ E $ = number of eggs Emma collected")
    assert response[start:end] == f"Let {variable} = number of eggs Emma collected"
    assert correct_prefix(response, "Let $ E $ = number of eggs Emma collected").endswith("variables. Let:\n-")


@pytest.mark.parametrize(
    "response, excerpt, found",
    [
        ("a = 1. b = 2. a = 1.", "a = 1", (0, 5)),  # the first place
        ("a=1. a = 1.", "a = 1", (5, 10)),  # exact before spaces
        ("12 + 5 = 18. 12+5 = 17.", "12 + 5 = 17", (13, 22)),  # spaces before likeness
        ("so **12** +\n5 = 17", "12 + 5 = 17", (5, 18)),
        ("the whole", "the whole", (0, 9)),
        ("the whole", "  the whole\n", (0, 9)),
        ("the $x$ and", "the $x$", (0, 7)),  # with the marks at its end, since it stands there exactly
        ("a=1. a=1.", "a = 1", (0, 3)),  # the first place again
        ("xa=1 is", "a = 1", (1, 4)),  # in the middle of a word
        ("abc", "", None),
        ("abc", " \n", None),
        ("$ abc $", "$ $", None),  # marks alone are no excerpt
        ("", "abc", None),
        ("$ $", "abc", None),
        ("Emma found 60 eggs in the second round.", "Tank had 30 fewer than she", None),
    ],
)
def test_an_excerpt_is_found_exactly_then_but_for_spaces_and_marks_or_not_at_all(response, excerpt, found):
    assert locate_excerpt(response, excerpt) == found


def test_the_most_alike_part_is_taken_from_its_first_word_to_its_last_shared_character():
    response = "She sold 48.\n\nThen she sold half as many clips in $May$, that is 24. In June none."
    for excerpt in (
        "Then she sold half as many clips in May, which is 24.",
        "then she sold half of as many clips in May: that is 24.",
        "Then she has sold half as many clips in May, that is 24",
    ):
        start, end = locate_excerpt(response, excerpt)
        assert response[start:end].rstrip(".") == "Then she sold half as many clips in $May$, that is 24"
        assert correct_prefix(response, excerpt) == "She sold 48."


@pytest.mark.parametrize("same, located", [(8, False), (9, True), (10, True)])
def test_a_likeness_of_four_fifths_is_not_enough(same, located):
    excerpt = "abcdefghij"[:same] + "0123456789"[same:]  # the ratio is 2 * same / 20
    assert locate_excerpt("no, abcdefghij", excerpt) == ((4, 4 + same) if located else None)


def test_a_misquoted_beginning_is_found():
    assert locate_excerpt("abcdefghij, no", "abcdefghi9") == (0, 9)


def test_of_two_parts_that_are_equally_alike_the_first_is_taken():
    response = f"bacdefghij {'no ' * 50}bacdefghij"
    assert locate_excerpt(response, "abcdefghij") == locate_excerpt("bacdefghij", "abcdefghij")


def test_a_part_may_begin_20_characters_from_the_place_that_is_best_with_its_end():
    """Where 20 characters of a window are strange, it does not matter at which end, until the ends are cut off."""
    strange, shared = "q" * 20, "".join(random.Random(5).choices("abcdefghijklmnop", k=100))
    assert locate_excerpt(f"{strange} {shared} {strange}", shared + "0" * 20) == (21, 121)


def test_a_long_excerpt_may_be_misquoted_too():
    """difflib takes the commonest characters of 200 or more for junk unless it is told not to."""
    sentence = "and so she has a hat and a rose, a nose and a toe, a shoe and a tee and an oar. " * 6
    assert locate_excerpt(f"No. {sentence}", sentence.replace("rose", "vase").strip()) == (4, 4 + len(sentence) - 1)


def test_a_misquoted_sentence_of_a_long_response_is_found_in_its_place():
    """The place that is found against one that is known: words of one sentence are exchanged."""
    draw = random.Random(4)
    words = "eggs clips Emma Tank sold found gave half twice more less than in the round of and so each week".split()
    sentences = [" ".join(draw.choice(words) for _ in range(14)).capitalize() + f" {n}." for n in range(60)]
    response = " ".join(sentences)
    assert 4000 < len(response) < 5500
    slowest = 0.0
    for _ in range(30):
        number = draw.randrange(60)
        quoted = sentences[number].split()
        quoted[draw.randrange(1, 14)] = "many"
        started = time.perf_counter()
        start, end = locate_excerpt(response, " ".join(quoted))
        slowest = max(slowest, time.perf_counter() - started)
        assert start == len(" ".join(sentences[:number])) + (number > 0)
        assert response[start:end].startswith(sentences[number][:-5])
    assert slowest < 0.5  # about 0.02 s; a comparison with every place would take seconds


def test_without_its_place_a_diagnosis_gives_no_repair_sample():
    lost = replace(DIAGNOSIS, first_error="The farmer sold every goose at once")
    assert parse_diagnosis(json.dumps(asdict(lost)), "220") == lost
    assert has_repair(NEAR_MISS, DIAGNOSIS) and not has_repair(NEAR_MISS, lost)
    assert correct_prefix(NEAR_MISS, lost.first_error) is None
    assert repair_example(TANK, NEAR_MISS, lost, PROMPTS) is None
    assert recycled_set(TANK, NEAR_MISS, lost, PROMPTS) == [
        diagnostic_example(TANK, NEAR_MISS, lost, PROMPTS),
        new_trace_example(TANK, lost, PROMPTS),
    ]


def test_a_misquoted_first_error_is_repaired_with_the_teachers_words():
    misquoted = replace(DIAGNOSIS, first_error="Say that $Emma$ has found E eggs")
    _, repair, _ = recycled_set(TANK, NEAR_MISS, misquoted, PROMPTS)
    asked = repair_messages(PROMPTS, TANK, PREFIX, "Say that $Emma$ has found E eggs", DIAGNOSIS.minimal_fix)
    assert repair.messages[:-1] == asked


def test_the_prefix_is_what_stands_before_the_first_error():
    assert correct_prefix(NEAR_MISS, FIRST_ERROR) == PREFIX
    assert correct_prefix(NEAR_MISS, NEAR_MISS[:30]) == ""
    assert correct_prefix("a. x y. b. x y.", "x y") == "a."  # the first place


def test_the_tank_example():
    """Figure 14's three samples, word for word but for the wording."""
    diagnostic, repair, new = recycled_set(TANK, NEAR_MISS, DIAGNOSIS, PROMPTS)

    assert diagnostic.messages[:-1] == diagnose_student_messages(PROMPTS, TANK, NEAR_MISS)
    assert diagnostic.messages[-1].role == "assistant"
    # Eq. 18: c_err, f_err, w_err, in this order, and nothing of the repair
    assert list(json.loads(diagnostic.messages[-1].content).items()) == [
        ("error_type", "misread the question"),
        ("first_error", FIRST_ERROR),
        ("why_wrong", DIAGNOSIS.why_wrong),
    ]

    assert repair.messages == (
        *repair_messages(PROMPTS, TANK, PREFIX, FIRST_ERROR, DIAGNOSIS.minimal_fix),
        Message("assistant", DIAGNOSIS.correct_next_step),
    )
    # The student must not be shown what it is to write, nor the wrong rest of the response.
    assert DIAGNOSIS.correct_next_step not in repair.messages[0].content
    assert "#### 400" not in repair.messages[0].content

    assert new.messages == (
        *student_messages(PROMPTS, TANK),
        Message("assistant", DIAGNOSIS.short_correct_reasoning),
    )
    assert [sample.kind for sample in (diagnostic, repair, new)] == [
        ExampleKind.DIAGNOSTIC,
        ExampleKind.REPAIR,
        ExampleKind.NEW,
    ]
    assert {sample.problem_id for sample in (diagnostic, repair, new)} == {"tank"}


def test_a_target_keeps_other_alphabets_readable():
    accented = Diagnosis(**{**asdict(DIAGNOSIS), "why_wrong": "60 \u00f7 2 is 30"})
    assert "60 \u00f7 2" in diagnostic_example(TANK, NEAR_MISS, accented, PROMPTS).messages[-1].content


def test_no_target_begins_or_ends_with_a_blank():
    """A token such as ` So` would merge with the template's own newline."""
    blank = Diagnosis(
        **{**asdict(DIAGNOSIS), "correct_next_step": "  So 3.\n", "short_correct_reasoning": "\nA.\n#### 3\n"}
    )
    assert repair_example(TANK, NEAR_MISS, blank, PROMPTS).messages[-1].content == "So 3."
    assert new_trace_example(TANK, blank, PROMPTS).messages[-1].content == "A.\n#### 3"


def test_the_recycled_set_is_the_three_samples_in_the_order_of_eq_19():
    assert recycled_set(TANK, NEAR_MISS, DIAGNOSIS, PROMPTS) == [
        diagnostic_example(TANK, NEAR_MISS, DIAGNOSIS, PROMPTS),
        repair_example(TANK, NEAR_MISS, DIAGNOSIS, PROMPTS),
        new_trace_example(TANK, DIAGNOSIS, PROMPTS),
    ]


def test_the_next_sft_set_is_what_was_acquired_and_then_what_was_recycled():
    acquired = [SFTExample("m", ExampleKind.MEDIUM, ()), SFTExample("h", ExampleKind.BRIDGE, ())]
    recycled = recycled_set(TANK, NEAR_MISS, DIAGNOSIS, PROMPTS)
    assert next_sft_set(acquired, recycled) == acquired + recycled
    assert next_sft_set(acquired, []) == acquired


def test_a_key_that_stands_twice_is_refused():
    text = json.dumps(asdict(DIAGNOSIS))
    twice = text[:-1] + ', "error_type": "another"}'
    assert parse_diagnosis(text, TANK.gold) == DIAGNOSIS
    with pytest.raises(UnusableAnswer, match="twice"):
        parse_diagnosis(twice, TANK.gold)
