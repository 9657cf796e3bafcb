"""Bridge: Eqs. 4-13 and Algorithm 1, which is written here a second time, line by line as Appendix C.1 prints it."""

import math
import random
import time
from dataclasses import replace

import pytest

from reference.interfaces import UnusableAnswer
from reference.paper.answers import is_answer_line
from reference.paper.bridge import (
    acquisition_set,
    apply_action,
    bridge_examples,
    bridge_set,
    bridge_trace,
    check_rewritten,
    choose_action,
    importance_score,
    jumpiness_score,
    mean_nll,
    medium_set,
    previous_context,
    processed_trace,
    split_steps,
    training_order,
)
from reference.paper.prompts import Prompts, next_step_messages, student_messages
from reference.paper.reported import CARLA, CARLA_COMPRESSED, CARLA_THRESHOLDS, TABLE_12
from reference.records import (
    Action,
    ExampleKind,
    Message,
    Problem,
    SFTExample,
    StepScores,
    Thresholds,
    Trace,
)

PROMPTS = Prompts()
PROBLEM = Problem("p", "How many?", "7")
HALVES = Thresholds(0.5, 0.5, 1.0)
CARLA_TRACE = "\n\n".join(unit.text for unit in TABLE_12)


class ScriptedTeacher:
    """Looks scores up by the step's text, rewrites with a mark, and remembers every question."""

    def __init__(self, importance, jumpiness, rewrites=None):
        self.scores = {"importance": importance, "jumpiness": jumpiness}
        self.rewrites = rewrites or {}
        self.calls = []
        self.problems = []

    def importance(self, problem, trace, trace_without_step, step):
        self.problems.append(problem)
        self.calls.append(("importance", trace, trace_without_step, step))
        return self.scores["importance"][step.strip()]

    def jumpiness(self, problem, context, step):
        self.problems.append(problem)
        self.calls.append(("jumpiness", context, step))
        return self.scores["jumpiness"][step.strip()]

    def expand(self, problem, context, step, later):
        self.problems.append(problem)
        self.calls.append(("expand", context, step, tuple(later)))
        return self._rewritten("expanded", step)

    def compress(self, step):
        self.calls.append(("compress", step))
        return self._rewritten("compressed", step)

    def localize(self, problem, context, step, later):
        self.problems.append(problem)
        self.calls.append(("localize", context, step, tuple(later)))
        return self._rewritten("localized", step)

    def _rewritten(self, mark, step):
        return self.rewrites.get(step.strip(), f"{mark}: {step.strip()}")

    def called(self, verb):
        return [call[1:] for call in self.calls if call[0] == verb]


class ScriptedScorer:
    def __init__(self, difficulty):
        self.difficulty = difficulty
        self.calls = []
        self.problems = []

    def step_nlls(self, problem, steps):
        self.problems.append(problem)
        self.calls.append(tuple(steps))
        return [self.difficulty.get(step.strip()) for step in steps]


def scripted(trace, scores, rewrites=None):
    """A teacher and a scorer that give the units of `trace` these (I, J, D)."""
    names = [step.strip() for step in split_steps(trace)]
    assert len(names) == len(scores)
    importance, jumpiness, difficulty = (dict(zip(names, column, strict=True)) for column in zip(*scores, strict=True))
    return ScriptedTeacher(importance, jumpiness, rewrites), ScriptedScorer(difficulty)


# Eq. 4


@pytest.mark.parametrize(
    "trace, units",
    [
        ("", []),
        ("One thought.", ["One thought."]),
        ("### A\nx\n### B\ny", ["### A\nx\n", "### B\ny"]),
        ("First.\n### A\nx\n### B\ny", ["First.\n", "### A\nx\n", "### B\ny"]),
        ("# A\nx\n#### Step 2\ny", ["# A\nx\n", "#### Step 2\ny"]),
        ("Step 1: x\nStep 2: y\nz", ["Step 1: x\n", "Step 2: y\nz"]),
        ("**Step 1** x\n**step 2:** y", ["**Step 1** x\n", "**step 2:** y"]),
        ("1. x\n2. y\n3. z", ["1. x\n", "2. y\n", "3. z"]),
        ("1) x\n2) y\n**3.** z", ["1) x\n", "2) y\n", "**3.** z"]),
        ("x = 1\n\ny = 2\n \n\nz = 3", ["x = 1\n\n", "y = 2\n \n\n", "z = 3"]),
        ("x = 1\r\n\r\ny = 2", ["x = 1\r\n\r\n", "y = 2"]),
        # headings before numbers, numbers before paragraphs
        ("### A\n1. x\n2. y\n### B\n\nz", ["### A\n1. x\n2. y\n", "### B\n\nz"]),
        ("### Solution\nStep 1: x\nStep 2: y", ["### Solution\n", "Step 1: x\n", "Step 2: y"]),
        ("1. x\n\nmore\n2. y", ["1. x\n\nmore\n", "2. y"]),
        # no beginnings of a unit
        ("At Step 1: x\nby Step 2: y", ["At Step 1: x\nby Step 2: y"]),
        ("3.5 apples\n2.5 pears", ["3.5 apples\n2.5 pears"]),
        ("a\n#tag\n#other", ["a\n#tag\n#other"]),
        # the answer line goes with the unit before it
        ("### A\nx\n#### 72", ["### A\nx\n#### 72"]),
        ("### A\nx\n### B\ny\n#### 72", ["### A\nx\n", "### B\ny\n#### 72"]),
        ("x\n\ny\n\n#### 72", ["x\n\n", "y\n\n#### 72"]),
        ("x\n\n**#### 72**\n\nDone.", ["x\n\n**#### 72**\n\n", "Done."]),
    ],
)
def test_a_trace_is_cut_where_a_unit_begins(trace, units):
    assert split_steps(trace) == units


