"""What the three stages that ask the teacher share: many items at a time, each item's record or rejection once."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
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
        ValueError: more than `max_rejected` of the items were rejected. It says so as soon as that is sure, in every
            process, and the rest is not asked.
    """
    log, refused = stage.log(file_name, record_type), stage.log(rejections, Rejected)
    process, most = stage.process, math.floor(max_rejected * len(items))
    own = process.share.of(list(items))
    before = len(refused.records)  # the same in every process, as all that was left behind
    failure: Exception | None = None

    def answered(problem_id: str) -> ProblemRecord | Rejected:
        try:
            return answer(items[problem_id])
        except UnusableAnswer as error:
            return Rejected(problem_id, str(error))

    def ask(left: Sequence[str], room: int) -> None:
        """Ask for all that is left, or until more than `room` of it was rejected."""
        full = len(refused.records) + room
        with closing(in_parallel(left, answered, teacher.concurrency)) as answers:
            for record in with_progress(answers, len(left), stage.name):
                if isinstance(record, Rejected):
                    refused.add([record])
                else:
                    log.add([record])
                if len(refused.records) > full:
                    return

    while True:
        left = [problem_id for problem_id in own if problem_id not in log and problem_id not in refused]
        # Who has failed, or rejected a part of what all may reject together, waits here for the others to come as far.
        everyones = process.gather((failure is not None, len(left), len(refused.records) - before))
        if failure is not None:
            raise failure
        if any(failed for failed, _, _ in everyones):
            raise SystemExit(2)
        num_left, num_rejected = sum(one[1] for one in everyones), before + sum(one[2] for one in everyones)
        if num_rejected > most:
            share = f"{num_rejected} of the {len(items) - num_left} items asked so far"
            raise _too_many(stage, refused.finish(), share, len(items), max_rejected, rejections)
        if num_left == 0:
            return log.finish(), refused.finish()
        try:
            ask(left, (most - num_rejected) // process.size)
        except (ValueError, OSError) as error:
            failure = error


def _too_many(
    stage: StageFolder, rejected: Sequence[Rejected], share: str, num_items: int, max_rejected: float, rejections: str
) -> ValueError:
    reason, times = Counter(record.reason for record in rejected).most_common(1)[0]
    return ValueError(
        f"{stage.name}: the teacher's answers were unusable for {share}, more than --teacher.max-rejected "
        f"{max_rejected} allows of all {num_items} (most often, {times} times: {reason}); see "
        f"{stage.path / rejections}. Mend the teacher and --redo {stage.name}, or allow more; to have the "
        "same questions answered anew, delete the run's teacher/calls-*.jsonl first"
    )
