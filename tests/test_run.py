"""The real command in processes of its own: the same bytes twice, the same bytes after kills, real data, no noise."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from reference.config import TINY
from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.hf_sampler import HFSampler
from reference.engines.learner import Learner
from reference.interfaces import Sampling
from reference.offline import word_problems
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper import verl
from reference.paper.answers import is_correct
from reference.paper.prompts import Prompts, student_messages
from reference.records import Message
from reference.stages.plan import stage_names
from reference.stages.train_sft import sft_step

ROOT = Path(__file__).parents[1]
SMALL = """
    --data.limit 12 --data.test-limit 4 --difficulty.num-samples 4 --difficulty.max-new-tokens 32
    --grpo.batch-size 4 --grpo.mini-batch-size 2 --grpo.num-rollouts 4 --grpo.max-new-tokens 32 --grpo.save-every 1
    --sft.batch-size 8 --sft.lr 2e-5 --sft.save-every 1 --evaluation.pass-samples 8 --evaluation.max-new-tokens 32
    --sampler-rows 16
""".split()
MEASURED = {"receipt.json", "timing.jsonl", "environment.json", "report.html"}  # seconds and versions
STAGES = stage_names(TINY)


def command(out, *more):
    return [sys.executable, "run_paper.py", "tiny", "--out", str(out), *SMALL, *more]


def run(out, *more):
    return subprocess.run(command(out, *more), cwd=ROOT, capture_output=True, text=True)


def artifacts(out):
    """Every file that has to be the same, however often the run was interrupted."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in MEASURED]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def done_stages(out):
    receipts = {name: out / name / "receipt.json" for name in STAGES}
    return [name for name, path in receipts.items() if path.exists() and json.loads(path.read_text())["done"]]


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A student that is right now and then on eight of the run's problems, and taught a wrong answer to four.

    Whatever the stored base is like, there are hard problems and failures, and rewards for GRPO. It answers in one
    line, which also keeps the runs short.
    """
    folder, device = tmp_path_factory.mktemp("answering") / "checkpoint", torch.device("cpu")
    chat = Chat.from_checkpoint(BASE_CHECKPOINT)
    problems = word_problems.generate("train", 12, seed=0)
    messages = [student_messages(Prompts(), problem) for problem in problems]
    prompts = [chat.prompt_ids(asked) for asked in messages]
    taught = [problem.gold if at % 3 else "12345" for at, problem in enumerate(problems)]
    answers = [Message("assistant", f"#### {number}") for number in taught]
    examples = [chat.example_ids((*asked, answer)) for asked, answer in zip(messages, answers, strict=True)]
    learner = Learner(BASE_CHECKPOINT, Process(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, max_grad_norm=1.0)
    sampler = HFSampler(chat.tokenizer, chat.end_ids, device, torch.float32)
    sampler.load(BASE_CHECKPOINT)
    for _ in range(300):
        sft_step(learner, examples, 8192)
        sampler.sync(learner.policy.named_weights())
        groups = sampler.sample(prompts, [range(8)] * 12, Sampling(0.7, 0.9, 12))
        right = sum(is_correct(o.text, p.gold) for p, group in zip(problems, groups, strict=True) for o in group)
        if right >= 0.4 * 8 * 8:
            learner.save_checkpoint(folder, chat)
            return folder
    raise AssertionError("the base could not be taught twelve answers")


@pytest.fixture(scope="module")
def whole(answering, tmp_path_factory):
    """One uninterrupted run: its folder and its process."""
    out = tmp_path_factory.mktemp("run") / "whole"
    process = run(out, "--model.path", str(answering))
    assert process.returncode == 0, process.stderr
    return out, process


def test_difficulty_and_bridge_read_the_base_model_once(whole):
    """Ambiguity A13: no later policy grades a problem or scores a step."""
    out, _ = whole
    base = json.loads((out / "eval" / "base" / "receipt.json").read_text())["inputs"]["checkpoint"]
    receipts = {stage: json.loads((out / stage / "receipt.json").read_text()) for stage in ("1_difficulty", "3_bridge")}
    assert {stage: receipt["inputs"]["base"] for stage, receipt in receipts.items()} == dict.fromkeys(receipts, base)
    assert len(list(out.glob("**/difficulty.jsonl"))) == len(list(out.glob("**/bridged.jsonl"))) == 1


def check_noise(process):
    """Nothing but the run's own lines: on stderr not even a progress bar, since it is no terminal here."""
    assert process.stderr == ""
    for line in process.stdout.splitlines():
        assert "warn" not in line.lower() and "deprecat" not in line.lower(), line


