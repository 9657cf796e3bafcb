"""Records: JSON there and back, and one sentence for a line that is not such a record."""

import dataclasses
import json

import pytest

from reference import records
from reference.records import (
    Action,
    BridgedStep,
    BridgedTrace,
    Completion,
    Diagnosed,
    Diagnosis,
    DifficultyGroup,
    Evaluated,
    Evaluation,
    ExampleKind,
    Graded,
    Message,
    Problem,
    Rejected,
    RolloutGroup,
    Sampled,
    SFTExample,
    StepScores,
    Thresholds,
    Trace,
    from_json,
    to_json,
)

SCORES = StepScores(0.25, 1.0, 1.3)
KEPT = BridgedStep("### Step 1\n", "", SCORES, Action.LOCALIZE, "Easier.\n", True)
DROPPED = BridgedStep("By the way.", "### Step 1", SCORES, Action.DROP, None, False)
FINISHED, CUT = Completion((5, 0, 2), "7 \u00e9\u2028\x85\x00", True), Completion((5,), "", False)
DIAGNOSIS = Diagnosis("2 + 2 = 5", "calculation", "It is 4.", "sums", "Add again.", "2 + 2 = 4", "2 + 2 = 4\n#### 4")
EXAMPLES = [
    Problem("train-000001", 'How "many"?\n\\frac{1}{2}', "1234", "2+2=<<2+2=4>>4\n#### 4"),
    FINISHED,
    CUT,
    RolloutGroup("p", (FINISHED, CUT), (1.0, 0.0)),
    Graded("p", 64, 16, 3, 0.25, DifficultyGroup.MEDIUM),
    Trace("p", "text", 17, 3),
    SCORES,
    Thresholds(0.5, 0.5, 0.99),
    KEPT,
    DROPPED,
    BridgedTrace("p", "Easier.\n#### 4", (KEPT, DROPPED)),
    DIAGNOSIS,
    Diagnosed("p", "2 + 2 = 5", 2.25, DIAGNOSIS),
    Rejected("p", "no readable solution"),
    Message("user", "Hi"),
    SFTExample("p", ExampleKind.REPAIR, (Message("user", "Hi"), Message("assistant", "4"))),
    Evaluated("p", "#### 4", True, True),
    Sampled("p", 64, 3),
    Evaluation("base", "test", 150, 60, 0.4, 0.9, 0.75),
    Evaluation("base", "ood_style", 150, 60, 0.4, 0.9),
]


def test_every_record_type_is_tested_here():
    types = {value for value in vars(records).values() if isinstance(value, type) and dataclasses.is_dataclass(value)}
    assert types == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_json_there_and_back_gives_the_same_record_on_one_line(record):
    line = to_json(record)
    assert "\n" not in line and "\r" not in line
    assert from_json(type(record), line) == record


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_records_are_frozen(record):
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_a_field_without_a_value_is_left_out():
    assert "pass_at_8" not in json.loads(to_json(Evaluation("base", "ood_style", 10, 4, 0.4, 0.9)))
    assert json.loads(to_json(Evaluation("base", "test", 10, 4, 0.4, 0.9, 0.0)))["pass_at_8"] == 0.0


def test_fields_keep_their_order_and_letters():
    assert to_json(Rejected("p", "5 \u20ac")) == '{"problem_id": "p", "reason": "5 \u20ac"}'
    fields = list(json.loads(to_json(Evaluation("base", "test", 10, 4, 0.4, 0.9, 0.5))))
    assert fields == ["stage", "benchmark", "num_problems", "num_correct", "accuracy", "format_rate", "pass_at_8"]


def test_a_number_that_is_none_cannot_be_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(Evaluation("base", "test", 10, 4, float("nan"), 0.9))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"problem_id": "p", "num_samples": 8}', "num_correct"),
        ('{"problem_id": "p", "num_samples": 8, "num_correct": 1, "num_wrong": 7}', "num_wrong"),
        ('{"problem_id": "p", "num_samples": "eight", "num_correct": 1}', "num_samples"),
        ('{"problem_id": "p", "num_samples": "8", "num_correct": 1}', "num_samples"),
        ('{"problem_id": "p", "num_samples": 8.5, "num_correct": 1}', "num_samples"),
        ('{"problem_id": "p", "num_samples": 8, "num_correct": null}', "num_correct"),
        ('{"problem_id": 7, "num_samples": 8, "num_correct": 1}', "problem_id"),
        ('{"problem_id": null, "num_samples": 8, "num_correct": 1}', "problem_id"),
        ('{"problem_id": "p", "num_samples"', "Sampled"),
        ("[1, 2]", "Sampled"),
        ("null", "Sampled"),
        ("", "Sampled"),
    ],
)
def test_a_line_that_is_no_such_record_is_named_in_one_sentence(line, says):
    with pytest.raises(ValueError, match=says) as caught:
        from_json(Sampled, line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("record_type", "line"),
    [
        (Evaluated, '{"problem_id": "p", "response": "", "correct": "no", "has_answer": true}'),
        (Completion, '{"token_ids": "123", "text": "", "finished": true}'),
        (Completion, '{"token_ids": [1, "2"], "text": "", "finished": true}'),
        (RolloutGroup, '{"problem_id": "p", "responses": [{"token_ids": [], "text": ""}], "rewards": [1.0]}'),
        (SFTExample, '{"problem_id": "p", "kind": "essay", "messages": []}'),
    ],
)
def test_a_wrong_type_inside_a_record_is_refused_and_not_converted(record_type, line):
    with pytest.raises(ValueError, match=record_type.__name__):
        from_json(record_type, line)


def test_a_long_line_is_not_repeated_in_full():
    with pytest.raises(ValueError, match="not a Rejected record") as caught:
        from_json(Rejected, json.dumps({"problem_id": "p", "text": "x" * 10_000}))
    assert len(str(caught.value)) < 400
