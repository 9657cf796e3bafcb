"""Files that survive being killed, and receipts that say what is done."""

import json
import os

import pytest

from reference.engines.artifacts import (
    NothingMoreToDo,
    RecordLog,
    RunFolder,
    StageFolder,
    StepLog,
    file_hash,
    read_records,
    write_records,
    write_whole,
)
from reference.records import Rejected

PLAN = ["eval/base", "1_difficulty", "2_traces", "iter1/1_sft/1_medium", "iter1/2_filter", "iter2/2_filter"]
SETTINGS = {"seed": 1, "sft.lr": 0.1, "sft.betas": (0.9, 0.95), "grpo.kl_coef": 0.001, "data.limit": None}


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


def test_a_checkpoints_hash_is_that_of_its_weights(tmp_path):
    for name, weights in [("a", b"1"), ("b", b"1"), ("c", b"2")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        (tmp_path / name / "config.json").write_text(name)
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b") != file_hash(tmp_path / "c")
    assert file_hash(tmp_path / "a" / "config.json") != file_hash(tmp_path / "b" / "config.json")


def test_a_log_finishes_sorted_by_problem_id(tmp_path):
    log = RecordLog(tmp_path / "stage" / "r.jsonl", Rejected)
    log.add(items("c", "a"))
    log.add(items("b"))
    assert "a" in log and "d" not in log and not log.path.exists()
    assert log.finish() == items("a", "b", "c")
    assert read_records(log.path, Rejected) == items("a", "b", "c")
    assert [path.name for path in log.path.parent.iterdir()] == ["r.jsonl"]


def test_a_log_is_on_disk_item_by_item_and_a_restart_takes_it_up(tmp_path):
    RecordLog(tmp_path / "r.jsonl", Rejected).add(items("c"))
    again = RecordLog(tmp_path / "r.jsonl", Rejected)
    assert "c" in again
    again.add(items("c", "a"))  # what is there is not added twice
    assert (tmp_path / "r.jsonl.partial").read_text().count("\n") == 2
    assert RecordLog(tmp_path / "r.jsonl", Rejected).finish() == items("a", "c")


@pytest.mark.parametrize("kept_bytes", [1, 30, -1])
def test_a_line_that_a_kill_cut_off_is_thrown_away(tmp_path, kept_bytes):
    log = RecordLog(tmp_path / "r.jsonl", Rejected)
    log.add(items("a", "b\u20ac"))
    whole = log.partial.read_bytes()
    second = whole.index(b"\n") + 1
    log.partial.write_bytes(whole[: second + kept_bytes] if kept_bytes > 0 else whole[:kept_bytes])
    again = RecordLog(tmp_path / "r.jsonl", Rejected)
    assert "a" in again and "b\u20ac" not in again
    again.add(items("b\u20ac"))
    assert again.partial.read_bytes() == whole
    assert again.finish() == items("a", "b\u20ac")


def test_only_a_newline_ends_a_line(tmp_path):
    """A byte-complete tokenizer writes U+2028 or U+0085 sooner or later; Python's `splitlines` would cut there."""
    odd = Rejected("a", "x\u2028y\x85z\x0b\x0c\x1c\x1d\x1e\u2029\r\n")
    RecordLog(tmp_path / "r.jsonl", Rejected).add([odd])
    assert RecordLog(tmp_path / "r.jsonl", Rejected).finish() == [odd]
    assert read_records(tmp_path / "r.jsonl", Rejected) == [odd]


def test_a_finished_log_is_taken_up_too(tmp_path):
    """A stage has several logs; one that is finished is not done again when a later one is interrupted."""
    log = RecordLog(tmp_path / "r.jsonl", Rejected)
    log.add(items("b", "a"))
    log.finish()
    again = RecordLog(tmp_path / "r.jsonl", Rejected)
    assert "a" in again and "b" in again
    assert again.finish() == items("a", "b")


def test_a_log_whose_items_are_all_left_out_is_an_empty_file(tmp_path):
    assert RecordLog(tmp_path / "r.jsonl", Rejected).finish() == []
    assert (tmp_path / "r.jsonl").read_text() == ""


def rows(first, last):
    return [{"step": step, "loss": 1 / step} for step in range(first, last + 1)]


def test_a_step_log_goes_on_from_the_saved_state(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = StepLog(path, 0)
    for row in rows(1, 3):
        log.add(row)
    log.flush()
    log.add(rows(4, 4)[0])  # in memory only: the state that was saved is that of step 3, or of an earlier one
    for saved in (3, 2):
        again = StepLog(path, saved)
        assert again.rows == rows(1, saved)
    for row in rows(3, 5):
        again.add(row)
    assert again.finish() == rows(1, 5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows(1, 5)
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_step_log_from_the_beginning_forgets_what_was_there(tmp_path):
    log = StepLog(tmp_path / "metrics.jsonl", 0)
    log.add(rows(1, 1)[0])
    log.flush()
    assert StepLog(tmp_path / "metrics.jsonl", 0).finish() == []


def test_a_step_log_that_was_finished_before_the_stage_was_is_taken_up(tmp_path):
    """A kill between the log's end and the removal of the state: the state still says how many steps there are."""
    log = StepLog(tmp_path / "metrics.jsonl", 0)
    for row in rows(1, 3):
        log.add(row)
    log.flush()
    log.finish()
    assert StepLog(tmp_path / "metrics.jsonl", 2).rows == rows(1, 2)


def test_a_metric_that_is_no_number_is_never_written(tmp_path):
    log = StepLog(tmp_path / "metrics.jsonl", 0)
    log.add({"loss": float("nan")})
    with pytest.raises(ValueError):
        log.finish()


@pytest.fixture
def given(tmp_path):
    (tmp_path / "given.jsonl").write_text("one\n")
    return {"train": tmp_path / "given.jsonl"}


def stage_folder(tmp_path, said=None):
    return StageFolder(tmp_path / "1_difficulty", "1_difficulty", {"seed": 1}, (said if said is not None else []).append)


def test_a_receipt_tells_of_inputs_settings_counts_and_seconds(tmp_path, given):
    said = []
    stage = stage_folder(tmp_path, said)
    stage.begin(given)
    assert not stage.is_done
    begun = json.loads((stage.path / "receipt.json").read_text())
    assert begun["done"] is False and begun["inputs"] == {"train": file_hash(given["train"])}
    stage.finish({"problems": 3, "hard": 1}, note="a note")
    receipt = json.loads((stage.path / "receipt.json").read_text())
    assert receipt.pop("seconds") >= 0
    assert receipt == {**begun, "done": True, "counts": {"problems": 3, "hard": 1}}
    assert receipt["settings"] == {"seed": 1} and stage.is_done
    assert said[0].startswith("1_difficulty ") and "3 problems, 1 hard" in said[0] and "a note" in said[0]


def test_a_stage_with_a_receipt_is_kept_and_says_so(tmp_path, given):
    first = stage_folder(tmp_path)
    first.begin(given)
    first.finish({"problems": 3})
    said = []
    again = stage_folder(tmp_path, said)
    again.begin(given)
    assert again.is_done and "kept from before" in said[0] and "3 problems" in said[0]


def test_a_stage_that_was_only_begun_is_not_done(tmp_path, given):
    stage_folder(tmp_path).begin(given)
    again = stage_folder(tmp_path)
    again.begin(given)
    assert not again.is_done


@pytest.mark.parametrize("done", [True, False])
def test_an_input_that_has_changed_is_refused(tmp_path, given, done):
    stage = stage_folder(tmp_path)
    stage.begin(given)
    if done:
        stage.finish({"problems": 3})
    given["train"].write_text("two\n")
    with pytest.raises(ValueError, match="another train than is there now.*--redo 1_difficulty"):
        stage_folder(tmp_path).begin(given)


def run_folder(tmp_path, settings=SETTINGS, **options):
    return RunFolder(tmp_path / "run", settings, PLAN, say=lambda line: None, **options)


def finish(run, name, reads=()):
    stage = run.stage(name, reads, {})
    stage.finish({"items": 1})


def test_a_runs_settings_are_kept_and_read_again(tmp_path):
    run_folder(tmp_path)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["sft.betas"] == [0.9, 0.95]
    run_folder(tmp_path)  # a tuple comes back as a list, and is no change


@pytest.mark.parametrize("changed", [{"sft.lr": 0.2}, {"data.limit": 5}, {"sft.betas": (0.8, 0.95)}, {"new": 1}])
def test_a_changed_setting_is_refused_with_both_values(tmp_path, changed):
    run_folder(tmp_path)
    ((name, value),) = changed.items()
    with pytest.raises(ValueError, match=name) as caught:
        run_folder(tmp_path, SETTINGS | changed)
    before = json.loads(json.dumps(SETTINGS)).get(name)
    assert repr(before) in str(caught.value) and repr(json.loads(json.dumps(value))) in str(caught.value)
    assert json.loads((tmp_path / "run" / "config.json").read_text()).get(name) == before


def test_a_stage_notes_the_settings_it_reads(tmp_path):
    run = run_folder(tmp_path)
    finish(run, "1_difficulty", ("seed", "sft"))
    receipt = json.loads((tmp_path / "run" / "1_difficulty" / "receipt.json").read_text())
    assert receipt["settings"] == {"seed": 1, "sft.lr": 0.1, "sft.betas": [0.9, 0.95]}


def test_redo_throws_away_the_stage_and_all_after_it(tmp_path):
    run = run_folder(tmp_path)
    for name in PLAN:
        finish(run, name)
    again = run_folder(tmp_path, redo="2_traces")
    assert [name for name in PLAN if again.is_done(name)] == ["eval/base", "1_difficulty"]
    assert not (tmp_path / "run" / "2_traces").exists() and not (tmp_path / "run" / "iter2" / "2_filter").exists()


def test_redo_of_an_iteration_begins_at_its_first_stage(tmp_path):
    run = run_folder(tmp_path)
    for name in PLAN:
        finish(run, name)
    again = run_folder(tmp_path, redo="iter1")
    assert [name for name in PLAN if again.is_done(name)] == PLAN[:3]


def test_redo_frees_only_what_no_kept_stage_has_read(tmp_path):
    run = run_folder(tmp_path)
    finish(run, "1_difficulty", ("seed",))
    finish(run, "iter1/2_filter", ("seed", "grpo"))
    with pytest.raises(ValueError, match="grpo.kl_coef"):
        run_folder(tmp_path, SETTINGS | {"grpo.kl_coef": 0.5}, redo="iter2/2_filter")
    assert run_folder(tmp_path).is_done("iter1/2_filter")  # refused: nothing was thrown away
    again = run_folder(tmp_path, SETTINGS | {"grpo.kl_coef": 0.5}, redo="iter1")
    assert again.is_done("1_difficulty") and not again.is_done("iter1/2_filter")
    run_folder(tmp_path, SETTINGS | {"grpo.kl_coef": 0.5})


@pytest.mark.parametrize("options", [{"wanted": ["3_bridge"]}, {"redo": "3_bridge"}, {"wanted": ["1_diff"]}])
def test_an_unknown_stage_lists_all_and_touches_nothing(tmp_path, options):
    with pytest.raises(ValueError, match="there is no stage") as caught:
        run_folder(tmp_path, **options)
    assert all(name in str(caught.value) for name in PLAN)
    assert not (tmp_path / "run").exists()


def test_selected_stages_are_run_and_then_there_is_nothing_more(tmp_path):
    finish(run_folder(tmp_path), "1_difficulty")
    run = run_folder(tmp_path, wanted=["2_traces"])
    assert run.stage("1_difficulty", (), {}).is_done  # done before: it may be read
    finish(run, "2_traces")
    with pytest.raises(NothingMoreToDo):
        run.stage("iter1/1_sft/1_medium", (), {})


def test_a_selected_stage_that_needs_another_says_so(tmp_path):
    run = run_folder(tmp_path, wanted=["iter1"])
    with pytest.raises(ValueError, match="stage iter1/1_sft/1_medium needs 1_difficulty.*--stages"):
        run.stage("1_difficulty", (), {})
    assert not (tmp_path / "run" / "1_difficulty").exists()


def test_a_part_of_the_plan_is_selected_by_its_folder(tmp_path):
    assert run_folder(tmp_path, wanted=["iter1/"]).wanted == ["iter1/1_sft/1_medium", "iter1/2_filter"]
    assert run_folder(tmp_path, wanted=["iter2", "eval"]).wanted == ["eval/base", "iter2/2_filter"]


def test_an_evaluation_that_was_not_asked_for_is_left_out(tmp_path):
    run = run_folder(tmp_path, wanted=["1_difficulty"])
    assert not run.wants("eval/base") and run.wants("1_difficulty")
    finish(run_folder(tmp_path), "eval/base")
    assert run.wants("eval/base")


def test_a_runs_own_records_cannot_change(tmp_path):
    run = run_folder(tmp_path)
    path = run.keep("problems.jsonl", items("a", "b\u2028"))
    assert read_records(path, Rejected) == items("a", "b\u2028")
    assert run.keep("problems.jsonl", items("a", "b\u2028")) == path
    with pytest.raises(ValueError, match="problems.jsonl holds other records"):
        run.keep("problems.jsonl", items("a"))
