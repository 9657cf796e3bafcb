"""Whole runs with real vLLM: as the sampler, and as the server behind the chat teacher."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from reference.connect import load_prompts
from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.hf_sampler import HFSampler
from reference.engines.learner import Learner
from reference.interfaces import Sampling
from reference.offline import word_problems
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.records import Message
from reference.stages.train_sft import sft_step
from tests.engines.fault_server import FaultServer, SymbolicAnswers

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]
SMALL = """
    --data.limit 6 --data.test-limit 2 --difficulty.num-samples 4 --difficulty.max-new-tokens 64
    --grpo.batch-size 4 --grpo.mini-batch-size 2 --grpo.num-rollouts 4 --grpo.max-new-tokens 64
    --evaluation.pass-samples 8 --evaluation.max-new-tokens 64 --sampler-rows 16
""".split()
STAGES = "1_difficulty 2_traces 3_bridge iter1/1_sft iter1/2_filter iter1/3_grpo iter1/4_recycle"
UP_TO_RECYCLING = ["--stages", *STAGES.split()]
MADE_WITH_THE_TEACHER = ("2_traces/traces.jsonl", "3_bridge/bridged.jsonl", "iter1/4_recycle/diagnosed.jsonl")
# Short, so that a tiny model can learn them by heart; the placeholders are those of the real ones.
PROMPTS = {
    "importance_system": "Judge.",
    "importance_user": "I {question}\n~\n{gold_answer}\n~\n{full_cot}\n~\n{cot_without_step}\n~\n{step_to_score}",
    "jumpiness_system": "Judge.",
    "jumpiness_user": "J {question}\n~\n{prev_context}\n~\n{curr_step}",
    "recycling_system": "Diagnose.",
    "recycling_user": "R {question}\n~\n{ground_truth}\n~\n{student_response}\n~\n{optional_reference_block}",
    "solve": "S {question}",
    "expand": "E {question}\n~\n{prev_context}\n~\n{curr_step}",
    "compress": "C {curr_step}",
    "localize": "L {question}\n~\n{prev_context}\n~\n{curr_step}",
}


def run(out, *more, launcher=(sys.executable,)):
    command = [*launcher, "run_paper.py", "tiny", "--out", str(out), *SMALL, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "no-secret-at-all"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


def check_gap(out):
    """The engine samples from the policy that is trained: its log-probabilities are the trainer's."""
    rows = [json.loads(line) for path in out.rglob("3_grpo/metrics.jsonl") for line in path.read_text().splitlines()]
    assert rows and all(row["sampler_gap"] < 1e-3 for row in rows)


def test_a_whole_run_with_vllm(tmp_path):
    options = ["--num_processes", "1", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher = (sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *options)
    process = run(tmp_path / "run", "--sampler", "vllm", launcher=launcher)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "iter2/3_grpo" in process.stdout and "these numbers" in process.stdout
    check_gap(tmp_path / "run")


@pytest.mark.distributed
@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_two_processes_with_vllm(tmp_path, tensor_parallel):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    more = ("--sampler", "vllm", "--vllm.tensor-parallel", str(tensor_parallel), *UP_TO_RECYCLING)
    process = run(tmp_path / "run", *more, launcher=launcher)
    assert process.returncode == 0, process.stderr[-3000:]
    check_gap(tmp_path / "run")


@pytest.fixture(scope="module")
def prompts_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    for name, text in PROMPTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def symbolic(prompts_folder, tmp_path_factory):
    """A run whose teacher answers as the symbolic one: its folder, and all that was asked and answered."""
    out, taught = tmp_path_factory.mktemp("symbolic") / "run", {}
    answers = SymbolicAnswers(word_problems.generate("train", 6, 0), load_prompts(str(prompts_folder)), seed=1111)

    def remembered(messages):
        key = tuple((message["role"], message["content"]) for message in messages)
        taught[key] = answers(messages)
        return taught[key]

    with FaultServer(remembered) as server:
        process = run(out, *chat(server.base_url, prompts_folder))
    assert process.returncode == 0, process.stderr
    return out, taught


def chat(base_url, prompts_folder):
    return (
        *UP_TO_RECYCLING,
        *("--teacher.kind", "chat", "--teacher.base-url", base_url, "--teacher.model", "teacher"),
        *("--teacher.temperature", "0.01", "--teacher.max-new-tokens", "400", "--data.prompts", str(prompts_folder)),
    )


@pytest.fixture(scope="module")
def teacher_checkpoint(symbolic, tmp_path_factory):
    """The tiny base, taught those answers until it gives each of them by itself."""
    device, taught = torch.device("cpu"), symbolic[1]
    chat_format = Chat.from_checkpoint(BASE_CHECKPOINT)
    asked = [[Message(role, content) for role, content in key] for key in taught]
    pairs = zip(asked, taught.values(), strict=True)
    examples = [chat_format.example_ids((*messages, Message("assistant", answer))) for messages, answer in pairs]
    prompts = [chat_format.prompt_ids(messages) for messages in asked]
    learner = Learner(BASE_CHECKPOINT, Process(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.0, max_grad_norm=1.0)
    sampler = HFSampler(chat_format.tokenizer, chat_format.end_ids, device, torch.float32)
    sampler.load(BASE_CHECKPOINT)
    for step in range(1500):
        sft_step(learner, examples, 8192, lr_scale=1.0 if step < 800 else 0.3)
        if step % 50 == 49:
            sampler.sync(learner.policy.named_weights())
            found = sampler.sample(prompts, [[0]] * len(prompts), Sampling(0.0, 1.0, 400))
            if all(group[0].text == answer for group, answer in zip(found, taught.values(), strict=True)):
                folder = tmp_path_factory.mktemp("teacher") / "checkpoint"
                learner.save_checkpoint(folder, chat_format)
                return folder
    raise AssertionError("the base could not learn the teacher's answers")


@pytest.fixture(scope="module")
def server(teacher_checkpoint):
    """vLLM's own OpenAI server, as one starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(teacher_checkpoint)]
    command += ["--served-model-name", "teacher", "--port", str(port), "--host", "127.0.0.1", "--dtype", "float32"]
    command += ["--max-model-len", "2048", "--generation-config", "vllm"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    base_url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        assert process.poll() is None, process.stdout.read()[-3000:]
        try:
            urllib.request.urlopen(f"{base_url}/health", timeout=1)
            break
        except (urllib.error.URLError, TimeoutError):
            time.sleep(1)
    yield f"{base_url}/v1"
    process.terminate()
    process.communicate()


def test_a_bridge_and_a_recycling_pass_with_a_served_model(symbolic, server, prompts_folder, tmp_path):
    """The real protocol, the real client, structured output; the answers are a model's own."""
    process = run(tmp_path / "run", *chat(server, prompts_folder))
    assert process.returncode == 0, process.stderr
    for name in MADE_WITH_THE_TEACHER:
        assert (tmp_path / "run" / name).read_text() == (symbolic[0] / name).read_text(), name
        assert (tmp_path / "run" / name).stat().st_size > 0
