"""Each item has its record or its rejection once, and too many rejections stop the asking while it goes on."""

import threading
from collections import Counter
from copy import deepcopy

import pytest

from reference.engines.artifacts import read_records
from reference.engines.distributed import Process
from reference.engines.run_folder import StageFolder
from reference.interfaces import Share, UnusableAnswer
from reference.records import Rejected, Trace
from reference.stages.ask_teacher import ask_teacher

ITEMS = {f"p{n:02}": n for n in range(24)}


class Teacher:
    """Has nothing to say on some of the items."""

    def __init__(self, unsolved, concurrency=1):
        self.unsolved, self.concurrency, self.asked = set(unsolved), concurrency, Counter()

    def trace(self, item):
        self.asked[item] += 1
        if item in self.unsolved:
            raise UnusableAnswer(f"{item} is too hard")
        return Trace(f"p{item:02}", f"#### {item}", 1, 1)


class OneOf(Process):
    """One of several processes, which are threads here."""

    def __init__(self, rank, barrier, values):
        super().__init__()
        self.rank, self.size, self.share = rank, barrier.parties, Share(rank, barrier.parties)
        self.barrier, self.values = barrier, values

    def gather(self, value):
        self.values[self.rank] = value
        self.barrier.wait(60)
        everyones = deepcopy(self.values)  # nothing is shared
        self.barrier.wait(60)
        return everyones

    def on_main(self, work):
        return self.gather(work() if self.is_main else None)[0]


def asked(tmp_path, teacher, max_rejected, process=None):
    stage = StageFolder(tmp_path / "2_traces", "2_traces", {}, lambda line: None, process or Process())
    stage.begin({})
    return ask_teacher(stage, "traces.jsonl", Trace, ITEMS, teacher.trace, teacher, max_rejected)


def asked_by(tmp_path, teachers, max_rejected):
    """What each of several processes got, or the error that it ended with."""
    barrier, values, ends = threading.Barrier(len(teachers)), [None] * len(teachers), [None] * len(teachers)

    def work(rank):
        try:
            ends[rank] = asked(tmp_path, teachers[rank], max_rejected, OneOf(rank, barrier, values))
        except ValueError as error:
            ends[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(teachers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


def ids(records):
    return [record.problem_id for record in records]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_as_many_rejections_as_are_allowed_stop_nothing(tmp_path, concurrency):
    teacher = Teacher(range(0, 24, 4), concurrency)
    records, rejected = asked(tmp_path, teacher, 6 / 24)
    assert ids(rejected) == list(ITEMS)[::4]
    assert sorted(ids(records) + ids(rejected)) == list(ITEMS)
    assert max(teacher.asked.values()) == 1


def test_one_more_stops_at_once_and_a_larger_share_goes_on_from_there(tmp_path):
    teacher = Teacher(range(0, 24, 2))
    said = (
        "2_traces: the teacher's answers were unusable for 6 of the 11 items asked so far, more than --teacher.max-rej"
    )
    for _ in range(2):  # asking again changes nothing
        with pytest.raises(ValueError, match=said):
            asked(tmp_path, teacher, 5 / 24)
        assert teacher.asked == Counter(range(11))
    assert ids(read_records(tmp_path / "2_traces" / "rejected.jsonl", Rejected)) == list(ITEMS)[:11:2]
    records, rejected = asked(tmp_path, teacher, 0.5)
    assert ids(rejected) == list(ITEMS)[::2] and ids(records) == list(ITEMS)[1::2]
    assert teacher.asked == Counter(range(24))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_stop_together_with_one_sentence_before_all_is_asked(tmp_path, size):
    teachers = [Teacher(ITEMS.values()) for _ in range(size)]
    ends = asked_by(tmp_path, teachers, 0.5)
    assert len({str(end) for end in ends}) == 1 and "more than --teacher.max-rejected 0.5" in str(ends[0])
    total = sum(len(teacher.asked) for teacher in teachers)
    assert 12 < total <= 12 + size and f"unusable for {total} of the {total} items asked so far" in str(ends[0])


@pytest.mark.parametrize("bad", [range(0, 24, 2), range(0, 24, 3), [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11], []])
def test_rejections_that_fall_to_one_process_stop_no_more_than_they_would_in_one(tmp_path, bad):
    alone = asked(tmp_path / "alone", Teacher(bad), len(bad) / 24)
    teachers = [Teacher(bad), Teacher(bad)]
    assert asked_by(tmp_path / "both", teachers, len(bad) / 24) == [alone, alone]
    assert sum((teacher.asked for teacher in teachers), Counter()) == Counter(range(24))
    if bad:
        few = (len(bad) - 1) / 24
        assert all(isinstance(end, ValueError) for end in asked_by(tmp_path / "few", [Teacher(bad), Teacher(bad)], few))
        assert asked_by(tmp_path / "few", [Teacher(bad), Teacher(bad)], len(bad) / 24) == [alone, alone]
