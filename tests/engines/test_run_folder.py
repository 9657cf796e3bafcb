"""Receipts that say what is done, and what may be done again."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from reference.engines.artifacts import file_hash, read_records
from reference.engines.distributed import Process
from reference.engines.run_folder import ELSEWHERE, NothingMoreToDo, RunFolder, StageFolder
from reference.paper.prompts import Prompts
from reference.records import Rejected

PLAN = ["eval/base", "1_difficulty", "2_traces", "iter1/1_sft/1_medium", "iter1/2_filter", "iter2/2_filter"]
SETTINGS = {"seed": 1, "sft.lr": 0.1, "sft.betas": (0.9, 0.95), "grpo.kl_coef": 0.001, "data.limit": None}


def items(*ids):
    return [Rejected(problem_id, f"reason of {problem_id}") for problem_id in ids]


@pytest.fixture
def given(tmp_path):
    (tmp_path / "given.jsonl").write_text("one\n")
    return {"train": tmp_path / "given.jsonl"}


def stage_folder(tmp_path, said=None):
    return StageFolder(
        tmp_path / "1_difficulty", "1_difficulty", {"seed": 1}, (said if said is not None else []).append, Process()
    )


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
    assert receipt == {**begun, "done": True, "outputs": {}, "counts": {"problems": 3, "hard": 1}}
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


@pytest.mark.parametrize("left", ["receipt.json", "state.pt"])
def test_a_file_that_could_not_be_written_is_no_output_of_the_stage(tmp_path, given, monkeypatch, left):
    stage = stage_folder(tmp_path)
    stage.begin(given)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        stage.write(left, "half")
    monkeypatch.undo()
    again = stage_folder(tmp_path)
    again.begin(given)
    again.write("output.jsonl", "one\n")
    again.finish({"problems": 3})
    assert sorted(path.name for path in again.path.iterdir()) == ["output.jsonl", "receipt.json"]
    kept = stage_folder(tmp_path)
    kept.begin(given)
    assert kept.is_done


def full_disk(descriptor):
    raise OSError("No space left on device")


@pytest.mark.parametrize("done", [True, False])
def test_an_input_that_has_changed_is_refused(tmp_path, given, done):
    stage = stage_folder(tmp_path)
    stage.begin(given)
    if done:
        stage.finish({"problems": 3})
    given["train"].write_text("two\n")
    with pytest.raises(ValueError, match="another train than is there now.*--redo 1_difficulty"):
        stage_folder(tmp_path).begin(given)


def run_folder(tmp_path, settings=SETTINGS, problems=("a",), tests=("t",), prompts=Prompts(), **options):
    run = RunFolder(tmp_path / "run", settings, PLAN, say=lambda line: None, **options)
    run.take_up(items(*problems), items(*tests), prompts)
    return run


def finish(run, name, reads=()):
    is_test = name.startswith("eval/")
    copies = [run.benchmarks_path if is_test else run.problems_path, run.prompts_path]
    stage = run.stage(name, reads, {path.name: path for path in copies})
    stage.finish({"items": 1})
    (stage.path / "output").write_text("x")


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


def finish_with(run, name, reads, inputs):
    stage = run.stage(name, reads, inputs)
    stage.write("output", "x")
    stage.finish({"items": len(inputs)})


def test_a_text_may_be_an_input_and_cannot_change(tmp_path):
    finish_with(run_folder(tmp_path), "1_difficulty", (), {"examples": "one"})
    assert run_folder(tmp_path).stage("1_difficulty", (), {"examples": "one"}).is_done
    with pytest.raises(ValueError, match="was begun with another examples than is there now"):
        run_folder(tmp_path).stage("1_difficulty", (), {"examples": "two"})


def test_a_variant_shares_the_stages_that_come_out_the_same(tmp_path):
    run = run_folder(tmp_path)
    finish_with(run, "1_difficulty", ("seed",), {"text": "one"})
    finish_with(run, "2_traces", ("sft",), {})
    variant = run.variant("other", SETTINGS | {"sft.lr": 0.2}, PLAN)
    stage = variant.stage("1_difficulty", ("seed",), {"text": "one"})
    assert stage.is_done and stage.counts == {"items": 1}
    assert stage.path == variant.folder("1_difficulty") == tmp_path / "run" / "1_difficulty"
    changed = {"1_difficulty": (("seed",), {"text": "two"}), "2_traces": (("sft",), {})}  # another input, a setting
    for name, (reads, inputs) in changed.items():
        stage = run.variant("third", SETTINGS | {"sft.lr": 0.2}, PLAN).stage(name, reads, inputs)
        assert not stage.is_done and stage.path == tmp_path / "run" / "variants" / "third" / name


def test_a_variant_takes_stages_of_the_variants_that_it_shares_them_with(tmp_path):
    run = run_folder(tmp_path)
    first = run.variant("first", SETTINGS | {"sft.lr": 0.2}, PLAN)
    finish_with(first, "2_traces", ("sft",), {"text": "one"})
    second = run.variant("second", SETTINGS | {"sft.lr": 0.2}, PLAN, shares=("first",))
    assert second.kept("2_traces") == first.folder("2_traces")  # what a dry run counts from
    assert second.stage("2_traces", ("sft",), {"text": "one"}).path == first.folder("2_traces")
    second.keep_elsewhere()
    kept = json.loads((second.path / ELSEWHERE).read_text())
    assert {name: (second.path / path).resolve() for name, path in kept.items()} == {
        "2_traces": first.folder("2_traces").resolve()
    }
    others = {"another input": (0.2, "two", ("first",)), "another setting": (0.3, "one", ("first",))}
    others["a stranger"] = (0.2, "one", ())
    for name, (lr, text, shares) in others.items():
        variant = run.variant(name, SETTINGS | {"sft.lr": lr}, PLAN, shares=shares)
        assert not variant.stage("2_traces", ("sft",), {"text": text}).is_done, name


def test_a_name_that_is_no_setting_is_our_mistake(tmp_path):
    """Else a stage would be bound to less than it reads, and nobody would know."""
    with pytest.raises(AssertionError, match="there is no setting sft.rate"):
        run_folder(tmp_path).stage("1_difficulty", ("seed", "sft.rate"), {})


def test_a_variant_shares_nothing_that_is_half_done_or_damaged(tmp_path):
    run = run_folder(tmp_path)
    run.stage("1_difficulty", ("seed",), {})
    assert not run.variant("other", SETTINGS, PLAN).stage("1_difficulty", ("seed",), {}).is_done
    finish_with(run, "2_traces", ("seed",), {})
    (tmp_path / "run" / "2_traces" / "output").write_text("changed")
    with pytest.raises(ValueError, match="is not as stage 2_traces left it"):
        run.variant("third", SETTINGS, PLAN).stage("2_traces", ("seed",), {})


def test_a_variant_reads_the_counts_of_the_run_it_is_a_variant_of(tmp_path):
    run = run_folder(tmp_path)
    finish_with(run, "1_difficulty", (), {})
    assert run.variant("other", SETTINGS, PLAN).original_counts("1_difficulty") == {"items": 0}
    with pytest.raises(ValueError, match="needs 2_traces of the run in .* which is not done yet"):
        run.variant("other", SETTINGS, PLAN).original_counts("2_traces")


def test_a_variant_keeps_its_settings_too(tmp_path):
    run = run_folder(tmp_path)
    run.variant("other", SETTINGS | {"sft.lr": 0.2}, PLAN).keep_settings()
    with pytest.raises(ValueError, match="was begun with sft.lr = 0.2"):
        run.variant("other", SETTINGS | {"sft.lr": 0.3}, PLAN)


CHANGED = {"problems": ("a", "b"), "tests": ("u",), "prompts": replace(Prompts(), student="{question}?")}


@pytest.mark.parametrize("changed", CHANGED)
def test_a_runs_own_records_cannot_change(tmp_path, changed):
    finish(run_folder(tmp_path), "eval/base")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="holds other records"):
        run_folder(tmp_path, **{changed: CHANGED[changed]})
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("changed", CHANGED)
def test_redo_frees_the_records_that_no_kept_stage_has_read(tmp_path, changed):
    for name in PLAN:
        finish(run_folder(tmp_path), name)
    with pytest.raises(ValueError, match="holds other records"):
        run_folder(tmp_path, redo="2_traces", **{changed: CHANGED[changed]})
    assert run_folder(tmp_path).is_done("iter2/2_filter")  # refused: nothing was thrown away
    run_folder(tmp_path, redo="1_difficulty")
    if changed == "problems":  # the only stage that is kept has read the benchmarks and the prompts
        run = run_folder(tmp_path, redo="1_difficulty", problems=CHANGED["problems"])
        assert read_records(run.problems_path, Rejected) == items("a", "b") and run.is_done("eval/base")
    run = RunFolder(tmp_path / "run", SETTINGS, ["1_difficulty"], redo="1_difficulty")
    shutil.rmtree(tmp_path / "run" / "eval")
    run.take_up(items("z"), items("y"), Prompts())
    assert read_records(run.problems_path, Rejected) == items("z")


def test_redo_of_an_evaluation_forgets_that_evaluation_only(tmp_path):
    run = run_folder(tmp_path)
    for name in PLAN:
        finish(run, name)
    (tmp_path / "run" / "eval" / "results.jsonl").write_text("all of them\n")
    again = run_folder(tmp_path, redo="eval/base")
    assert [name for name in PLAN if again.is_done(name)] == PLAN[1:]
    assert not (tmp_path / "run" / "eval" / "results.jsonl").exists()


@pytest.mark.parametrize("deleted", range(5))
def test_a_redo_that_is_killed_leaves_a_run_up_to_some_stage(tmp_path, monkeypatch, deleted):
    """Stages go from the last to the first, each by one rename; what a kill leaves behind is swept up later."""
    for name in PLAN:
        finish(run_folder(tmp_path), name)
    delete, begun = shutil.rmtree, []

    def killed(path):
        begun.append(path)
        if len(begun) > deleted:
            raise KeyboardInterrupt
        delete(path)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run_folder(tmp_path, redo="1_difficulty")
    monkeypatch.undo()
    again = run_folder(tmp_path)
    assert [name for name in PLAN if again.is_done(name)] == PLAN[: 5 - deleted]
    assert not [path for path in again.path.rglob("*") if path.name.endswith(".forgotten")]
    assert all((again.path / name).exists() == again.is_done(name) for name in PLAN)


def test_dry_run_sees_what_is_left(tmp_path):
    run = run_folder(tmp_path)
    finish(run, "1_difficulty")
    asked = RunFolder(tmp_path / "run", SETTINGS, PLAN, wanted=["1_difficulty", "2_traces"])
    assert [name for name in PLAN if asked.is_left(name)] == ["2_traces"]
    asked = RunFolder(tmp_path / "run", SETTINGS, PLAN, redo="1_difficulty")
    assert [name for name in PLAN if asked.is_left(name)] == PLAN
    assert run.is_done("1_difficulty")  # nothing was thrown away for asking


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_an_output_that_is_not_as_the_stage_left_it_names_the_stage_that_makes_it(tmp_path, given, damage):
    first = stage_folder(tmp_path)
    first.begin(given)
    (first.path / "output.jsonl").write_text("one\ntwo\n")
    first.finish({"problems": 3})
    stage_folder(tmp_path).begin(given)
    (first.path / "output.jsonl").write_text("two\n") if damage == "changed" else (first.path / "output.jsonl").unlink()
    with pytest.raises(ValueError, match="output.jsonl is not as stage.*--redo 1_difficulty"):
        stage_folder(tmp_path).begin(given)


def test_a_kept_stage_was_made_with_the_settings_of_now(tmp_path):
    finish(run_folder(tmp_path), "1_difficulty", ("seed",))
    (tmp_path / "run" / "config.json").unlink()  # or the stage was out of sight in a shorter plan
    with pytest.raises(ValueError, match="begun with seed = 1, and is now asked for 2.*--redo 1_difficulty"):
        run_folder(tmp_path, SETTINGS | {"seed": 2}).stage("1_difficulty", ("seed",), {})


def test_a_stage_that_is_not_in_the_plan_is_not_wanted(tmp_path):
    finish(run_folder(tmp_path), "eval/base")
    assert not RunFolder(tmp_path / "run", SETTINGS, PLAN[1:]).wants("eval/base")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"done": tru'])
@pytest.mark.parametrize("name", ["config.json", "1_difficulty/receipt.json"])
def test_a_damaged_file_is_named(tmp_path, name, text):
    finish(run_folder(tmp_path), "1_difficulty")
    (tmp_path / "run" / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        run_folder(tmp_path).stage("1_difficulty", (), {})


@pytest.mark.parametrize("text", ["{}", '{"done": true, "settings": {}, "inputs": {}}', '{"done": false}'])
def test_a_receipt_without_what_a_receipt_says_is_named(tmp_path, text):
    finish(run_folder(tmp_path), "1_difficulty")
    (tmp_path / "run" / "1_difficulty" / "receipt.json").write_text(text)
    with pytest.raises(ValueError, match="receipt.json is damaged .no '"):
        run_folder(tmp_path).stage("1_difficulty", (), {})


def test_one_process_at_a_time(tmp_path):
    run = run_folder(tmp_path)
    script = (
        "from pathlib import Path\nfrom reference.engines.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(run.path)!r}), {{}}, []).lock(): print('in')"
    )
    (run.path / "config.json").unlink()

    def other():
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    with run.lock():
        refused = other()
        assert refused.returncode == 1 and "another process is at work" in refused.stderr
    assert other().stdout == "in\n"
