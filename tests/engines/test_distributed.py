"""Several processes are one: the same numbers as a single process, whatever falls to which of them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from reference.engines.distributed import Process, check_launch, check_plugin, groups_wait
from reference.interfaces import Share
from tests.engines import training_worker

ROOT = Path(__file__).parents[2]
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6}


def torchrun(script, *arguments, processes=2, timeout=300):
    """Several gloo processes on this machine; the finished launcher."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, str(script), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=timeout
    )


def checkpoints(make):
    """The policy, its reference, and a policy whose head is a table of its own."""
    return make(), make(seed=1), make(tied=False)


@pytest.fixture(scope="module")
def alone(random_checkpoint, tmp_path_factory):
    """Every case of the worker in this process."""
    out = tmp_path_factory.mktemp("alone")
    training_worker.train(*checkpoints(random_checkpoint), out, Process())
    return out, torch.load(out / "results.pt", weights_only=False)


@pytest.fixture(scope="module")
def together(random_checkpoint, tmp_path_factory):
    """Every case of the worker in two processes."""
    out = tmp_path_factory.mktemp("together")
    worker = ROOT / "tests" / "engines" / "training_worker.py"
    launched = torchrun(worker, *checkpoints(random_checkpoint), out)
    assert launched.returncode == 0, launched.stderr
    return out, torch.load(out / "results.pt", weights_only=False)


def check_equal(found, expected, bound):
    for row, expected_row in zip(found["metrics"], expected["metrics"], strict=True):
        assert row.keys() == expected_row.keys()
        for name, value in expected_row.items():
            assert row[name] == pytest.approx(value, rel=10 * bound, abs=10 * bound), name
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=bound)


@pytest.mark.distributed
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("how", [*training_worker.OPTIONS, "untied"])
@pytest.mark.parametrize("what", ["sft", "grpo"])
def test_two_processes_are_one(alone, together, what, how, dtype):
    """Ragged lengths, unequal and empty shares of a step; SFT in three steps, GRPO in four updates."""
    check_equal(together[1][what, how, dtype], alone[1][what, how, dtype], BOUNDS[dtype])


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("how", ["packed", "checkpointed"])
@pytest.mark.parametrize("what", ["sft", "grpo"])
def test_packed_and_checkpointed_training_is_the_padded_one(alone, what, how, dtype):
    check_equal(alone[1][what, how, dtype], alone[1][what, "padded", dtype], BOUNDS[dtype])


def check_resumed(results, what):
    resumed, whole = results["resumed", what], results[what, "padded", torch.float32]
    assert resumed["metrics"] == whole["metrics"][1:]
    assert all(torch.equal(weight, whole["weights"][name]) for name, weight in resumed["weights"].items())


@pytest.mark.parametrize("what", ["sft", "grpo"])
def test_a_resumed_process_goes_on_bit_for_bit(alone, what):
    check_resumed(alone[1], what)


@pytest.mark.distributed
@pytest.mark.parametrize("what", ["sft", "grpo"])
def test_resumed_processes_go_on_bit_for_bit(together, what):
    check_resumed(together[1], what)


@pytest.mark.distributed
def test_a_launch_of_another_size_goes_on_from_the_same_state(together, random_checkpoint):
    learner = training_worker.learner_of(random_checkpoint(), Process(), torch.float32)
    assert learner.load_state(together[0] / "after3.pt") == {"steps": 3}
    expected = together[1]["sft", "padded", torch.float32]["weights"]
    found = dict(learner.policy.named_weights())
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    going_on = training_worker.train_sft(learner, training_worker.sft_batches())
    for row, expected_row in zip(going_on, together[1]["going on"], strict=True):
        assert row == {name: pytest.approx(value, rel=1e-5, abs=1e-5) for name, value in expected_row.items()}


def test_training_moved_the_weights(alone):
    """Two equal runs that learn nothing would be equal too."""
    results = alone[1]
    moved = results["sft", "padded", torch.float64]["weights"], results["grpo", "padded", torch.float64]["weights"]
    for name, weight in moved[0].items():
        assert (weight - moved[1][name]).abs().max() > 1e-5, name


