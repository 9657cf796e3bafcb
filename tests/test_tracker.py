"""`--tracker`: TensorBoard's and W&B's files have what metrics.jsonl has; a package that is missing is said at once."""

import json
import os
import struct
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
STAGES = ("iter1/1_sft/1_medium", "iter1/1_sft/2_bridge", "iter1/3_grpo")
# Two commands on one run: the first is ended within the last stage, behind a state that was saved after its step 2.
TWO_COMMANDS = f"""
import sys
from pathlib import Path
from reference.engines.artifacts import StepLog
from reference.engines.distributed import Process

process, folder = Process(), Path(sys.argv[1])
for command in range(2):
    process.start_tracker("wandb", folder, {{"seed": 1}})
    for stage in {STAGES} if command == 0 else {STAGES[-1:]}:
        log = StepLog(folder / stage / "metrics.jsonl", 2 * command, process, stage)
        for step in range(1 + 2 * command, 5):
            log.add({{"step": step, "loss": 1 / step, "lr": 0.5}})
            if command == 0 and stage == "iter1/3_grpo" and step == 2:
                log.flush()
                break
        else:
            log.finish()
    process.end_tracker()
"""


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


def wandb_records(path):
    """What W&B would send, message by message: a log in LevelDB's format, in blocks of 32 KiB, behind 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, message, records = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no place for a head: the rest of the block is empty
            at += 32768 - at % 32768
        _, size, kind = struct.unpack_from("<IHB", content, at)
        message += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            records.append(Record.FromString(message))
            message = b""
    return records


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


def test_wandb_has_every_step_of_every_stage_although_each_begins_with_1(tmp_path):
    """Also of a run that goes on: to W&B each command is a run, whose steps begin where the saved ones end."""
    pytest.importorskip("wandb", reason="W&B's files need wandb: pip install '.[trackers]'")
    folder = tmp_path / "run"
    folder.mkdir()
    kept = {f"WANDB_{name}_DIR": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}
    environment = {**os.environ, "WANDB_MODE": "offline", **kept}
    command = [sys.executable, "-c", TWO_COMMANDS, str(folder)]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0 and "WARNING" not in process.stderr, process.stderr

    steps, axes = {}, {}
    for path in sorted(folder.rglob("run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        for record in wandb_records(path):
            line = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item if item.nested_key}
            for stage in {name.rpartition("/")[0] for name in line if "/" in name}:
                row = {name.rpartition("/")[2]: value for name, value in line.items() if name.startswith(stage)}
                steps.setdefault(stage, []).append(row)
            if record.metric.glob_name:
                axes[record.metric.glob_name] = record.metric.step_metric
    for stage in STAGES:
        rows = [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]
        assert len(rows) == 4 and steps[stage] == rows
        assert axes[f"{stage}/*"] == f"{stage}/step"
    assert len(list(folder.rglob("run-*.wandb"))) == 2


def test_wandb_without_a_login_is_one_sentence(tmp_path):
    pytest.importorskip("wandb", reason="W&B needs wandb: pip install '.[trackers]'")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    wanted = ["wandb" if one == "tensorboard" else one for one in SMALL]
    command = [sys.executable, "run_paper.py", "tiny", "--out", str(tmp_path / "run"), *wanted]
    alone = {"cwd": ROOT, "env": {**environment, "HOME": str(tmp_path)}, "stdin": subprocess.DEVNULL}
    process = subprocess.run(command, **alone, capture_output=True, text=True)
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert "--tracker wandb cannot begin" in process.stderr and "WANDB_MODE=offline" in process.stderr


def test_a_package_that_is_not_installed_is_said_before_anything_is_done():
    with pytest.raises(ValueError, match=r"--tracker nowhere needs the package nowhere: pip install '.\[trackers\]'"):
        check_tracker("nowhere")


def test_without_a_tracker_nothing_is_handed_on():
    process = Process()
    process.track("stage", {"loss": 1.0}, 1)
    process.end_tracker()