def check_numbers(out):
    """No NaN and no infinity in any artifact."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    for path in out.rglob("*.json*"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        for line in lines:
            json.loads(line, parse_constant=refuse)
    for path in out.rglob("*.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(path).values()), path


def check_each_problem_once(out):
    for path in [*out.rglob("*.jsonl"), *out.rglob("*.jsonl.partial")]:
        if path.name in ("examples.jsonl", "results.jsonl"):  # a problem may have several examples
            continue
        whole_lines = path.read_bytes().split(b"\n")[:-1]  # a kill may have cut the last one
        records = [json.loads(line) for line in whole_lines]
        ids = [record.get("problem_id", record.get("id", record.get("step"))) for record in records]
        assert len(set(ids)) == len(ids), path


def test_a_run_does_every_stage_and_says_so(whole):
    out, process = whole
    assert done_stages(out) == STAGES
    said = process.stdout.split("paper: ")[0].splitlines()  # the table at the end names the stages again
    assert [line.split()[0] for line in said if " s" in line and line.split()[0] in STAGES] == STAGES
    rows = [json.loads(line) for path in out.rglob("3_grpo/metrics.jsonl") for line in path.read_text().splitlines()]
    assert max(row["mixed"] for row in rows) > 0, "no group with a reward and a failure: GRPO was not tried"
    assert json.loads((out / "3_bridge/receipt.json").read_text())["counts"]["hard traces"] > 0
    assert json.loads((out / "iter1/4_recycle/receipt.json").read_text())["counts"]["examples"] > 0
    assert not list(out.rglob("*.partial")) and not list(out.rglob("*.unfinished")) and not list(out.rglob("state.pt"))


# docs/artifacts.md describes one of each: which file stands for these.
STANDS_FOR = [
    (r"^iter\d/", "iter1/"),
    (r"1_sft/\w+/", "1_sft/2_bridge/"),
    (r"^eval/[\w-]+/", "eval/base/"),
    (r"^eval/base/(?!results)\w+(?=(\.samples)?\.jsonl)", "eval/base/test"),
    (r".*/receipt\.json", "*/receipt.json"),
    (r".*/checkpoint/.*", "iter1/1_sft/2_bridge/checkpoint/"),
    (r".*/rejected\.jsonl", "2_traces/rejected.jsonl"),
]


def test_a_stage_that_samples_notes_the_sampler(whole):
    """Responses of vLLM and of the Hugging Face sampler are not the same ones."""
    for name in STAGES:
        settings = json.loads((whole[0] / name / "receipt.json").read_text())["settings"]
        samples = name.startswith("eval/") or name.endswith(("1_difficulty", "2_filter", "3_grpo"))
        assert ("sampler" in settings) == ("vllm.tensor_parallel" in settings) == samples, name


def test_memory_and_speed_may_change_while_a_run_goes_on(whole, tmp_path):
    """Whoever ran out of memory goes on with less."""
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    less = ("--sft.max-tokens-per-batch", "512", "--grpo.max-tokens-per-batch", "512", "--sampler-rows", "8")
    stage = "iter2/1_sft/union"
    model = json.loads((out / "config.json").read_text())["model.path"]
    process = run(out, "--model.path", model, "--model.packing", *less, "--redo", stage, "--stages", stage)
    assert process.returncode == 0, process.stderr
    rows = [
        [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole[0], out)
    ]
    assert rows[0] and len(rows[0]) == len(rows[1])
    for before, now in zip(*rows, strict=True):
        assert now == {name: pytest.approx(value, rel=1e-4) for name, value in before.items()}


def test_each_file_of_a_run_is_described(whole):
    page = (ROOT / "docs" / "artifacts.md").read_text(encoding="utf-8")
    names = {str(path.relative_to(whole[0])) for path in whole[0].rglob("*") if path.is_file()}
    for pattern, stand_in in STANDS_FOR:
        names = {re.sub(pattern, stand_in, name) for name in names}
    assert set(re.findall(r"^\*\*`([^`]+)`\*\*", page, re.MULTILINE)) == names


def test_results_hold_a_line_for_each_stage_and_benchmark(whole):
    lines = [json.loads(line) for line in (whole[0] / "eval/results.jsonl").read_text().splitlines()]
    benchmarks = ["test", *word_problems.OUT_OF_DISTRIBUTION]
    evaluations = [name for name in STAGES if name.startswith("eval/")]
    assert len(lines) == len(evaluations) * 5
    assert [line["benchmark"] for line in lines] == benchmarks * len(evaluations)
    for line in lines:
        assert line["num_problems"] == 4 and line["accuracy"] == line["num_correct"] / 4
        assert 0 <= line["format_rate"] <= 1 and ("pass_at_8" in line) == (line["benchmark"] == "test")
        assert math.isfinite(line.get("pass_at_8", 0))


def test_a_run_ends_with_a_table_and_a_report_and_makes_no_noise(whole):
    check_noise(whole[1])
    assert "paper: Qwen2.5-0.5B" in whole[1].stdout and (whole[0] / "report.html").exists()
    assert whole[1].stdout.endswith(f"these numbers\n\nreport: {whole[0] / 'report.html'}\n")


def test_no_artifact_holds_a_nan_or_a_problem_twice(whole):
    check_numbers(whole[0])
    check_each_problem_once(whole[0])


def test_the_same_command_gives_the_same_bytes(whole, answering, tmp_path):
    process = run(tmp_path / "again", "--model.path", str(answering))
    assert process.returncode == 0, process.stderr
    check_noise(process)
    first, second = artifacts(whole[0]), artifacts(tmp_path / "again")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


# What each kill waits for: the middle of a stage wherever something lies on disk long enough to be seen.
MOMENTS = [
    ["eval/base/receipt.json"],
    ["1_difficulty/difficulty.jsonl.partial", "1_difficulty/difficulty.jsonl"],
    ["3_bridge/bridged.jsonl.partial", "3_bridge/bridged.jsonl"],
    ["iter1/1_sft/2_bridge/state.pt", "iter1/1_sft/2_bridge/checkpoint"],
    ["iter1/2_filter/rollouts.jsonl.partial", "iter1/2_filter/rollouts.jsonl"],
    ["iter1/3_grpo/state.pt", "iter1/3_grpo/checkpoint"],
    ["iter1/4_recycle/receipt.json"],
    ["eval/iter2-3_grpo/test.jsonl.partial", "eval/iter2-3_grpo/test.jsonl"],
]


def run_until(out, moment, *more, command=command):
    """Start the run and kill it, with all it started, as soon as one of the files is there."""
    process = subprocess.Popen(command(out, *more), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not any((out / path).exists() for path in moment):
        time.sleep(0.001)
    assert process.poll() is None, f"the run ended before {moment} was there: {process.stderr.read()}"
    for started in (*psutil.Process(process.pid).children(recursive=True), process):  # torchrun's are in other groups
        started.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def modified(out, stages):
    files = [path for name in stages for path in (out / name).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(whole, answering, tmp_path):
    out, more = tmp_path / "killed", ("--model.path", str(answering))
    kept = {}
    for moment in MOMENTS:
        run_until(out, moment, *more)
        check_each_problem_once(out)
        assert {path: time for path, time in modified(out, done_stages(out)).items() if path in kept} == kept
        kept = modified(out, done_stages(out))
    process = run(out, *more)
    assert process.returncode == 0, process.stderr
    check_noise(process)
    assert process.stdout.count("kept from before") >= len(STAGES) - 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was done was not done again
    first, second = artifacts(whole[0]), artifacts(out)
    assert second["eval/results.jsonl"] == first["eval/results.jsonl"]
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.mark.parametrize("kib", [24, 400])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(whole, answering, tmp_path, kib):
    """A limit on the size of a file stands in for it: records reach it, or a checkpoint does."""
    out, more = tmp_path / "full", ("--model.path", str(answering))
    limited = ["bash", "-c", f'ulimit -f {kib}; exec "$@"', "bash", *command(out, *more)]
    process = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("run_paper: ") and process.stderr.count("\n") == 1
    assert "run the same command again" in process.stderr
    done = done_stages(out)
    process = run(out, *more)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("kept from before") == len(done)
    first, second = artifacts(whole[0]), artifacts(out)
    assert first.keys() == second.keys() and [name for name in first if first[name] != second[name]] == []


def command_of_two(out, *more):
    """The same run in two gloo processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, "run_paper.py", "tiny", "--out", str(out), *SMALL, "--processes", "2", *more]


