"""`--tracker`: a real TensorBoard file has what metrics.jsonl has; a package that is missing is said at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reference.engines.distributed import Process, check_tracker

ROOT = Path(__file__).parents[1]
SMALL = """
    --data.limit 12 --data.tests --difficulty.num-samples 4 --difficulty.max-new-tokens 32
    --grpo.batch-size 4 --grpo.mini-batch-size 2 --grpo.num-rollouts 4 --grpo.max-new-tokens 32
    --tracker tensorboard --stages 1_difficulty 2_traces 3_bridge iter1/1_sft
""".split()


def scalars(folder):
    """{tag: {step: value}} of all event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return found


def test_tensorboard_has_every_step_of_training(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard's files need tensorboard: pip install '.[trackers]'")
    command = [sys.executable, "run_paper.py", "tiny", "--out", str(tmp_path / "run"), *SMALL]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0 and process.stderr == "", process.stderr
    found = scalars(tmp_path / "run")
    logged = sorted((tmp_path / "run").rglob("metrics.jsonl"))
    assert logged
    for path in logged:
        stage = path.parent.relative_to(tmp_path / "run")
        for row in map(json.loads, path.read_text().splitlines()):
            for name in row.keys() - {"step"}:
                assert found[f"{stage}/{name}"][row["step"]] == pytest.approx(row[name], rel=1e-6)


def test_a_package_that_is_not_installed_is_said_before_anything_is_done():
    with pytest.raises(ValueError, match=r"--tracker nowhere needs the package nowhere: pip install '.\[trackers\]'"):
        check_tracker("nowhere")


def test_without_a_tracker_nothing_is_handed_on():
    process = Process()
    process.track({"loss": 1.0}, 1)
    process.end_tracker()