@pytest.mark.parametrize("end", ["\n", "\n\n", "\n \n\n"])
def test_blank_lines_at_the_end_are_no_unit(end):
    assert split_steps("x" + end) == ["x" + end]
    assert split_steps("x\n\ny" + end) == ["x\n\n", "y" + end]


def test_table_12_has_five_units():
    assert [step.strip() for step in split_steps(CARLA_TRACE)] == [unit.text for unit in TABLE_12]


def test_cutting_loses_nothing_and_an_answer_line_is_never_alone():
    draw = random.Random(0)
    pieces = ["\n", "\n", "\n\n", "\r\n", " ", "\t", "\u2028", "\x0b", "text", "x = 3"]
    pieces += ["### A", "## Step 2", "Step 3: ", "4. ", "**5.** ", "#### 72", "#### Step 2", "**#### 72**", "####", "#"]
    for _ in range(3000):
        trace = "".join(draw.choice(pieces) for _ in range(draw.randrange(16)))
        units = split_steps(trace)
        assert "".join(units) == trace
        assert all(unit.strip() for unit in units) or not trace.strip()
        assert not any(is_answer_line(unit.split("\n", 1)[0]) for unit in units[1:])


# Eqs. 5 to 8


def test_importance_is_asked_on_the_original_trace_with_and_without_the_step():
    steps = ["a\n\n", "b\n\n", "c"]
    teacher = ScriptedTeacher({"a": 0, "b": 0.75, "c": 1}, {})
    found = [importance_score(PROBLEM, "".join(steps), steps, index, teacher) for index in range(3)]
    assert found == [0.0, 0.75, 1.0]
    assert teacher.called("importance") == [
        ("a\n\nb\n\nc", "b\n\nc", "a\n\n"),
        ("a\n\nb\n\nc", "a\n\nc", "b\n\n"),
        ("a\n\nb\n\nc", "a\n\nb\n\n", "c"),
    ]


def test_the_context_is_the_steps_so_far_as_one_text():
    assert previous_context([]) == ""
    assert previous_context(["a\n\n", "b\n\n"]) == "a\n\nb"


def test_without_a_context_the_jumpiness_is_0_without_asking():
    teacher = ScriptedTeacher({}, {"s": 1})
    assert jumpiness_score(PROBLEM, "", "s", teacher) == 0.0
    assert teacher.calls == []
    assert jumpiness_score(PROBLEM, "P", "s", teacher) == 1.0
    assert teacher.called("jumpiness") == [("P", "s")]


@pytest.mark.parametrize("score", [0.3, -0.25, 1.25, 5, math.nan, None, "0.5"])
def test_a_judge_that_gives_none_of_the_five_scores_is_not_guessed_at(score):
    teacher = ScriptedTeacher({"s": score}, {"s": score})
    with pytest.raises(UnusableAnswer, match="must be one of"):
        importance_score(PROBLEM, "s", ["s"], 0, teacher)
    with pytest.raises(UnusableAnswer, match="must be one of"):
        jumpiness_score(PROBLEM, "P", "s", teacher)


def test_difficulty_is_the_mean_negative_log_likelihood():
    draw = random.Random(1)
    for _ in range(100):
        logprobs = [-draw.expovariate(1.0) for _ in range(draw.randint(1, 40))]
        total = 0.0
        for logprob in logprobs:
            total += logprob
        assert mean_nll(logprobs) == pytest.approx(-total / len(logprobs), rel=1e-12)
    assert mean_nll([math.log(0.5)] * 9) == pytest.approx(math.log(2), rel=1e-15)
    assert mean_nll([math.log(0.5), math.log(0.125)]) == pytest.approx(2 * math.log(2), rel=1e-15)


def test_a_step_without_tokens_has_no_difficulty():
    with pytest.raises(ValueError, match="^a step's difficulty needs at least one token, got an empty step$"):
        mean_nll([])


# Algorithm 1, the decision


@pytest.mark.parametrize(
    "important, jumpy, difficult, action, is_local",
    [
        (False, False, False, Action.COMPRESS, False),
        (False, False, True, Action.DROP, False),
        (False, True, False, Action.DROP, False),
        (False, True, True, Action.DROP, False),
        (True, False, False, Action.KEEP, False),
        (True, False, True, Action.LOCALIZE, True),
        (True, True, False, Action.EXPAND, False),
        (True, True, True, Action.EXPAND, True),
    ],
)
def test_the_eight_leaves_of_algorithm_1(important, jumpy, difficult, action, is_local):
    scores = StepScores(0.75 if important else 0.25, 0.75 if jumpy else 0.25, 1.5 if difficult else 0.5)
    assert choose_action(scores, HALVES) == (action, is_local)
    # A score at its threshold is not above it.
    at_threshold = StepScores(0.75 if important else 0.5, 0.75 if jumpy else 0.5, 1.5 if difficult else 1.0)
    assert choose_action(at_threshold, HALVES) == (action, is_local)


@pytest.mark.parametrize("unit", TABLE_12, ids=[f"unit {number}" for number in range(1, 6)])
def test_table_12(unit):
    assert choose_action(unit.scores, CARLA_THRESHOLDS) == (unit.action, unit.action is Action.LOCALIZE)


