"""Recycling: every failed problem is diagnosed or rejected with a reason, and nothing is asked twice."""

import json

import pytest

from reference.config import Config, RecyclingConfig, TeacherConfig, flatten
from reference.engines.artifacts import read_records, write_records, write_whole
from reference.engines.run_folder import RunFolder
from reference.interfaces import UnusableAnswer
from reference.records import (
    Completion,
    Diagnosed,
    ExampleKind,
    Problem,
    Rejected,
    RolloutGroup,
)
from reference.stages.build_bridge import Calibration
from reference.stages.recycle_failures import recycle_failures

NAME = "iter1/4_recycle"
PROBLEMS = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(3)]
SHORT, LONG = Completion((1,) * 3, "no idea", True), Completion((1,) * 50, "It is 9\n#### 9", True)
FAILED = [RolloutGroup(problem.id, (SHORT, LONG), (0.0, 0.0)) for problem in PROBLEMS]


class Diagnosing:
    """A teacher that diagnoses, but for the problems it is told to leave out."""

    concurrency = 1

    def __init__(self, leaves_out=()):
        self.leaves_out, self.asked = leaves_out, []

    def diagnose(self, problem, response):
        self.asked.append((problem.id, response))
        if problem.id in self.leaves_out:
            raise UnusableAnswer("no readable solution")
        names = ("error_type", "why_wrong", "missing_knowledge", "minimal_fix", "correct_next_step")
        values = {"first_error": "It is 9", **dict.fromkeys(names, "text")}
        return json.dumps({**values, "short_correct_reasoning": f"Sum.\n#### {problem.gold}"})


def recycled(path, student, teacher, calibration=Calibration(1.0, 100.0, 5.0), config=Config()):
    run = RunFolder(path, flatten(config), [NAME], say=lambda line: None)
    run.take_up(PROBLEMS, [], student.prompts)
    write_records(path / "iter1" / "2_filter" / "rollouts.jsonl", FAILED)
    write_whole(path / "3_bridge" / "calibration.json", "{}")
    return recycle_failures(run, config, NAME, PROBLEMS, FAILED, calibration, student, teacher)


def test_each_failed_problem_gives_three_examples_from_its_near_miss(random_student, tmp_path):
    teacher = Diagnosing()
    examples = recycled(tmp_path, random_student, teacher)
    assert teacher.asked == [(problem.id, LONG.text) for problem in PROBLEMS]
    assert [example.kind for example in examples] == [ExampleKind.DIAGNOSTIC, ExampleKind.REPAIR, ExampleKind.NEW] * 3
    again = recycled(tmp_path, random_student, teacher)
    assert again == examples and len(teacher.asked) == 3


def test_what_the_teacher_cannot_diagnose_is_left_out_with_its_reason(random_student, tmp_path):
    examples = recycled(tmp_path, random_student, Diagnosing(leaves_out=("p1",)))
    assert {example.problem_id for example in examples} == {"p0", "p2"}
    assert read_records(tmp_path / NAME / "rejected.jsonl", Rejected) == [Rejected("p1", "no readable solution")]
    counts = json.loads((tmp_path / NAME / "receipt.json").read_text())["counts"]
    assert counts == {
        "failed": 3,
        "diagnosed": 2,
        "rejected": 1,
        "without a place for the repair": 0,
        "examples": 6,
    }


def test_an_interrupted_stage_asks_nothing_twice(random_student, tmp_path):
    class Interrupting(Diagnosing):
        def diagnose(self, problem, response):
            if problem.id == "p2":
                raise KeyboardInterrupt
            return super().diagnose(problem, response)

    first, second = Interrupting(leaves_out=("p0",)), Diagnosing(leaves_out=("p0",))
    with pytest.raises(KeyboardInterrupt):
        recycled(tmp_path, random_student, first)
    recycled(tmp_path, random_student, second)
    assert [problem_id for problem_id, _ in first.asked + second.asked] == ["p0", "p1", "p2"]
    assert [record.problem_id for record in read_records(tmp_path / NAME / "diagnosed.jsonl", Diagnosed)] == [
        "p1",
        "p2",
    ]


def test_without_a_trace_to_measure_thresholds_on_each_failure_is_rejected_with_the_remedy(random_student, tmp_path):
    teacher = Diagnosing()
    config = Config(teacher=TeacherConfig(max_rejected=1.0))
    assert recycled(tmp_path, random_student, teacher, Calibration(None, None, None), config) == []
    assert teacher.asked == []
    rejected = read_records(tmp_path / NAME / "rejected.jsonl", Rejected)
    assert [record.problem_id for record in rejected] == ["p0", "p1", "p2"]
    assert all("--recycling.tau-length" in record.reason for record in rejected)


@pytest.mark.parametrize(("equations", "chosen"), [("paper", 0), ("verl", 1)])
def test_the_near_miss_has_an_answer_that_the_rewards_verifier_reads(random_student, tmp_path, equations, chosen):
    """What verl does not read is no answer of Eq. 33, however ours would read it."""
    responses = tuple(Completion((1,) * 50, f"It is 9\n{answer}", True) for answer in ("####1", "#### 9"))
    problem, failed = PROBLEMS[0], RolloutGroup("p0", responses, (0.0, 0.0))
    run = RunFolder(tmp_path, flatten(Config(equations=equations)), [NAME], say=lambda line: None)
    run.take_up(PROBLEMS, [], random_student.prompts)
    write_records(tmp_path / "iter1" / "2_filter" / "rollouts.jsonl", [failed])
    write_whole(tmp_path / "3_bridge" / "calibration.json", "{}")
    teacher, taus = Diagnosing(), Calibration(1.0, 100.0, 5.0)
    recycle_failures(run, Config(equations=equations), NAME, [problem], [failed], taus, random_student, teacher)
    assert teacher.asked == [("p0", responses[chosen].text)]
    assert json.loads((tmp_path / NAME / "receipt.json").read_text())["settings"]["equations"] == equations


def test_given_thresholds_are_used_without_a_hard_problem(random_student, tmp_path):
    config = Config(recycling=RecyclingConfig(tau_length=243.0, tau_steps=7.4))
    assert len(recycled(tmp_path, random_student, Diagnosing(), Calibration(None, 243.0, 7.4), config)) == 9
