"""vLLM beside a trainer, launched: after each update, on each process, its greedy tokens are the trainer's own.

What the processes do is in vllm_worker.py. `pytest -m vllm` launches one, `pytest -m "vllm and distributed"` several.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reference.interfaces import Share

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("vllm_worker.py")
SHARED_MEMORY = Path("/dev/shm")
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(scope="module")
def launched(random_checkpoint, tmp_path_factory):
    """A function: processes, tensor parallel size, tied -> what each process wrote. Equal calls launch once."""
    results = {}

    def launch(processes, tensor_parallel, tied):
        asked = (processes, tensor_parallel, tied)
        if asked not in results:
            out = tmp_path_factory.mktemp("launch")
            models = [str(random_checkpoint(seed=seed, tied=tied, head_width=32)) for seed in (0, 1)]
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            command += [str(processes), str(WORKER), *models, str(out), "--tensor-parallel", str(tensor_parallel)]
            # What a killed run leaves behind: the name that vLLM would take by itself.
            left = [SHARED_MEMORY / f"-tp:0-[0-1]-cpushm_{rank}" for rank in range(2)] if tensor_parallel > 1 else []
            for file in left:
                file.touch()
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
            for file in left:
                file.unlink()
            assert done.returncode == 0, done.stderr[-4000:]
            results[asked] = [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]
        return results[asked]

    return launch


def check_launch(results):
    """On each process and after each update: vLLM's greedy tokens and log-probabilities are the trainer's."""
    for result in results:
        before = None
        assert len(result["greedy"]) == 5  # loaded, three updates, loaded again
        for pair in result["greedy"]:
            assert [ids for ids, _ in pair["vllm"]] == [ids for ids, _ in pair["hf"]] != before
            for (_, found), (_, expected) in zip(pair["vllm"], pair["hf"], strict=True):
                assert found == pytest.approx(expected, abs=1e-4)
            before = [ids for ids, _ in pair["hf"]]
        assert result["same engine"]


def drawn_of(results, name):
    """Of all processes that write: prompt -> samples."""
    found = {}
    for result in results:
        if result["share"]["writes"]:
            assert not found.keys() & result[name].keys()
            found.update(result[name])
    return found


@needs_vllm
@pytest.mark.vllm
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_after_each_update_the_greedy_tokens_are_the_trainers(launched, tied):
    results = launched(1, 1, tied)
    check_launch(results)
    assert results[0]["drawn"] == results[0]["backwards"]


@needs_vllm
@pytest.mark.vllm
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("processes", "tensor_parallel", "tied"),
    [(2, 1, True), (2, 1, False), (2, 2, True), (2, 2, False), (4, 2, True)],
)
def test_several_processes_give_the_samples_of_one(launched, processes, tensor_parallel, tied):
    results = launched(processes, tensor_parallel, tied)
    check_launch(results)
    count = processes // tensor_parallel
    shares = [result["share"] for result in results]
    expected = [Share(rank // tensor_parallel, count, writes=rank % tensor_parallel == 0) for rank in range(processes)]
    assert shares == [vars(share) for share in expected]
    one = launched(1, 1, tied)
    for name in ("drawn", "backwards", "few"):
        assert drawn_of(results, name) == one[0][name]
    for rank in range(processes):  # the others of a group have what its first has
        assert results[rank]["drawn"] == results[rank - rank % tensor_parallel]["drawn"]