def run_two(out, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command_of_two(out, *more), cwd=ROOT, env=environment, capture_output=True, text=True)


def check_same(first, second, parts):
    """Equal bytes of these files and folders, receipts aside (`processes` is a setting)."""
    for part in parts:
        names = [name for name in first if name.startswith(part)]
        assert names, part
        assert [name for name in names if first[name] != second.get(name)] == []


@pytest.mark.distributed
def test_two_processes_write_the_same_data(whole, answering, tmp_path):
    """All that comes of the base model; then the filter and an evaluation, from the same trained checkpoints."""
    process = run_two(tmp_path / "two", "--model.path", str(answering))
    assert process.returncode == 0, process.stderr
    assert done_stages(tmp_path / "two") == STAGES and "2 processes on cpu" in process.stdout
    assert process.stdout.count("1_difficulty  ") == 1  # one of them speaks for both
    check_numbers(tmp_path / "two")
    check_each_problem_once(tmp_path / "two")
    first, second = artifacts(whole[0]), artifacts(tmp_path / "two")
    assert first.keys() == second.keys()
    of_the_base = ("problems.jsonl", "eval/base/", "1_difficulty/", "2_traces/", "3_bridge/")
    check_same(first, second, (*of_the_base, "iter1/1_sft/2_bridge/examples.jsonl"))

    again = tmp_path / "again"
    shutil.copytree(whole[0], again)
    for stage in ("eval/iter1-3_grpo", "iter1/2_filter"):
        process = run_two(again, "--model.path", str(answering), "--redo", stage, "--stages", stage)
        assert process.returncode == 0, process.stderr
        check_same(first, artifacts(again), [f"{stage}/"])


