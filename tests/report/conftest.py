"""A small real run, made once, and copies of it that are changed in one place."""

import json
import shutil

import pytest

from reference.cli import main
from run_paper import run_paper

# What a model might write: markup that would run, half a surrogate pair, signs that no page can hold, line separators.
HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
    " &amp; $name \ud83d \x00\x1b\u2028\u2029 \u202e]]>-->"
)
# Twelve problems are enough for all groups, all rewards and, with a low tau_D, for all five actions.
SMALL = """
    --bridge.tau-difficulty 0.05
    --data.limit 12 --data.test-limit 2 --difficulty.num-samples 8 --difficulty.max-new-tokens 96
    --grpo.batch-size 2 --grpo.mini-batch-size 1 --grpo.num-rollouts 4 --grpo.max-new-tokens 96
    --evaluation.pass-samples 0 --evaluation.max-new-tokens 48
""".split()


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a finished run with its report. Nobody changes it."""
    path = tmp_path_factory.mktemp("report") / "small"
    assert main(["tiny", "--out", str(path), *SMALL], run_paper) == 0
    return path


@pytest.fixture
def copied(small_run, tmp_path):
    """A copy of it to change."""
    return shutil.copytree(small_run, tmp_path / "copied")


def read_lines(path):
    """The records of a JSONL file as plain data."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path, records):
    """Escaped, so that broken Unicode can be written too."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def enlarged(path, number):
    """Make a run of `number` problems out of a smaller one, by repeating its records under new ids, in place."""
    original = [problem["id"] for problem in read_lines(path / "problems.jsonl")]
    copies = {name: [] for name in original}
    for at in range(number):
        copies[original[at % len(original)]].append(f"train-{at:06d}")
    for file in sorted(path.rglob("*.jsonl")):
        records = read_lines(file)
        key = "id" if file.name == "problems.jsonl" else "problem_id"
        if records and records[0].get(key) in copies:
            repeated = [{**record, key: name} for record in records for name in copies[record[key]]]
            write_lines(file, sorted(repeated, key=lambda record: record[key]))
    return path


@pytest.fixture
def thousand(copied):
    """A run of a thousand problems."""
    return enlarged(copied, 1000)


@pytest.fixture
def hostile():
    """The text that must stay a text."""
    return HOSTILE


@pytest.fixture
def spoiled(copied):
    """A run in which every text that a model, a teacher or a user wrote ends in the hostile one."""

    def change(name, spoil):
        write_lines(copied / name, [spoil(record) for record in read_lines(copied / name)])

    def spoil_step(step):
        rewritten = step["rewritten"] and step["rewritten"] + HOSTILE
        return {**step, "original": step["original"] + HOSTILE, "rewritten": rewritten}

    def spoil_group(group):
        responses = [{**response, "text": response["text"] + HOSTILE} for response in group["responses"]]
        return {**group, "responses": responses}

    def spoil_diagnosed(record):
        diagnosis = {name: told + HOSTILE for name, told in record["diagnosis"].items()}
        return {**record, "response": record["response"] + HOSTILE, "diagnosis": diagnosis}

    change("problems.jsonl", lambda problem: {**problem, "question": problem["question"] + HOSTILE})
    change("2_traces/traces.jsonl", lambda trace: {**trace, "text": trace["text"] + HOSTILE})
    change("3_bridge/bridged.jsonl", lambda trace: {**trace, "steps": [spoil_step(step) for step in trace["steps"]]})
    change("eval/results.jsonl", lambda result: {**result, "benchmark": result["benchmark"] + HOSTILE[:80]})
    for number in (1, 2):
        change(f"iter{number}/2_filter/rollouts.jsonl", spoil_group)
    change("iter1/4_recycle/diagnosed.jsonl", spoil_diagnosed)
    write_lines(copied / "2_traces/rejected.jsonl", [{"problem_id": "train-000001", "reason": HOSTILE}])
    settings = copied / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "data.prompts": HOSTILE}))
    return copied