@pytest.mark.parametrize("name", ["importance", "jumpiness", "difficulty"])
def test_not_a_number_chooses_no_action(name):
    scores = StepScores(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="must be numbers"):
        choose_action(replace(scores, **{name: math.nan}), HALVES)
    with pytest.raises(ValueError, match="must be numbers"):
        choose_action(scores, replace(HALVES, **{name: math.nan}))


# Eqs. 9 and 10


def test_each_operation_asks_its_own_verb():
    teacher = ScriptedTeacher({}, {})
    done = {action: apply_action(action, PROBLEM, "P", "s", teacher, ["t", "u"]) for action in Action}
    assert done == {
        Action.KEEP: "s",
        Action.EXPAND: "expanded: s",
        Action.COMPRESS: "compressed: s",
        Action.DROP: None,
        Action.LOCALIZE: "localized: s",
    }
    assert sorted(teacher.calls) == [
        ("compress", "s"),
        ("expand", "P", "s", ("t", "u")),
        ("localize", "P", "s", ("t", "u")),
    ]
    assert teacher.problems == [PROBLEM] * 2


def test_a_rewritten_step_ends_as_the_original_did():
    teacher = ScriptedTeacher({}, {}, {"s": "\n new \n"})
    assert apply_action(Action.EXPAND, PROBLEM, "P", "s\n\n", teacher) == "new\n\n"
    assert apply_action(Action.EXPAND, PROBLEM, "P", "s", teacher) == "new"


@pytest.mark.parametrize("action", [Action.EXPAND, Action.COMPRESS, Action.LOCALIZE])
@pytest.mark.parametrize("empty", ["", " \n"])
def test_a_step_that_is_rewritten_to_nothing_is_refused(action, empty):
    with pytest.raises(UnusableAnswer, match="to an empty text the step 's'"):
        apply_action(action, PROBLEM, "P", "s", ScriptedTeacher({}, {}, {"s": empty}))


MAY = "Step 2: In May she sold half as many.\n48 / 2 = 24 clips\n\n"
LATER = [
    "### Step 3: The total\nTogether these are $48 + 24 = 72$ clips. So 3 days, 1,200 / 3 = 400.\n\n",
    "She sold 72 clips in April and May.\n#### 72",
]
KNOWN = "She sold clips to 48 friends in April.\nStep 1: April: 48 clips."


@pytest.mark.parametrize(
    "rewritten",
    [
        MAY,
        "Step 2: May is half of April. April was 48. Half of 48 is 48 / 2 = 24.",
        "Step 1: April: 48 clips.\nStep 2: 48 / 2 = 24",  # repeats what is known
        "She sold clips to 48 friends in April. That is 48, and half of it 24.",
        "1. Take 48.\n2. Take half.\n3. That is 24.",  # a list of its own
        "#### Step 2\n48 - 24 = 24",
        "In Step 3 we shall add.",  # a label is at the beginning of a line
        "So many clips.",  # a short sentence may come again
        "48 + 24 = 72.5 and 148 + 24 = 172 and 48 + 24 = 72 + 1",  # other equations
    ],
)
def test_a_rewriting_that_stays_with_its_step(rewritten):
    check_rewritten(MAY, rewritten, [*LATER, "So many clips."], known=KNOWN)


@pytest.mark.parametrize(
    "rewritten, sentence",
    [
        ("", "to an empty text the step 'Step 2: In May"),
        (" \n", "to an empty text"),
        (f"{MAY}#### 24", "the final answer #### 24 into the step"),
        (f"{MAY}**#### 72**", "the final answer #### 72 into the step"),
        (f"{MAY}### Step 3: The total", "the heading 'step 3"),
        (f"{MAY}Step 3: go on", "the heading 'step 3' of a later step into"),
        (f"{MAY}**step 3.** go on", "the heading 'step 3'"),
        (f"{MAY}48 + 24 = 72", r"the equation '48\+24=72'"),
        (f"{MAY}So (48+24=$72).", r"the equation '48\+24=72'"),
        (f"{MAY}$1200 \\div 3 = 400$", "the equation '1200/3=400'"),
        (f"{MAY}\\frac{{1,200}}{{3}} = 400", "the equation '1200/3=400'"),
        (f"{MAY}1{{,}}200 / 3 = 400", "the equation '1200/3=400'"),
        (f"{MAY}She sold 72  clips in\nApril and May", "the sentence 'She sold 72 clips in April and May'"),
    ],
)
def test_a_rewriting_that_leaks_is_refused(rewritten, sentence):
    with pytest.raises(UnusableAnswer, match=sentence):
        check_rewritten(MAY, rewritten, LATER, known=KNOWN)


@pytest.mark.parametrize("sign", ["\\times", "\\cdot", "*", "\u00d7"])
def test_a_product_leaks_however_it_is_written(sign):
    with pytest.raises(UnusableAnswer, match=r"the equation '48\*2=96' of a later step"):
        check_rewritten("b", f"b, 48 {sign} 2 = 96", ["So 48 * 2 = 96."])


def test_a_heading_leaks_by_its_words_and_a_sentence_without_its_label():
    with pytest.raises(UnusableAnswer, match="the heading 'the total' of a later step"):
        check_rewritten("b", "## THE  total!\nb", ["### The total\nc"])
    with pytest.raises(UnusableAnswer, match="the sentence 'She sold 72 clips in all' of a later step"):
        check_rewritten("b", "b, she is done. She sold 72 clips in all.", ["Step 3: She sold 72 clips in all."])
    check_rewritten("b", "b, Y is all that is left of them.", ["X is all that is left of them. Good."])


