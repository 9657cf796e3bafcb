"""The ```bash blocks of the pages run, in order, in a copy of the project, as a reader would paste them.

The README's first run is whole, and prints what the README shows. What needs a model of the hub, a
GPU or minutes is given `--dry-run`, which reads the same options and the same files; runs in folders of their own get
few problems and one iteration, base models few steps. What cannot run here at all stands in NOT_RUN with the reason;
nothing else is left out.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT / "reference" / "conformance" / "README.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), CONFORMANCE]
COPIED = ("run_paper.py", "setup.cfg", "pyproject.toml", "constraints.txt", "configs", "reference", "tests")
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = r"(?:\w+=\S+ )?(?:python3?|pip|accelerate|torchrun|pytest|mutmut|vllm|ruff|mypy|mkdocs|head|export)\b|\.\S*/\w+"

INSTALLS = "installs what the tests already stand on; .ci/run does the same"
IN_CI = "a line of .ci/run"
ON_DEMAND = "minutes for every mutant there is; docs/mutation.md has what came of it"
NOT_RUN = {
    "python -m venv .venv": INSTALLS,
    ". .venv/bin/activate": INSTALLS,
    "python3 -m venv .venv-oracles": INSTALLS,
    ". .venv-oracles/bin/activate": INSTALLS,
    "pip install -c constraints.txt -e .": INSTALLS,
    "pip install -c constraints.txt -e '.[test]'": INSTALLS,
    "pip install -c constraints.txt -e '.[test,browser,docs,lint]'": INSTALLS,
    "pip install -c constraints.txt -e '.[test,mutation]'": INSTALLS,
    "pip install -c constraints.txt -e '.[vllm,teacher,hub,math]'": INSTALLS,
    ".ci/install_oracles": INSTALLS,
    "pytest": IN_CI,
    'pytest -m "slow and not (vllm or gpu)"': IN_CI,
    "pytest -m browser": IN_CI,
    "pytest -m oracle": IN_CI,
    "ruff check .": IN_CI,
    "ruff format --check .": IN_CI,
    "mypy": IN_CI,
    "mkdocs build --strict": "tests/site/conftest.py runs it",
    "python -m reference.conformance reference.conformance.adapters.verl": "needs verl; tests/oracle does what it does",
    "mutmut run": ON_DEMAND,
    "mutmut run --max-children 2": ON_DEMAND,
    "mutmut run --max-children 1 'reference.paper.pass_at_k.*'": ON_DEMAND,
    "mutmut results": ON_DEMAND,
    "mutmut show reference.paper.sft.x_cosine_schedule__mutmut_16": ON_DEMAND,
    r"mutmut results --all true | sed -E 's/.*paper\.([a-z_0-9]+)\..*: /\1 /' | sort | uniq -c": ON_DEMAND,
    "vllm serve Qwen/Qwen2.5-72B-Instruct --port 8000": "serves a model of 72 billion parameters",
    "accelerate launch --config_file configs/fsdp.yaml --num_machines 2 --num_processes 8 --machine_rank 0 "
    "--main_process_ip NODE0 --main_process_port 29500 run_paper.py qwen2.5-0.5b --processes 8 "
    "--out /shared/runs/qwen": "waits for a second machine",
}


@dataclass(frozen=True)
class Block:
    """A ```bash block: its page, its line there, its simple commands, and the text of the fence behind it."""

    page: Path
    line: int
    commands: list[str]
    shown: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def commands_of(body):
    """Continued lines joined, comments left out, cut at `&&`."""
    lines = [re.sub(r"\s#.*", "", line) for line in body.replace("\\\n", " ").splitlines()]
    return [command.strip() for line in lines for command in line.split("&&")]


def blocks_of(page):
    text, blocks = page.read_text("utf-8"), []
    for fence, behind in pairwise([*FENCE.finditer(text), None]):
        if fence["language"] == "bash":
            line = text.count("\n", 0, fence.start()) + 1
            blocks.append(Block(page, line, commands_of(fence["body"]), behind["body"] if behind else ""))
    return blocks


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def as_run(command):
    """Real models, experiments, --redo, GSM8K: planned; a base: few steps; other folders: few problems; or as it is."""
    if "reference.offline.tiny_model" in command:
        return f"{command} --problems 300 --steps 20"
    if "run_paper.py" not in command or "--dry-run" in command:
        return command
    if re.search(r"run_paper\.py (?!tiny\b)\w|--experiment|--redo|gsm8k/", command):
        return f"{command} --dry-run"
    if "--out" in command:
        return f"{command} --data.limit 30 --data.test-limit 5 --iterations 1"
    return command


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with what a clone of the project holds, and the real data where the pages expect it."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    if "DATA_DIR" in os.environ:
        data = Path(os.environ["DATA_DIR"]).resolve()
        for name in ("gsm8k_platinum=platinum", "mawps", "svamp", "math500", "logiqa"):
            source, _, link = name.partition("=")
            (folder / f"{link or source}.jsonl").symlink_to(data / source / "test.jsonl")
        (folder / "gsm8k").symlink_to(data / "gsm8k")
    adapter = re.search(r"```python\n(from math.*?)```", CONFORMANCE.read_text("utf-8"), re.DOTALL)
    (folder / "my_adapter.py").write_text(adapter[1])  # its page shows it, and then a command with it
    return folder


@pytest.fixture(scope="module")
def planned_before():
    """The dry runs that were made: another page's same words need no second one."""
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_runs(block, project, planned_before, request):
    commands = [as_run(command) for command in block.commands if command not in NOT_RUN]
    commands = [command for command in commands if command not in planned_before]
    if any("gsm8k/" in command for command in commands):
        request.getfixturevalue("data_dir")
    printed = run(commands, project)
    planned = [command for command in commands if command.endswith("--dry-run")]
    assert len(re.findall(r"^stage +size ", printed, re.MULTILINE)) == len(planned)  # of several processes once
    planned_before.update(planned)
    if block == BLOCKS[0]:  # digit for digit until training, then whatever this CPU rounds
        assert without_seconds(printed)[:5] == without_seconds(block.shown)[:5]
        assert without_numbers(printed) == without_numbers(block.shown)


def run(commands, folder):
    """What the commands print, one shell for all; a failing one fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = ["bash", "-euo", "pipefail", "-c", "\n".join(commands)]
    done = subprocess.run(script, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.args[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def without_seconds(text):
    return [re.sub(r" · [\d.]+ s$", "", line) for line in text.strip().splitlines()]


def without_numbers(text):
    return [re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "N", line)).strip() for line in text.strip().splitlines()]


def test_what_is_not_run_stands_on_a_page_and_where_its_reason_says():
    commands = {command for block in BLOCKS for command in block.commands}
    assert set(NOT_RUN) <= commands
    ci = (ROOT / ".ci" / "run").read_text()
    for command, reason in NOT_RUN.items():
        assert reason != IN_CI or re.search(rf"^\s*{re.escape(command)}$", ci, re.MULTILINE), command
    assert '"mkdocs", "build", "--strict"' in (ROOT / "tests" / "site" / "conftest.py").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_command_hides_in_another_fence(page):
    for fence in FENCE.finditer(page.read_text("utf-8")):
        assert fence["language"] == "bash" or not re.match(SHELL, fence["body"]), fence["body"]
