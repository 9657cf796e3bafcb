"""A whole run with a chat teacher that fails now and then: the symbolic teacher's records, and no call twice.

The teacher is a real HTTP server on loopback (tests/engines/fault_server.py) that answers as the symbolic teacher does.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reference.engines.artifacts import file_hash
from reference.offline import word_problems
from tests.engines.fault_server import FaultServer, SymbolicAnswers, drawn, scripted

ROOT = Path(__file__).parents[1]
KEY = "sk-no-real-key-4711"
SMALL = """
    --data.limit 24 --data.test-limit 2 --difficulty.num-samples 4 --difficulty.max-new-tokens 48
    --grpo.batch-size 4 --grpo.mini-batch-size 2 --grpo.num-rollouts 4 --grpo.max-new-tokens 48
    --evaluation.pass-samples 0 --evaluation.max-new-tokens 16 --iterations 2
""".split()
UP_TO_RECYCLING = (
    "--stages 1_difficulty 2_traces 3_bridge iter1/1_sft iter1/2_filter iter1/3_grpo iter1/4_recycle".split()
)
MADE_WITH_THE_TEACHER = ("2_traces/traces.jsonl", "3_bridge/bridged.jsonl", "iter1/4_recycle/diagnosed.jsonl")
FAULTS = ["429:0", "500", "html", "half", "cut", "empty", "wrong", "keys", "hang"]


def run(out, *more, launcher=(sys.executable,), key=KEY):
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"OPENAI_API_KEY": key} if key else {})
    command = [*launcher, "run_paper.py", "tiny", "--out", str(out), *SMALL, *UP_TO_RECYCLING, *more]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def chat(server, *more):
    return ("--teacher.kind", "chat", "--teacher.base-url", server.base_url, "--teacher.concurrency", "8", *more)


def answers():
    return SymbolicAnswers(word_problems.generate("train", 24, 0), seed=1111)


@pytest.fixture(scope="module")
def symbolic(tmp_path_factory):
    """What the symbolic teacher says, and nothing in between."""
    out = tmp_path_factory.mktemp("symbolic") / "run"
    process = run(out)
    assert process.returncode == 0, process.stderr
    assert (out / "iter1/4_recycle/diagnosed.jsonl").stat().st_size > 0
    return out


def with_a_bad_diagnosis(choose):
    """The faults of `choose`, and a first answer with wrong keys to each call for a diagnosis."""
    return lambda body, before: "fields" if b"response_format" in body and not before else choose(body, before)


def check_same_records(out, symbolic):
    for name in MADE_WITH_THE_TEACHER:
        assert (out / name).read_text() == (symbolic / name).read_text(), name


def calls_of(out):
    return [json.loads(line) for path in (out / "teacher").glob("*.jsonl") for line in path.read_text().splitlines()]


def check_no_key(out, *processes):
    for path in out.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    for process in processes:
        assert KEY not in process.stdout + process.stderr


def test_faults_change_nothing_and_a_rerun_pays_for_nothing(symbolic, tmp_path):
    out = tmp_path / "run"
    with FaultServer(answers(), with_a_bad_diagnosis(drawn(FAULTS, share=0.3, seed=5, most=2))) as server:
        process = run(out, *chat(server, "--teacher.timeout", "2"))
        assert process.returncode == 0, process.stderr
        check_same_records(out, symbolic)
        assert {request.fault for request in server.requests} == {"", "fields", *FAULTS}
        assert all(server.counts[request.body] > 1 for request in server.requests if request.fault)  # also a `hang`
        assert max(server.counts.values()) <= 3  # a fault at most twice, and the answer
        asked, calls = len(server.requests), calls_of(out)
        assert len({call["key"] for call in calls}) == len(calls) < asked
        line = re.search(r"teacher +(\d+) calls, (\d+) replayed from before, (\d+) sent again", process.stdout)
        assert int(line[1]) == len(calls) and int(line[3]) > 0
        check_no_key(out, process)

        again = run(out, *chat(server), "--redo", "2_traces")
        assert again.returncode == 0, again.stderr
        assert len(server.requests) == asked and re.search(r"teacher +0 calls, \d\d+ replayed", again.stdout)
    check_same_records(out, symbolic)


@pytest.mark.slow
def test_a_budget_stops_the_run_and_a_larger_one_goes_on(symbolic, tmp_path):
    out = tmp_path / "run"
    with FaultServer(answers()) as server:
        stopped = run(out, *chat(server, "--teacher.max-calls", "60"))
        assert stopped.returncode == 2 and "--teacher.max-calls" in stopped.stderr and "Traceback" not in stopped.stderr
        assert len(server.requests) == len(calls_of(out)) == 60
        assert re.search(r"teacher +60 calls, 0 replayed", stopped.stdout)  # what was spent is said all the same
        process = run(out, *chat(server))
        assert process.returncode == 0, process.stderr
        assert max(server.counts.values()) == 1  # nothing was asked twice
    check_same_records(out, symbolic)


@pytest.mark.slow
def test_a_killed_run_asks_again_at_most_what_was_in_flight(symbolic, tmp_path):
    out = tmp_path / "run"
    with FaultServer(answers(), scripted(()), seconds=0.02) as server:
        command = [sys.executable, "run_paper.py", "tiny", "--out", str(out), *SMALL, *UP_TO_RECYCLING, *chat(server)]
        killed = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "OPENAI_API_KEY": KEY}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while not (out / "3_bridge/bridged.jsonl.partial").exists() and killed.poll() is None:
            time.sleep(0.005)
        assert killed.poll() is None, killed.stderr.read()
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(server.requests) - len(calls_of(out)) <= 8
        process = run(out, *chat(server))
        assert process.returncode == 0, process.stderr
        assert sum(count - 1 for count in server.counts.values()) <= 8
    check_same_records(out, symbolic)


def test_bad_answers_are_rejected_with_their_reason_and_too_many_stop_the_run(tmp_path):
    out = tmp_path / "run"
    with FaultServer(lambda messages: "I do not know.", seconds=0.05) as server:
        stopped = run(out, *chat(server, "--teacher.attempts", "2", "--teacher.concurrency", "2"))
    assert stopped.returncode == 2 and stopped.stderr.count("\n") == 1
    assert (
        "2_traces: the teacher's answers were unusable for" in stopped.stderr
        and "--teacher.max-rejected" in stopped.stderr
    )
    rejected = [json.loads(line) for line in (out / "2_traces/rejected.jsonl").read_text().splitlines()]
    assert rejected and all("none of 2 answers is of use" in record["reason"] for record in rejected)
    graded = [json.loads(line) for line in (out / "1_difficulty/difficulty.jsonl").read_text().splitlines()]
    num_items = sum(record["group"] != "simple" for record in graded)
    assert len(rejected) == num_items // 2 + 1  # no more than it takes
    # Beside what was rejected: what each of two threads was at, and perhaps the next of each.
    assert len(server.counts) <= len(rejected) + 4 < num_items and max(server.counts.values()) == 2
    assert not (out / "3_bridge").exists()


@pytest.mark.parametrize(
    ("key", "more", "says"),
    [
        (None, ("--teacher.base-url", "http://127.0.0.1:9/v1"), "OPENAI_API_KEY"),
        (KEY, ("--teacher.base-url", "no address"), "no address"),
        (KEY, ("--teacher.base-url", "http://127.0.0.1:9/v1", "--teacher.retries", "0"), "127.0.0.1:9"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_one_sentence(tmp_path, key, more, says):
    process = run(tmp_path / "run", "--teacher.kind", "chat", *more, key=key)
    assert process.returncode == 2 and says in process.stderr and "Traceback" not in process.stderr
    check_no_key(tmp_path / "run", process)
    if not key:
        assert not (tmp_path / "run").exists()


@pytest.mark.distributed
def test_two_processes_share_the_asking(symbolic, tmp_path):
    out = tmp_path / "run"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with FaultServer(answers(), drawn(FAULTS, share=0.2, seed=6, most=2)) as server:
        process = run(out, *chat(server, "--teacher.timeout", "2"), launcher=launcher)
        assert process.returncode == 0, process.stderr
    for name in MADE_WITH_THE_TEACHER[:2]:  # the third comes of a trained model
        assert file_hash(out / name) == file_hash(symbolic / name)
    assert sorted(path.name for path in (out / "teacher").iterdir()) == ["calls-0.jsonl", "calls-1.jsonl"]
    assert all(path.stat().st_size > 0 for path in (out / "teacher").iterdir())


@pytest.mark.distributed
def test_a_budget_that_one_process_spends_ends_both_and_loses_nothing(symbolic, tmp_path):
    out = tmp_path / "run"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with FaultServer(answers()) as server:
        stopped = run(out, *chat(server, "--teacher.max-calls", "30"), launcher=launcher)
        assert stopped.returncode != 0 and "--teacher.max-calls is 30, shared by 2 processes" in stopped.stderr
        assert "reference/stages" not in stopped.stderr  # no traceback of ours; torchrun has its own report
        assert len(server.requests) == len(calls_of(out)) <= 30
        process = run(out, *chat(server), launcher=launcher)
        assert process.returncode == 0, process.stderr
        assert max(server.counts.values()) == 1
    for name in MADE_WITH_THE_TEACHER[:2]:
        assert file_hash(out / name) == file_hash(symbolic / name)