def test_a_step_is_named_by_its_first_60_characters():
    with pytest.raises(UnusableAnswer, match=f"^the teacher rewrote to an empty text the step '{'s' * 60}'$"):
        check_rewritten("s" * 100, "")


def test_what_the_step_or_the_known_text_says_is_no_leak():
    """Whatever a later step repeats of this one, of the question or of the context may be written."""
    step = "Step 2: In total 48 + 24 = 72.\nShe sold 72 clips in April and May."
    check_rewritten(step, f"{step} She sold 72 clips in April and May: 48+24=72", LATER)
    check_rewritten("b", "48 + 24 = 72. She sold 72 clips in April and May.", LATER, known=step)
    check_rewritten("48 + 24 = 72", "### Step 3: The total\n48 + 24 = 72", LATER, known="### Step 3: The total")
    for leak in ("48 + 24 = 72", "She sold 72 clips in April and May."):
        with pytest.raises(UnusableAnswer, match="of a later step"):
            check_rewritten("b", leak, LATER)


@pytest.mark.parametrize("length, leaks", [(19, False), (20, True)])
def test_a_sentence_of_20_characters_is_one(length, leaks):
    sentence = "So x is what is left"[:length]
    assert len(sentence) == length
    if leaks:
        with pytest.raises(UnusableAnswer, match="the sentence"):
            check_rewritten("b", f"b, {sentence}.", [f"{sentence}. Good."])
    else:
        check_rewritten("b", f"b, {sentence}.", [f"{sentence}. Good."])


def test_a_final_answer_may_be_lost_but_not_changed():
    check_rewritten("b\n#### 1,200", "c")  # processed_trace puts it back
    check_rewritten("b\n#### 1,200", "c\n#### 1200")
    with pytest.raises(UnusableAnswer, match="the final answer #### 1201 into"):
        check_rewritten("b\n#### 1,200", "c\n#### 1201")


def test_operations_are_checked_against_the_later_steps_the_context_and_the_question():
    teacher = ScriptedTeacher({}, {}, {"s": "1 + 2 = 3"})
    asked = Problem("p", "How many are 1 + 2 = 3?", "7")
    for action in (Action.EXPAND, Action.COMPRESS, Action.LOCALIZE):
        with pytest.raises(UnusableAnswer, match=r"the equation '1\+2=3' of a later step"):
            apply_action(action, PROBLEM, "P", "s", teacher, ["so 1 + 2 = 3"])
        assert apply_action(action, PROBLEM, "1+2 = 3", "s", teacher, ["so 1 + 2 = 3"]) == "1 + 2 = 3"
        assert apply_action(action, asked, "P", "s", teacher, ["so 1 + 2 = 3"]) == "1 + 2 = 3"


def test_a_check_of_a_long_text_takes_no_time():
    """A model may repeat itself without end; a scan that looks back would take minutes."""
    started = time.perf_counter()
    for text in ("1 + " * 5000, " " * 20000, "\n" + " \t" * 10000, "# " * 10000, "( " * 10000, "1." * 10000):
        check_rewritten(text, text + ".", [text])
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "steps, gold, text",
    [
        (["a\n\n", "b\n#### 7"], "7", "a\n\nb\n#### 7"),
        (["a\n\n"], "7", "a\n\n#### 7"),  # the unit with the answer was dropped
        (["a\n\n", "so 7"], "7", "a\n\nso 7\n\n#### 7"),  # or lost it when it was compressed
        ([], "7", "#### 7"),
        (["#### 7"], "7", "#### 7"),
        (["a\n", "**#### $7.0**"], "7", "a\n\n#### 7"),
        (["a\n\n\n", "**#### 7**"], "7", "a\n\n#### 7"),
        (["a\n#### 7\n", "b"], "7", "a\nb\n\n#### 7"),
        (["a\n#### 7\n", "b\n#### 7\n"], "7", "a\nb\n\n#### 7"),
        (["a\n#### 1,200"], "1,200", "a\n\n#### 1200"),
        (["#### Step 1\na"], "7", "#### Step 1\na\n\n#### 7"),
    ],
)
def test_the_processed_trace_states_the_gold_answer_once_and_last(steps, gold, text):
    assert processed_trace(steps, gold) == text


@pytest.mark.parametrize(
    "steps",
    [
        ["a\n#### 8"],
        ["#### 8\n", "b\n#### 7"],
        ["**#### 8**\n", "b"],
        ["Final Answer: #### 8\n", "b\n#### 7"],
        ["so #### 7, or #### 8.\n", "b"],
        ["b. The answer is #### 8. That is all.\n\n", "#### 7"],  # no heading: it does not begin its line
        ["- #### 8) b\n", "#### 7"],
    ],
)
def test_a_trace_that_states_another_answer_is_refused(steps):
    with pytest.raises(UnusableAnswer, match="8.* but the gold answer is 7"):
        processed_trace(steps, "7")


# Algorithm 1, the whole