@pytest.mark.distributed
def test_one_process_goes_on_where_two_were_killed(whole, answering, tmp_path):
    out, more = tmp_path / "killed", ("--model.path", str(answering))
    moments = [["1_difficulty/difficulty.jsonl.1.partial"], ["iter1/1_sft/2_bridge/state.pt"]]
    for moment in moments:
        run_until(out, moment, *more, command=command_of_two)
        check_each_problem_once(out)
    process = run(out, *more)
    assert process.returncode == 0, process.stderr
    assert done_stages(out) == STAGES
    first, second = artifacts(whole[0]), artifacts(out)
    assert first.keys() == second.keys()
    check_same(first, second, ("eval/base/", "1_difficulty/", "2_traces/", "3_bridge/"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_with_verls_equations_ends_like_any_other(whole, answering, tmp_path):
    out = tmp_path / "verl"
    process = run(out, "--model.path", str(answering), "--equations", "verl", "--sft.batch-size", "2")
    assert process.returncode == 0, process.stderr
    check_noise(process)
    check_numbers(out)
    assert done_stages(out) == STAGES
    golds = {problem["id"]: problem["gold"] for problem in lines_of(out / "problems.jsonl")}
    for group in lines_of(out / "iter1/2_filter/rollouts.jsonl"):
        expected = [verl.reward(response["text"], golds[group["problem_id"]]) for response in group["responses"]]
        assert group["rewards"] == expected
    steps = lines_of(out / "iter1/1_sft/2_bridge/metrics.jsonl")
    assert len(steps) >= 5 and steps[0]["lr"] == 0 < steps[1]["lr"]
    updated = lines_of(out / "iter1/3_grpo/metrics.jsonl")
    assert max(step["mixed"] for step in updated) > 0


def test_every_stage_works_on_real_gsm8k(gsm8k, tmp_path):
    """The stored base is nearly never right there: empty groups, long prompts and odd characters are the point."""
    data = ("--data.train", str(gsm8k / "train.jsonl"), "--data.tests", f"gsm8k={gsm8k / 'test.jsonl'}")
    process = run(tmp_path / "run", *data)
    assert process.returncode == 0, process.stderr
    check_noise(process)
    check_numbers(tmp_path / "run")
    assert done_stages(tmp_path / "run") == STAGES
    results = [json.loads(line) for line in (tmp_path / "run/eval/results.jsonl").read_text().splitlines()]
    assert {(line["benchmark"], line["num_problems"]) for line in results} == {("gsm8k", 4)}