def test_alone_every_exchange_gives_back_what_it_was_given():
    process = Process()
    assert process.is_main and process.gather("a") == ["a"] and process.total({"x": 1.5}) == {"x": 1.5}
    assert process.on_main(lambda: 7) == 7 and process.merge(Share(), [3, 1, 2]) == [3, 1, 2]


EXCHANGE = """
import atexit
import sys
from pathlib import Path
from reference.engines.artifacts import RecordLog
from reference.engines.distributed import Process
from reference.interfaces import Share
from reference.records import Rejected
def threads():
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum("gloo" in name for name in names)
atexit.register(lambda: print(f"threads at the end: {threads()}"))  # the first registered runs last
process = Process.of_launch()
process.in_a_cycle = process  # no count of references ends it
assert threads() > 0
items = list(range(7))
assert process.size == 2 and process.share == Share(process.rank, 2)
assert process.gather(process.rank) == [0, 1]
assert process.total({"x": process.rank + 1.0}) == {"x": 3.0}
assert process.on_main(lambda: process.rank) == 0
assert process.merge(process.share, [10 * item for item in process.share.of(items)]) == [10 * item for item in items]
one_group = Share(0, 1, writes=process.is_main)
assert process.merge(one_group, [10 * item for item in one_group.of(items)]) == [10 * item for item in items]
def refuse():
    raise ValueError("no")
try:
    process.on_main(refuse)
except ValueError as error:
    assert process.is_main and str(error) == "no"
    print("main said no")
except SystemExit as stop:
    assert not process.is_main and stop.code == 2
    print("the other one stopped")
try:
    process.on_main(lambda: {}["a damaged file"])
except (KeyError, SystemExit) as error:
    assert isinstance(error, KeyError) == process.is_main
# On a disk that is not shared, or shows late what others wrote, no record is lost.
log = RecordLog(Path(sys.argv[1]) / str(process.rank) / "log.jsonl", Rejected, process, process.share)
log.add(Rejected(f"p{item}", "r") for item in process.share.of(items))
assert log.finish() == [Rejected(f"p{item}", "r") for item in items]
assert not list(log.path.parent.glob("*.partial"))
assert log.path.exists() == process.is_main
# A restart has what the main process sees; both do the rest.
begun = RecordLog(Path(sys.argv[1]) / str(process.rank) / "again.jsonl", Rejected, process, process.share)
begun.add([Rejected(f"p{process.rank}", "r")])
process.gather(None)  # both have written
again = RecordLog(begun.path, Rejected, process, process.share)
assert set(again.records) == {"p0"}
again.add(Rejected(f"p{item}", "r") for item in process.share.of(items))
assert again.finish() == [Rejected(f"p{item}", "r") for item in items]
"""


@pytest.mark.distributed
def test_two_processes_exchange_what_they_have(tmp_path):
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    launched = torchrun(tmp_path / "exchange.py", tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert "main said no" in launched.stdout and "the other one stopped" in launched.stdout
    # One that lives on may let go of a tensor while Python ends, and abort the process.
    assert launched.stdout.count("threads at the end: 0") == 2


UNSHARDED = """
import sys
from reference.cli import main
from reference.engines import distributed
def nothing(*arguments, **options): pass
def mesh_of_one(device, shape): return init_device_mesh(device, (2, 1), mesh_dim_names=("copies", "parts"))["parts"]
init_device_mesh = distributed.init_device_mesh
name, instead = {"no FSDP": ("fully_shard", nothing), "copies": ("init_device_mesh", mesh_of_one)}[sys.argv[1]]
setattr(distributed, name, instead)
def run_paper(*arguments): raise AssertionError("the run began")
sys.exit(main(["tiny", "--out", sys.argv[2]], run_paper))
"""


@pytest.mark.distributed
@pytest.mark.parametrize("failure", ["no FSDP", "copies"])
def test_sharding_that_leaves_the_model_whole_is_refused_before_anything_is_done(tmp_path, failure):
    """Training would come after hours of sampling and of paid calls."""
    (tmp_path / "unsharded.py").write_text(UNSHARDED)
    launched = torchrun(tmp_path / "unsharded.py", failure, tmp_path / "run")
    assert "FSDP left ['0.weight', '0.bias', '1.weight'] whole in each of 2 processes" in launched.stderr
    assert "exitcode  : 2 " in launched.stderr and not (tmp_path / "run").exists()


FAILING = """
import sys
import time
import torch.distributed as dist
from reference import cli
from reference.engines import distributed
distributed.groups_wait = lambda: True  # gloo stands in for NCCL, which gives up no group that others still need
dist.destroy_process_group = lambda: time.sleep(200)
def refuse():
    raise ValueError("no such thing")
def run_paper(run, config, world):
    if sys.argv[1] == "on main":
        run.process.on_main(refuse)
    assert run.process.is_main, "a mistake of ours"
    time.sleep(200)
small = "tiny --data.limit 4 --data.test-limit 2 --evaluation.pass-samples 0 --out".split()
sys.exit(cli.main([*small, sys.argv[2]], run_paper))
"""


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("where", "says"),
    [("on main", ["run_paper: no such thing\n"]), ("in another", ["Traceback", "AssertionError: a mistake of ours"])],
)
def test_a_process_that_fails_ends_at_once_where_others_would_be_waited_for(tmp_path, where, says):
    (tmp_path / "failing.py").write_text(FAILING)
    launched = torchrun(tmp_path / "failing.py", where, tmp_path / "run", timeout=100)
    assert launched.returncode == 1 and all(part in launched.stderr for part in says), launched.stderr


