"""What the three stages that ask the teacher share: many items at a time, each item's record or rejection once."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from reference.engines.artifacts import ProblemRecord
from reference.engines.parallel import in_parallel
from reference.engines.progress import with_progress
from reference.engines.run_folder import StageFolder
from reference.interfaces import Teacher, UnusableAnswer
from reference.records import Rejected

Item = TypeVar("Item")


def ask_teacher(
    stage: StageFolder,
    file_name: str,
    record_type: type[ProblemRecord],
    items: Mapping[str, Item],
    answer: Callable[[Item], ProblemRecord],
    teacher: Teacher,
    max_rejected: float,
    rejections: str = "rejected.jsonl",
) -> tuple[list[ProblemRecord], list[Rejected]]:
    """`answer(item)` for each problem id's item: the records, and the rejections where the answer was unusable.

    Raises:
        ValueError: more than `max_rejected` of the items were rejected.
    """
    log, refused = stage.log(file_name, record_type), stage.log(rejections, Rejected)
    share = stage.process.share
    left = [problem_id for problem_id in share.of(list(items)) if problem_id not in log and problem_id not in refused]

    def answered(problem_id: str) -> ProblemRecord | Rejected:
        try:
            return answer(items[problem_id])
        except UnusableAnswer as error:
            return Rejected(problem_id, str(error))

    failure: Exception | None = None
    try:
        for record in with_progress(in_parallel(left, answered, teacher.concurrency), len(left), stage.name):
            if isinstance(record, Rejected):
                refused.add([record])
            else:
                log.add([record])
    except (ValueError, OSError) as error:
        failure = error
    failures = stage.process.gather(failure is not None)  # the others finish their shares, and then end as well
    if failure is not None:
        raise failure
    if any(failures):
        raise SystemExit(2)
    records, rejected = log.finish(), refused.finish()
    if len(rejected) > max_rejected * len(items):
        reason, times = Counter(record.reason for record in rejected).most_common(1)[0]
        raise ValueError(
            f"{stage.name}: the teacher's answers were unusable for {len(rejected)} of {len(items)} items, more than "
            f"--teacher.max-rejected {max_rejected} allows (most often, {times} times: {reason}); see "
            f"{stage.path / rejections}. Mend the teacher and --redo {stage.name}, or allow more; to have the "
            "same questions answered anew, delete the run's teacher/calls-*.jsonl first"
        )
    return records, rejected