@pytest.mark.parametrize(
    ("without", "actions"),
    [
        ((Action.LOCALIZE,), ["keep", "keep", "keep", "keep", "compress"]),
        ((Action.COMPRESS, Action.DROP), ["localize", "localize", "keep", "localize", "keep"]),
        (tuple(Action), ["keep"] * 5),
    ],
)
def test_a_step_is_kept_in_place_of_an_operation_that_is_left_out(without, actions):
    """Table 2, ambiguity A55: as the teacher wrote it, and without a local sample."""
    local = {unit.text: f"Slowly. {unit.text}" for unit in TABLE_12 if unit.action is Action.LOCALIZE}
    scores = [(unit.scores.importance, unit.scores.jumpiness, unit.scores.difficulty) for unit in TABLE_12]
    teacher, scorer = scripted(CARLA_TRACE, scores, {**local, TABLE_12[4].text: CARLA_COMPRESSED})
    bridged = bridge_trace(CARLA, CARLA_TRACE, teacher, scorer, CARLA_THRESHOLDS, without)
    assert [step.action for step in bridged.steps] == actions
    assert [step.is_local for step in bridged.steps] == [action == "localize" for action in actions]
    kept = [step for step in bridged.steps if step.action is Action.KEEP]
    assert kept and all(step.rewritten == step.original for step in kept)
    assert (bridged.text == CARLA_TRACE) == (len(without) == len(Action))


def test_the_carla_example():
    """Table 12 and Figures 11 and 12: three units localized, one kept, the check compressed to the answer."""
    local = {unit.text: f"Slowly. {unit.text}" for unit in TABLE_12 if unit.action is Action.LOCALIZE}
    scores = [(unit.scores.importance, unit.scores.jumpiness, unit.scores.difficulty) for unit in TABLE_12]
    teacher, scorer = scripted(CARLA_TRACE, scores, {**local, TABLE_12[4].text: CARLA_COMPRESSED})
    bridged = bridge_trace(CARLA, CARLA_TRACE, teacher, scorer, CARLA_THRESHOLDS)

    texts = [unit.text for unit in TABLE_12]
    processed = [local.get(text, text) for text in texts[:4]] + ["#### 15"]
    contexts = ["\n\n".join(processed[:number]) for number in range(5)]
    assert bridged.problem_id == "carla"
    assert bridged.text == "\n\n".join(processed)
    assert [step.original.strip() for step in bridged.steps] == texts
    assert [step.scores for step in bridged.steps] == [unit.scores for unit in TABLE_12]
    assert [step.action for step in bridged.steps] == [unit.action for unit in TABLE_12]
    assert [step.rewritten.strip() for step in bridged.steps] == processed
    assert [step.context for step in bridged.steps] == contexts
    assert [step.is_local for step in bridged.steps] == [True, True, False, True, False]

    assert teacher.problems == [CARLA] * (5 + 4 + 3)  # importance, jumpiness but of the first step, localize
    # The judges and the scorer see the teacher's trace, Localize the processed one.
    asked = teacher.called("importance")
    assert [trace for trace, _, _ in asked] == [CARLA_TRACE] * 5
    assert [CARLA_TRACE.replace(step, "") for _, _, step in asked] == [without for _, without, _ in asked]
    assert [(context, step.strip()) for context, step in teacher.called("jumpiness")] == [
        ("\n\n".join(texts[:number]), texts[number]) for number in range(1, 5)
    ]
    assert [(context, step.strip()) for context, step, _ in teacher.called("localize")] == [
        (contexts[number], texts[number]) for number in (0, 1, 3)
    ]
    assert ["".join(later).strip() for _, _, later in teacher.called("localize")] == [
        "\n\n".join(texts[number + 1 :]) for number in (0, 1, 3)
    ]
    # The scorer reads the whole trace once, as it stands, blank lines included.
    assert scorer.problems == [CARLA] and scorer.calls == [tuple(split_steps(CARLA_TRACE))]

    whole, *samples = bridge_examples(CARLA, bridged, PROMPTS)
    assert whole == SFTExample(
        "carla", ExampleKind.BRIDGE, (*student_messages(PROMPTS, CARLA), Message("assistant", bridged.text))
    )
    assert [sample.kind for sample in samples] == [ExampleKind.LOCAL] * 3
    # Eq. 8's layout: the solution's prompt, the processed steps as the assistant's own words, then the step.
    assert [sample.messages for sample in samples] == [
        (*student_messages(PROMPTS, CARLA), Message("assistant", "\n\n".join(processed[: number + 1]) + "\n\n"))
        for number in (0, 1, 3)
    ]
    assert [sample.target for sample in samples] == [f"{processed[number]}\n\n" for number in (0, 1, 3)]
    assert [sample.ends_turn for sample in samples] == [False] * 3
    # As a turn of its own, with a prompt that asks for the next step.
    whole, *samples = bridge_examples(CARLA, bridged, PROMPTS, "own_turn")
    assert [sample.messages for sample in samples] == [
        (*next_step_messages(PROMPTS, CARLA, contexts[number]), Message("assistant", processed[number]))
        for number in (0, 1, 3)
    ]
    assert all(sample.ends_turn and sample.supervised_from == 0 for sample in [whole, *samples])