def test_groups_wait_for_others_on_gpus_alone(monkeypatch):
    state = {"gpus": True, "groups": True, "size": 2}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: state["gpus"])
    monkeypatch.setattr(dist, "is_initialized", lambda: state["groups"])
    monkeypatch.setattr(dist, "get_world_size", lambda: state["size"])
    assert groups_wait()
    for without in ({"gpus": False}, {"groups": False}, {"size": 1}):
        state = {"gpus": True, "groups": True, "size": 2, **without}
        assert not groups_wait(), without


TRACKED = """
import sys
from pathlib import Path
from torch import nn
from reference.engines.distributed import Process
process = Process.of_launch()
for seed in "12":
    process.start_tracker("tensorboard", Path(sys.argv[1]) / seed, {})
    process.track("stage", {"loss": 1.0}, 1)
    process.end_tracker()
    process.shard(nn.Linear(4, 4), [])
"""


@pytest.mark.distributed
def test_two_processes_go_on_together_when_a_tracker_has_ended(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard's files need tensorboard: pip install '.[trackers]'")
    (tmp_path / "tracked.py").write_text(TRACKED)
    launched = torchrun(tmp_path / "tracked.py", tmp_path, timeout=100)
    assert launched.returncode == 0 and "Traceback" not in launched.stderr, launched.stderr
    assert all(list((tmp_path / seed).rglob("events.out.tfevents.*")) for seed in "12")


FREED = """
import gc
import sys
import weakref
from dataclasses import replace
from pathlib import Path
import torch
from reference.config import TINY, flatten
from reference.engines.artifacts import write_records
from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.hf_sampler import HFSampler
from reference.engines.run_folder import RunFolder
from reference.engines.student import Student
from reference.paper.prompts import Prompts
from reference.records import ExampleKind, Message, Problem, SFTExample
from reference.stages.train_grpo import train_grpo
from reference.stages.train_sft import train_sft
base, out, process, made = sys.argv[1], Path(sys.argv[2]), Process.of_launch(), []
chat = Chat.from_checkpoint(base)
sampler = HFSampler(chat.tokenizer, chat.end_ids, process.device, torch.float32)
student = Student(base, chat, Prompts(), sampler, process)
shard = Process.shard
def watched(self, policy, layers):
    made.append(weakref.ref(policy))
    shard(self, policy, layers)
Process.shard = watched
config = replace(TINY, grpo=replace(TINY.grpo, num_rollouts=2, max_new_tokens=4))
run = RunFolder(out, flatten(config), ["iter1/1_sft", "iter1/3_grpo"], say=lambda line: None, process=process)
problems = [Problem("p", "What is 1 + 1?", "2")]
run.take_up(problems, [], Prompts())
process.on_main(lambda: write_records(out / "iter1/2_filter/rollouts.jsonl", []))
asked, answer = Message("user", "What is 1 + 1?"), Message("assistant", "#### 2")
gc.collect()
gc.disable()  # as a start of vLLM's engine does to what is there
trained = train_sft(run, config, "iter1/1_sft", base, [SFTExample("p", ExampleKind.MEDIUM, (asked, answer))], student)
train_grpo(run, config, "iter1/3_grpo", trained, problems, student)
print(f"left: {[policy() is not None for policy in made]}")
"""


@pytest.mark.distributed
def test_a_training_stage_of_two_processes_leaves_no_learner_behind(random_checkpoint, tmp_path):
    (tmp_path / "freed.py").write_text(FREED)
    launched = torchrun(tmp_path / "freed.py", random_checkpoint(), tmp_path / "run")
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("left: [False, False]") == 2, launched.stdout


def accelerate(*options, script, arguments=(), **how):
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *options, str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, *map(str, arguments)], cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True, **how
    )


