"""Files that are whole or not there, and logs that survive being killed."""

import json
import os

import pytest

from reference.engines.artifacts import (
    RecordLog,
    StepLog,
    file_hash,
    read_records,
    write_records,
    write_whole,
)
from reference.engines.distributed import Process
from reference.interfaces import Share
from reference.records import Rejected


def items(*ids):
    return [Rejected(problem_id, f"reason of {problem_id}") for problem_id in ids]


def test_write_whole_leaves_the_old_text_when_it_fails(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new" * 100_000 + "\ud800")
    assert path.read_text() == "old"
    write_whole(path, "new")
    assert path.read_text() == "new" and [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_write_whole_never_shows_a_part(tmp_path, monkeypatch):
    """The new text is on disk under another name before it takes the old one's place."""
    path = tmp_path / "file.txt"
    write_whole(path, "old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.read_text()))
    write_whole(path, "new")
    assert seen == ["old"]


def test_records_come_back_in_the_order_they_were_written(tmp_path):
    write_records(tmp_path / "r.jsonl", items("b", "a"))
    assert read_records(tmp_path / "r.jsonl", Rejected) == items("b", "a")
    (tmp_path / "r.jsonl").write_text('{"problem_id": "a"}\n')
    with pytest.raises(ValueError, match="reason"):
        read_records(tmp_path / "r.jsonl", Rejected)


def test_a_checkpoints_hash_is_that_of_all_that_makes_the_model(tmp_path):
    names = ("a", "b", "weights", "template", "lacking", "renamed")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"2" if name == "weights" else b"1")
        (tmp_path / name / "chat_template.jinja").write_text("other" if name == "template" else "same")
        (tmp_path / name / "notes.md").write_text(name)
    (tmp_path / "lacking" / "chat_template.jinja").unlink()
    (tmp_path / "renamed" / "chat_template.jinja").rename(tmp_path / "renamed" / "chat.jinja")
    hashes = {name: file_hash(tmp_path / name) for name in names}
    assert hashes["a"] == hashes["b"] and len(set(hashes.values())) == 5


def test_what_is_gone_has_no_hash(tmp_path):
    with pytest.raises(ValueError, match="checkpoint is gone; --redo"):
        file_hash(tmp_path / "checkpoint")


def test_a_log_finishes_sorted_by_problem_id(tmp_path):
    log = RecordLog(tmp_path / "stage" / "r.jsonl", Rejected, Process(), Share())
    log.add(items("c", "a"))
    log.add(items("b"))
    assert "a" in log and "d" not in log and not log.path.exists()
    assert log.finish() == items("a", "b", "c")
    assert read_records(log.path, Rejected) == items("a", "b", "c")
    assert [path.name for path in log.path.parent.iterdir()] == ["r.jsonl"]


def test_a_log_is_on_disk_item_by_item_and_a_restart_takes_it_up(tmp_path):
    RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share()).add(items("c"))
    again = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    assert "c" in again
    again.add(items("c", "a"))  # what is there is not added twice
    assert (tmp_path / "r.jsonl.partial").read_text().count("\n") == 2
    assert RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share()).finish() == items("a", "c")


def test_what_was_left_behind_is_not_exchanged_again(tmp_path, monkeypatch):
    """Every process has begun with it; a stage's rollouts are gigabytes."""
    RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share()).add(items("c"))
    process, exchanged = Process(), []
    monkeypatch.setattr(process, "gather", lambda records: [exchanged.extend(records), records][1:])
    again = RecordLog(tmp_path / "r.jsonl", Rejected, process, Share())
    again.add(items("c", "a"))
    again.add(items("b"))
    assert again.finish() == items("a", "b", "c") and exchanged == ["a", "b"]


@pytest.mark.parametrize("kept_bytes", [1, 30, -1])
def test_a_line_that_a_kill_cut_off_is_thrown_away(tmp_path, kept_bytes):
    log = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    log.add(items("a", "b\u20ac"))
    whole = log.partial.read_bytes()
    second = whole.index(b"\n") + 1
    log.partial.write_bytes(whole[: second + kept_bytes] if kept_bytes > 0 else whole[:kept_bytes])
    again = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    assert "a" in again and "b\u20ac" not in again
    again.add(items("b\u20ac"))
    assert again.partial.read_bytes() == whole
    assert again.finish() == items("a", "b\u20ac")


@pytest.mark.parametrize("damage", [b"\xff\n", b"{\n", b'{"problem_id": "b"}\n', b"\n"])
def test_a_damaged_line_of_a_partial_log_is_named_with_the_way_on(tmp_path, damage):
    log = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    log.add(items("a", "b", "c"))
    first, _, third = log.partial.read_bytes().splitlines(keepends=True)
    log.partial.write_bytes(first + damage + third)
    with pytest.raises(ValueError, match="r.jsonl.partial is damaged in line 2 .*delete that line, its item is done"):
        RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    log.partial.write_bytes(first + third)
    again = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    again.add(items("a", "b", "c"))
    assert again.finish() == items("a", "b", "c")


def test_only_a_newline_ends_a_line(tmp_path):
    """A byte-complete tokenizer writes U+2028 or U+0085 sooner or later; Python's `splitlines` would cut there."""
    odd = Rejected("a", "x\u2028y\x85z\x0b\x0c\x1c\x1d\x1e\u2029\r\n")
    RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share()).add([odd])
    assert RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share()).finish() == [odd]
    assert read_records(tmp_path / "r.jsonl", Rejected) == [odd]


def test_a_finished_log_is_taken_up_too(tmp_path):
    """A stage has several logs; one that is finished is not done again when a later one is interrupted."""
    log = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    log.add(items("b", "a"))
    log.finish()
    again = RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share())
    assert "a" in again and "b" in again
    assert again.finish() == items("a", "b")


def test_a_log_whose_items_are_all_left_out_is_an_empty_file(tmp_path):
    assert RecordLog(tmp_path / "r.jsonl", Rejected, Process(), Share()).finish() == []
    assert (tmp_path / "r.jsonl").read_text() == ""


def rows(first, last):
    return [{"step": step, "loss": 1 / step} for step in range(first, last + 1)]


def test_a_step_log_goes_on_from_the_saved_state(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = StepLog(path, 0, Process())
    for row in rows(1, 3):
        log.add(row)
    log.flush()
    log.add(rows(4, 4)[0])  # in memory only: the state that was saved is that of step 3, or of an earlier one
    for saved in (3, 2):
        again = StepLog(path, saved, Process())
        assert again.rows == rows(1, saved)
    for row in rows(3, 5):
        again.add(row)
    assert again.finish() == rows(1, 5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows(1, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_step_log_from_the_beginning_forgets_what_was_there(tmp_path):
    log = StepLog(tmp_path / "metrics.jsonl", 0, Process())
    log.add(rows(1, 1)[0])
    log.flush()
    assert StepLog(tmp_path / "metrics.jsonl", 0, Process()).finish() == []


def test_a_step_log_that_was_finished_before_the_stage_was_is_taken_up(tmp_path):
    """A kill between the log's end and the removal of the state: the state still says how many steps there are."""
    log = StepLog(tmp_path / "metrics.jsonl", 0, Process())
    for row in rows(1, 3):
        log.add(row)
    log.flush()
    log.finish()
    assert StepLog(tmp_path / "metrics.jsonl", 2, Process()).rows == rows(1, 2)


def test_a_metric_that_is_no_number_is_never_written(tmp_path):
    log = StepLog(tmp_path / "metrics.jsonl", 0, Process())
    log.add({"step": 1, "loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.finish()
