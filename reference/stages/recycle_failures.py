"""Section 3.3 and Appendix C.2: all-zero problems -> near miss -> diagnosis -> supervision (Eqs. 15-19, 29-34)."""

from collections.abc import Sequence

from reference.config import Config
from reference.engines.artifacts import read_records
from reference.engines.run_folder import RunFolder
from reference.engines.student import Student
from reference.interfaces import Teacher, UnusableAnswer
from reference.paper import verl
from reference.paper.answers import extract_answer
from reference.paper.recycling import (
    diagnose,
    has_repair,
    incorrect_responses,
    recycled_set,
    select_near_miss,
)
from reference.records import Diagnosed, Problem, RolloutGroup, SFTExample
from reference.stages.ask_teacher import ask_teacher
from reference.stages.build_bridge import Calibration
from reference.stages.plan import filter_of


def recycle_failures(
    run: RunFolder,
    config: Config,
    name: str,
    problems: Sequence[Problem],
    failed: Sequence[RolloutGroup],
    calibration: Calibration,
    student: Student,
    teacher: Teacher,
) -> list[SFTExample]:
    """D_rec of this iteration: the examples of each failed problem that the teacher can diagnose."""
    inputs = {
        "train": run.problems_path,
        "prompts": run.prompts_path,
        "rollouts": run.folder(filter_of(name)) / "rollouts.jsonl",
        "calibration": run.folder("3_bridge") / "calibration.json",
    }
    stage = run.stage(name, ("seed", "model", "equations", "teacher", "recycling"), inputs)
    by_id = {problem.id: problem for problem in problems}
    if stage.is_done:
        records = read_records(stage.path / "diagnosed.jsonl", Diagnosed)
        return _examples(records, by_id, student)

    def diagnosed(group: RolloutGroup) -> Diagnosed:
        return _diagnosed(group, by_id[group.problem_id], config, calibration, teacher)

    items = {group.problem_id: group for group in failed}
    limit = config.teacher.max_rejected
    records, rejected = ask_teacher(stage, "diagnosed.jsonl", Diagnosed, items, diagnosed, teacher, limit)
    examples = _examples(records, by_id, student)
    stage.finish(
        {
            "failed": len(failed),
            "diagnosed": len(records),
            "rejected": len(rejected),
            "without a place for the repair": sum(not has_repair(one.response, one.diagnosis) for one in records),
            "examples": len(examples),
        }
    )
    return examples


def _diagnosed(
    group: RolloutGroup, problem: Problem, config: Config, calibration: Calibration, teacher: Teacher
) -> Diagnosed:
    """The near miss of one failed problem, and what the teacher says of it. Raises UnusableAnswer."""
    if calibration.tau_length is None or calibration.tau_steps is None:
        raise UnusableAnswer(
            "no near miss without the thresholds of Table 9: the teacher has no usable trace to measure them on; "
            "give --recycling.tau-length and --recycling.tau-steps"
        )
    candidates = incorrect_responses(group)
    index, score = select_near_miss(
        candidates,
        tau_length=calibration.tau_length,
        tau_steps=calibration.tau_steps,
        weights=config.recycling.weights,
        answer_of=verl.extract_answer if config.equations == "verl" else extract_answer,
    )
    response = candidates[index].text
    return Diagnosed(problem.id, response, score, diagnose(teacher, problem, response))


def _examples(records: Sequence[Diagnosed], by_id: dict[str, Problem], student: Student) -> list[SFTExample]:
    """Eq. (19) over all diagnosed problems."""
    return [
        example
        for record in records
        for example in recycled_set(by_id[record.problem_id], record.response, record.diagnosis, student.prompts)
    ]