def test_after_the_processed_steps_each_score_waits_for_the_rewriting_before_it():
    """The other reading of A14: line 9's P_i for Eqs. 7 and 8 too."""
    local = {unit.text: f"Slowly. {unit.text}" for unit in TABLE_12 if unit.action is Action.LOCALIZE}
    scores = [(unit.scores.importance, unit.scores.jumpiness, unit.scores.difficulty) for unit in TABLE_12]
    teacher, scorer = scripted(CARLA_TRACE, scores, {**local, TABLE_12[4].text: CARLA_COMPRESSED})
    bridged = bridge_trace(CARLA, CARLA_TRACE, teacher, scorer, CARLA_THRESHOLDS, (), "processed")
    texts = [unit.text for unit in TABLE_12]
    contexts = ["\n\n".join([local.get(text, text) for text in texts[:number]]) for number in range(5)]
    assert [step.scores for step in bridged.steps] == [unit.scores for unit in TABLE_12]
    assert [(context, step.strip()) for context, step in teacher.called("jumpiness")] == list(
        zip(contexts, texts, strict=True)
    )[1:]
    assert ["".join(steps[:-1]).strip() for steps in scorer.calls] == contexts
    assert [steps[-1].strip() for steps in scorer.calls] == texts


def test_where_all_steps_before_were_dropped_nothing_is_jumped_over():
    """Eq. 6's reason for J_1 = 0 holds for any empty P_i; only the processed reading can have one later on."""
    trace = "Step 1: a\nStep 2: b\n#### 7"
    for scores_after, asked in (("original", ["Step 2: b\n#### 7"]), ("processed", [])):
        teacher, scorer = scripted(trace, [(0.0, 0.0, 2.0), (1.0, 1.0, 0.0)])
        bridged = bridge_trace(PROBLEM, trace, teacher, scorer, HALVES, (), scores_after)
        assert bridged.steps[0].action is Action.DROP
        assert [step.strip() for _, step in teacher.called("jumpiness")] == asked
        assert bridged.steps[1].scores.jumpiness == len(asked)


STEP_2 = "Step 2: b\n#### 7"


@pytest.mark.parametrize(
    ("scores", "rewrites", "said", "ends_turn"),
    [
        ([(1.0, 0.0, 0.0), (1.0, 0.0, 2.0)], {}, "Step 1: a\nlocalized: Step 2: b\n#### 7", True),
        # it lost the answer line, which comes back as a line of its own: C~ continues after this step
        ([(1.0, 0.0, 0.0), (1.0, 0.0, 2.0)], {STEP_2: "b"}, "Step 1: a\nb", False),
        # C~ has the answer line in another form, or after the rest of the step
        ([(1.0, 0.0, 0.0), (1.0, 0.0, 2.0)], {STEP_2: "b\n**#### 7.0**"}, "Step 1: a\nb\n\n#### 7", True),
        ([(1.0, 0.0, 0.0), (1.0, 0.0, 2.0)], {STEP_2: "b\n#### 7\n\nOk"}, "Step 1: a\nb\n\nOk\n\n#### 7", True),
        # what follows it was dropped, but for the answer
        ([(1.0, 0.0, 2.0), (0.0, 1.0, 0.0)], {}, "localized: Step 1: a\n", False),
    ],
)
def test_a_local_sample_ends_its_turn_where_the_processed_trace_ends(scores, rewrites, said, ends_turn):
    trace = "Step 1: a\nStep 2: b\n#### 7"
    bridged = bridge_trace(PROBLEM, trace, *scripted(trace, scores, rewrites), HALVES)
    whole, sample = bridge_examples(PROBLEM, bridged, PROMPTS)
    assert (sample.messages[-1].content, sample.ends_turn) == (said, ends_turn)
    assert ends_turn == (said == bridged.text == whole.target)
    assert sample.messages[:-1] == whole.messages[:-1] and bridged.text.startswith(said.rstrip())
    assert said.endswith(sample.target)


def test_a_local_sample_in_the_middle_has_no_answer_line():
    """C~ has moved it to the end (A19)."""
    trace = "Step 1: a\n#### 7\nStep 2: b\n#### 7"
    bridged = bridge_trace(PROBLEM, trace, *scripted(trace, [(1.0, 0.0, 2.0), (1.0, 0.0, 2.0)]), HALVES)
    whole, first, last = bridge_examples(PROBLEM, bridged, PROMPTS)
    assert whole.target == "localized: Step 1: a\nlocalized: Step 2: b\n\n#### 7"
    assert (first.target, first.ends_turn) == ("localized: Step 1: a\n", False)
    assert (last.messages, last.target, last.ends_turn) == (whole.messages, "localized: Step 2: b\n\n#### 7", True)


def test_a_dropped_step_is_out_of_sight_of_the_later_ones_and_an_expanded_one_is_seen_expanded():
    trace = "Step 1: a\nStep 2: b\nStep 3: c\nStep 4: d\n#### 7"
    drop, expand_and_local, keep = (0.0, 1.0, 0.0), (1.0, 1.0, 2.0), (1.0, 0.0, 0.0)
    teacher, scorer = scripted(trace, [keep, drop, expand_and_local, keep])
    bridged = bridge_trace(PROBLEM, trace, teacher, scorer, HALVES)
    assert [step.action for step in bridged.steps] == [Action.KEEP, Action.DROP, Action.EXPAND, Action.KEEP]
    assert [step.is_local for step in bridged.steps] == [False, False, True, False]
    assert [step.context for step in bridged.steps] == [
        "",
        "Step 1: a",
        "Step 1: a",
        "Step 1: a\nexpanded: Step 3: c",
    ]
    assert bridged.steps[1].rewritten is None
    assert bridged.text == "Step 1: a\nexpanded: Step 3: c\nStep 4: d\n#### 7"
    assert [example.target for example in bridge_examples(PROBLEM, bridged, PROMPTS)] == [
        bridged.text,
        "expanded: Step 3: c\n",
    ]
    # Eq. 5 still shows the judge the dropped step, and the step that was expanded as it was.
    assert all(asked == trace for asked, _, _ in teacher.called("importance"))