@pytest.mark.distributed
def test_two_nodes_find_each_other_as_the_page_says(tmp_path):
    """docs/running.md's command for two nodes, here with a process each on one machine."""
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--config_file", "configs/fsdp.yaml", "--num_machines", "2", "--num_processes", "2"]
    options += ["--main_process_ip", "127.0.0.1", "--main_process_port", port, "--machine_rank"]
    nodes = [accelerate(*options, rank, script=tmp_path / "exchange.py", arguments=[tmp_path]) for rank in "01"]
    said = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "main said no" in said[0][0] and "the other one stopped" in said[1][0]


@pytest.mark.distributed
def test_the_shipped_launch_file_runs_and_shards(tmp_path):
    """configs/fsdp.yaml as it is, on a CPU: the stages up to a trained model, in two processes."""
    settings = "--data.limit 8 --data.test-limit 2 --difficulty.num-samples 2 --difficulty.max-new-tokens 16".split()
    stages = ["--stages", "1_difficulty", "2_traces", "3_bridge", "iter1/1_sft"]
    run = ["tiny", "--processes", "2", "--out", tmp_path / "run", *settings, *stages]
    launched = accelerate("--config_file", "configs/fsdp.yaml", script="run_paper.py", arguments=run)
    said, complaint = launched.communicate(timeout=300)
    assert launched.returncode == 0, complaint
    assert "2 processes on cpu" in said and "iter1/1_sft/2_bridge" in said


PLUGIN = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_MIXED_PRECISION": "bf16"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"FSDP_VERSION": "1"}, "fsdp_version is 1 or not given.*configs/fsdp.yaml"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params is true, .*set it to false"),
        ({"FSDP_RESHARD_AFTER_FORWARD": "false"}, "fsdp_reshard_after_forward is false, .*set it to true"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "fsdp_activation_checkpointing is .*--model.activation-check"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "mixed_precision is 'fp16'"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "distributed_type must be FSDP"),
    ],
)
def test_a_launch_file_that_asks_for_something_else_is_refused(change, says):
    check_plugin({})
    check_plugin(PLUGIN)
    with pytest.raises(ValueError, match=says):
        check_plugin({**PLUGIN, **change})


@pytest.mark.parametrize(
    ("environment", "size", "wanted", "says"),
    [
        ({"WORLD_SIZE": "2"}, 1, None, "announced 2 processes.*torchrun --nproc-per-node 2"),
        ({"MASTER_ADDR": "127.0.0.1"}, 1, None, "asked for several processes and started one"),
        ({}, 1, 2, "--processes is 2, and the launch has 1"),
        ({"WORLD_SIZE": "4", "MASTER_ADDR": "host"}, 4, 2, "--processes is 2, and the launch has 4"),
    ],
)
def test_a_launch_that_is_not_what_was_asked_for_is_refused(environment, size, wanted, says):
    with pytest.raises(ValueError, match=says):
        check_launch(environment, size, wanted)


def test_a_launch_as_asked_for_is_fine():
    check_launch({}, 1, None)
    check_launch({}, 1, 1)
    check_launch({"WORLD_SIZE": "2", "MASTER_ADDR": "host"}, 2, 2)


@pytest.mark.distributed
def test_accelerates_silent_single_process_is_refused(tmp_path):
    """`accelerate launch --cpu --num_processes 2` starts one process and says nothing."""
    options = ["--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *options]
    launched = subprocess.run(
        [*command, "run_paper.py", "tiny", "--out", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True
    )
    assert launched.returncode != 0 and "torchrun" in launched.stderr
    assert not (tmp_path / "run").exists()
