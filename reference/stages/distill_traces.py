"""Section 3.2: the teacher's reasoning traces of medium and hard problems (Eq. 4)."""

from collections.abc import Sequence

from reference.config import Config
from reference.engines.artifacts import read_records
from reference.engines.run_folder import RunFolder
from reference.engines.student import Student
from reference.interfaces import Teacher, UnusableAnswer
from reference.paper.answers import extract_answer, is_correct
from reference.paper.bridge import processed_trace, split_steps
from reference.records import DifficultyGroup, Graded, Problem, Trace
from reference.stages.ask_teacher import ask_teacher

STAGE = "2_traces"


def distill_traces(
    run: RunFolder,
    config: Config,
    problems: Sequence[Problem],
    graded: Sequence[Graded],
    student: Student,
    teacher: Teacher,
) -> list[Trace]:
    """One trace for each problem that is not simple; a trace with another answer than the gold one is rejected."""
    difficulty = run.folder("1_difficulty") / "difficulty.jsonl"
    inputs = {"train": run.problems_path, "prompts": run.prompts_path, "difficulty": difficulty, "base": student.base}
    stage = run.stage(STAGE, ("seed", "model", "teacher"), inputs)
    if stage.is_done:
        return read_records(stage.path / "traces.jsonl", Trace)
    taught = {record.problem_id for record in graded if record.group is not DifficultyGroup.SIMPLE}

    def traced(problem: Problem) -> Trace:
        return trace_of(problem, student, teacher)

    wanted = {problem.id: problem for problem in problems if problem.id in taught}
    limit = config.teacher.max_rejected
    traces, rejected = ask_teacher(stage, "traces.jsonl", Trace, wanted, traced, teacher, limit)
    stage.finish({"traces": len(traces), "rejected": len(rejected)})
    return traces


def trace_of(problem: Problem, student: Student, teacher: Teacher, attempt: int = 0) -> Trace:
    """Eq. (4) for one problem; another `attempt` is a fresh trace. Raises UnusableAnswer."""
    text = _solved(problem, teacher, attempt)
    return Trace(problem.id, text, student.chat.count(text), len(split_steps(text)))


def _solved(problem: Problem, teacher: Teacher, attempt: int) -> str:
    """The teacher's trace, its last line in the form the verifier reads.

    Raises:
        UnusableAnswer: it gives no answer, or another than the gold one.
    """
    text = teacher.solve(problem, attempt)
    if not is_correct(text, problem.gold):
        raise UnusableAnswer(f"the trace answers {extract_answer(text)}, the gold answer is {problem.gold}")
    return processed_trace([text], problem.gold)