def test_the_first_judge_of_a_jump_is_the_second_step():
    trace = "Step 1: a\nStep 2: b\n#### 7"
    # With this J_1 the first step would be expanded.
    teacher, scorer = scripted(trace, [(1.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
    bridged = bridge_trace(PROBLEM, trace, teacher, scorer, HALVES)
    assert bridged.steps[0].scores.jumpiness == 0.0
    assert bridged.steps[0].action is Action.KEEP
    assert [step.strip() for _, step in teacher.called("jumpiness")] == ["Step 2: b\n#### 7"]


@pytest.mark.parametrize(
    "scores, rewrite, text",
    [
        ((0.0, 1.0, 0.0), None, "Step 1: a\n\n#### 7"),  # dropped
        ((0.0, 0.0, 0.0), "so b", "Step 1: a\nso b\n\n#### 7"),  # compressed, the answer lost
        ((0.0, 0.0, 0.0), "#### 7", "Step 1: a\n#### 7"),
    ],
)
def test_the_answer_outlives_its_unit(scores, rewrite, text):
    trace = "Step 1: a\nStep 2: b\n#### 7"
    teacher, scorer = scripted(trace, [(1.0, 0.0, 0.0), scores], {"Step 2: b\n#### 7": rewrite})
    assert bridge_trace(PROBLEM, trace, teacher, scorer, HALVES).text == text


@pytest.mark.parametrize(
    "scores, rewrite, sentence",
    [
        ((0.6, 0.0, 0.0), "b", "must be one of"),
        ((1.0, 0.6, 0.0), "b", "must be one of"),
        ((1.0, 1.0, 0.0), " ", "empty text"),
        ((1.0, 1.0, 0.0), "b\n#### 8", "the final answer #### 8 into"),
        ((1.0, 1.0, 0.0), "b\nFinal Answer: #### 8", "the final answer #### 8 into"),
        ((1.0, 1.0, 0.0), "b. The answer is #### 8. That is all.\n\n#### 7", "the final answer #### 8 into"),
        ((1.0, 1.0, 0.0), "so #### 8, no, #### 7\n#### 7", "the final answer #### 8 into"),
    ],
)
def test_one_unusable_answer_spoils_the_trace(scores, rewrite, sentence):
    trace = "Step 1: a\nStep 2: b\n#### 7"
    teacher, scorer = scripted(trace, [(1.0, 0.0, 0.0), scores], {"Step 2: b\n#### 7": rewrite})
    with pytest.raises(UnusableAnswer, match=sentence):
        bridge_trace(PROBLEM, trace, teacher, scorer, HALVES)


def test_an_empty_trace_is_refused():
    with pytest.raises(ValueError, match="trace of problem p is empty; distil it again"):
        bridge_trace(PROBLEM, "", ScriptedTeacher({}, {}), ScriptedScorer({}), HALVES)


class RandomJudges:
    """Scores drawn from all that was asked, so that another context gives another score. Teacher and scorer in one."""

    def __init__(self, seed):
        self.seed = seed

    def _draw(self, *asked):
        return random.Random(repr((self.seed, *asked)))

    def importance(self, problem, trace, trace_without_step, step):
        return self._draw("I", trace, trace_without_step, step.strip()).choice([0, 0.25, 0.5, 0.75, 1])

    def jumpiness(self, problem, context, step):
        return self._draw("J", context, step.strip()).choice([0, 0.25, 0.5, 0.75, 1])

    def step_nlls(self, problem, steps):
        return [self._nll("".join(steps[:index]), step) for index, step in enumerate(steps)]

    def _nll(self, context, step):
        return self._draw("D", context.strip(), step.strip()).choice([0.0, 0.5, 1.0, 1.5])

    def expand(self, problem, context, step, later=()):
        return f"E({len(context)}) {step.strip()}"

    def compress(self, step):
        return f"C {step.strip()}".split("\n")[0]  # loses an answer line

    def localize(self, problem, context, step, later=()):
        return f"L({len(context)}) {step.strip()}"


def algorithm_1(units, judges, tau_I, tau_J, tau_D, scores_after):
    """Appendix C.1's pseudo-code on units without separators, for one (q, a*). Returns C~ and the local set."""
    C_tilde, L = [], []  # line 6
    for i, s in enumerate(units):  # line 8
        P = "\n".join(C_tilde)  # line 9
        P_score = P if scores_after == "processed" else "\n".join(units[:i])  # Eq. 6
        without = "".join(f"{unit}\n" for unit in units[:i]) + "\n".join(units[i + 1 :])
        I = judges.importance(PROBLEM, "\n".join(units), without, s)  # line 10
        J = judges.jumpiness(PROBLEM, P_score, s) if P_score else 0
        D = judges.step_nlls(PROBLEM, [P_score, s])[1]
        if I <= tau_I:  # line 11
            if J > tau_J or D > tau_D:  # line 12
                s_tilde = None  # line 13: Drop
            else:
                s_tilde = judges.compress(s)  # line 15
        else:
            if J <= tau_J and D <= tau_D:  # line 18
                s_tilde = s  # line 19: Keep
            elif J > tau_J:  # line 20
                s_tilde = judges.expand(PROBLEM, P, s)  # line 21
                if D > tau_D:  # line 22
                    L.append((P, s_tilde))  # line 23
            else:
                s_tilde = judges.localize(PROBLEM, P, s)  # line 26
                L.append((P, s_tilde))  # line 27
        if s_tilde is not None:  # line 30
            C_tilde.append(s_tilde)  # line 31
    return C_tilde, L


@pytest.mark.parametrize("scores_after", ["original", "processed"])
def test_algorithm_1_against_its_pseudo_code(scores_after):
    draw = random.Random(3)
    seen = set()
    for seed in range(300):
        units = [f"Step {number}: x{draw.randrange(9)}" for number in range(1, draw.randint(2, 8) + 1)]
        units[-1] += "\n#### 7"
        taus = (draw.choice([0.25, 0.5, 0.6]), draw.choice([0.25, 0.5, 0.6]), draw.choice([0.4, 0.5, 1.2]))
        judges = RandomJudges(seed)
        C_tilde, L = algorithm_1(units, judges, *taus, scores_after)

        bridged = bridge_trace(PROBLEM, "\n".join(units), judges, judges, Thresholds(*taus), (), scores_after)
        assert [step.rewritten.strip() for step in bridged.steps if step.rewritten is not None] == C_tilde
        body = [line for line in "\n".join(C_tilde).split("\n") if line and line != "#### 7"]
        assert [line for line in bridged.text.split("\n") if line] == [*body, "#### 7"]
        whole, *samples = bridge_examples(PROBLEM, bridged, PROMPTS, "own_turn")
        assert whole.messages[-1].content == bridged.text
        assert [sample.messages for sample in samples] == [
            (*next_step_messages(PROMPTS, PROBLEM, P), Message("assistant", s_tilde)) for P, s_tilde in L
        ]
        _, *samples = bridge_examples(PROBLEM, bridged, PROMPTS)
        assert [sample.messages[:-1] for sample in samples] == [student_messages(PROMPTS, PROBLEM)] * len(L)
        said = [sample.messages[-1].content for sample in samples]
        found = [(text[: s.supervised_from].strip(), s.target.strip()) for text, s in zip(said, samples, strict=True)]
        assert found == L
        seen |= {(step.action, step.is_local) for step in bridged.steps}
    assert len(seen) == 6  # every action, Expand with a local sample and without


# Eqs. 11 to 13


def test_the_data_sets_of_section_3_2():
    problems = [Problem(name, f"q {name}", "7") for name in ("medium", "hard 1", "hard 2")]
    keep, localize = (1.0, 0.0, 0.0), (1.0, 0.0, 2.0)
    trace = "Step 1: a\nStep 2: b\n#### 7"
    bridged = [
        bridge_trace(problems[2], trace, *scripted(trace, [keep, localize]), HALVES),
        bridge_trace(problems[1], trace, *scripted(trace, [keep, keep]), HALVES),
    ]
    medium = medium_set(problems, [Trace("medium", trace, 9, 2)], PROMPTS)
    bridge = bridge_set(problems, bridged, PROMPTS)
    assert medium == [
        SFTExample("medium", ExampleKind.MEDIUM, (*student_messages(PROMPTS, problems[0]), Message("assistant", trace)))
    ]
    assert [(example.problem_id, example.kind) for example in bridge] == [
        ("hard 2", ExampleKind.BRIDGE),
        ("hard 2", ExampleKind.LOCAL),
        ("hard 1", ExampleKind.BRIDGE),
    ]
    assert all(f"q {example.problem_id}\n" in example.messages[0].content for example in bridge)
    assert acquisition_set(medium, bridge) == medium + bridge


def test_the_initial_sft_goes_from_medium_to_bridge_and_a_later_one_is_one_union():
    """Eqs. 13, 20 and 21."""
    kinds = [kind for kind in ExampleKind if kind is not ExampleKind.TRACE]  # the experiments' own
    examples = [SFTExample(str(number), kind, ()) for number, kind in enumerate([*kinds, *kinds])]
    random.Random(0).shuffle(examples)
    acquired = [one for one in examples if one.kind in (ExampleKind.MEDIUM, ExampleKind.BRIDGE, ExampleKind.LOCAL)]
    for later_sft in ("union", "phases"):
        phases = dict(training_order(acquired, 1, later_sft))
        assert list(phases) == ["1_medium", "2_bridge"] and sum(map(len, phases.values())) == len(acquired)
        with pytest.raises(AssertionError, match="nothing is recycled before the first iteration"):
            training_order(examples, 1, later_sft)
    assert training_order(examples, 2) == [("union", examples)]


def test_phases_go_from_medium_to_bridge_to_recycled_and_leave_nothing_out():
    kinds = [kind for kind in ExampleKind if kind is not ExampleKind.TRACE]  # the experiments' own
    examples = [SFTExample(str(number), kind, ()) for number, kind in enumerate([*kinds, *kinds])]
    random.Random(0).shuffle(examples)
    phases = training_order(examples, 2, "phases")
    assert [name for name, _ in phases] == ["1_medium", "2_bridge", "3_recycled"]
    assert [{example.kind for example in phase} for _, phase in phases] == [
        {ExampleKind.MEDIUM},
        {ExampleKind.BRIDGE, ExampleKind.LOCAL},
        {ExampleKind.DIAGNOSTIC, ExampleKind.REPAIR, ExampleKind.NEW},
    ]
    assert sum(len(phase) for _, phase in phases) == len(examples)
    for _, phase in phases:  # in the order in which they came
        assert phase == [example for example in examples if example in phase]
