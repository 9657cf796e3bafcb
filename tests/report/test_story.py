"""A run's folder as plain data: whole, half, a single stage, damaged."""

import json
import shutil
from dataclasses import replace

import pytest

from reference.config import TINY, ReadingsConfig
from reference.engines.artifacts import read_records
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.records import Rejected, RolloutGroup, to_json
from reference.report.story import DOES, read_group, read_run
from reference.stages.plan import stage_names


def test_a_finished_run_has_every_stage_with_its_counts_and_seconds(small_run):
    run = read_run(small_run)
    assert [stage.name for stage in run.stages] == stage_names(TINY)
    assert run.unfinished == [] and run.name == "small" and run.environment["device"] == "cpu"
    for stage in run.stages:
        receipt = json.loads((small_run / stage.name / "receipt.json").read_text())
        assert (stage.counts, stage.seconds) == (receipt["counts"], receipt["seconds"])
    assert run.seconds == pytest.approx(sum(stage.seconds for stage in run.stages))
    assert len(run.problems) == len(run.graded) == 12 and len(run.iterations) == 2
    assert [iteration.recycles for iteration in run.iterations] == [True, False]
    assert list(run.iterations[0].sft) == ["1_medium", "2_bridge"]
    assert list(run.iterations[1].sft) == ["union"]


def test_every_stage_is_told_in_one_line(small_run):
    lines = [stage.does for stage in read_run(small_run).stages]
    assert all(lines) and "greedy accuracy of iter1/1_sft/2_bridge" in lines
    phases = replace(TINY, readings=ReadingsConfig(later_sft="phases"))
    names = [*stage_names(TINY), *stage_names(phases)]
    assert {name.rsplit("/", 1)[-1] for name in names if not name.startswith("eval/iter")} == set(DOES)


def test_a_run_of_an_older_version_is_a_sentence(copied):
    settings = json.loads((copied / "config.json").read_text())
    old = {name: value for name, value in settings.items() if not name.startswith("readings.")}
    (copied / "config.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="is a run of an older version of this project"):
        read_run(copied)


def test_an_outcome_leads_to_its_whole_group(small_run):
    run = read_run(small_run)
    for iteration in run.iterations:
        groups = read_records(small_run / f"iter{iteration.number}/2_filter/rollouts.jsonl", RolloutGroup)
        assert [read_group(run, iteration.number, outcome) for outcome in iteration.outcomes] == groups
        counts = next(s.counts for s in run.stages if s.name == f"iter{iteration.number}/2_filter")
        for kind in ("all-zero", "mixed", "all-one"):
            assert sum(outcome.kind == kind for outcome in iteration.outcomes) == counts[kind]


def test_of_an_unfinished_stage_nothing_is_read(copied):
    receipt = copied / "3_bridge" / "receipt.json"
    receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "done": False}))
    shutil.rmtree(copied / "iter2")
    run = read_run(copied)
    assert run.bridged == [] and run.calibration is None and run.traces
    states = {stage.name: stage.state for stage in run.unfinished}
    assert states["3_bridge"] == "begun" and states["iter2/2_filter"] == "missing"
    assert run.iterations[1].outcomes == () and run.iterations[1].sft == {}


def test_a_run_that_has_just_begun(copied):
    for path in copied.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = read_run(copied)
    assert {stage.state for stage in run.stages} == {"missing"}
    assert run.problems == {} and run.environment == {} and run.results == [] and run.tokenizer is None


def test_rejections_come_with_their_stage(copied):
    (copied / "2_traces" / "rejected.jsonl").write_text(to_json(Rejected("train-000001", "no answer")) + "\n")
    stage = next(stage for stage in read_run(copied).stages if stage.name == "2_traces")
    assert [record.reason for record in stage.rejected] == ["no answer"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no config.json; give the folder of a run"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match="config.json is not a run's, a model's perhaps; give the folder of a run"):
        read_run(BASE_CHECKPOINT)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("iter1/2_filter/rollouts.jsonl", "{"),
        ("iter1/2_filter/rollouts.jsonl", '{"problem_id": "train-000001"}'),
        ("iter1/2_filter/rollouts.jsonl", "[]"),
        ("iter1/3_grpo/metrics.jsonl", "{"),
    ],
)
def test_a_damaged_file_is_named(copied, name, line):
    (copied / name).write_text(line)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        read_run(copied)
