"""Imports run one way: run_paper -> cli, experiments -> connect, report -> stages -> engines -> paper -> records."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([ROOT / "run_paper.py", *(ROOT / "reference").rglob("*.py")])

# What each part of the package may import from the package. A part is a folder or a file right under reference/.
BELOW = {
    "records": set(),
    "seeds": set(),
    "config": {"records"},
    "interfaces": {"records"},
    "paper": {"paper", "interfaces", "records"},
    "engines": {"engines", "paper", "interfaces", "records"},
    "stages": {"stages", "engines", "paper", "config", "seeds", "interfaces", "records"},
    "offline": {"offline", "engines", "paper", "seeds", "interfaces", "records"},
    "report": {"report", "stages", "engines", "paper", "config", "records"},
    "connect": {"offline", "stages", "engines", "paper", "config", "interfaces", "records"},
    "experiments": {"experiments", "connect", "report", "stages", "engines", "paper", "config", "seeds", "records"},
    "cli": {"experiments", "connect", "report", "stages", "engines", "config", "records"},
    "run_paper": {"cli", "connect", "stages", "engines", "paper", "config", "records"},
    "conformance": {"conformance", "paper", "records"},
    "__init__": set(),
}


def imported(path):
    """The modules that a file imports, in full: `reference.paper.sft`, `torch.nn`."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relative to itself; write the name in full"
            modules += [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "reference" else []
            modules += [node.module] if node.module != "reference" else []
    return modules


def part_of(path):
    """`reference/paper/sft.py` -> paper, `reference/cli.py` -> cli."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py") if path.parent != ROOT else path.stem


def importers_of(package):
    return [str(path.relative_to(ROOT)) for path in FILES if package in {name.split(".")[0] for name in imported(path)}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_the_wrong_way(path):
    own = part_of(path)
    assert own in BELOW, f"say in this test what {own} may import"
    for module in imported(path):
        if module.startswith("reference."):
            assert module.split(".")[1] in BELOW[own], f"{path.name} is part of {own} and imports {module}"


def test_the_paper_needs_nothing_but_torch_and_numpy():
    allowed = sys.stdlib_module_names | {"torch", "numpy", "reference"}
    for path in (ROOT / "reference" / "paper").glob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path.name


def test_only_connect_knows_the_offline_world():
    users = {part_of(path) for path in FILES if any(name.startswith("reference.offline") for name in imported(path))}
    assert users == {"offline", "connect"}


def test_each_engine_has_one_importing_file():
    assert importers_of("accelerate") == ["reference/engines/distributed.py"]
    assert importers_of("vllm") == ["reference/engines/vllm_sampler.py"]
    assert importers_of("openai") == ["reference/engines/chat_endpoint.py"]
    assert importers_of("matplotlib") == ["reference/report/figures.py"]


@pytest.mark.parametrize("library", ["verl", "trl"])
def test_another_trainer_is_imported_by_its_adapter_only(library):
    assert importers_of(library) == [f"reference/conformance/adapters/{library}.py"]
    users = [path.name for path in FILES if f"reference.conformance.adapters.{library}" in imported(path)]
    assert users == []  # it is named on the command line, or by a test


def test_the_report_reads_files_and_nothing_that_makes_them_asks_for_it():
    users = {part_of(path) for path in FILES if any(name.startswith("reference.report") for name in imported(path))}
    assert users == {"report", "experiments", "cli"}
    used = {name for path in (ROOT / "reference" / "report").glob("*.py") for name in imported(path)}
    assert {name for name in used if name.startswith("reference.engines")} == {"reference.engines.artifacts"}
    stages = {name for name in used if name.startswith("reference.stages")}
    assert stages == {"reference.stages.plan", "reference.stages.report"}  # what stages there are; Wilson's interval


def test_stages_name_no_framework():
    frameworks = {"transformers", "accelerate", "tokenizers", "safetensors", "vllm", "openai", "tyro"}
    for path in (ROOT / "reference" / "stages").glob("*.py"):
        assert not frameworks & {name.split(".")[0] for name in imported(path)}, path.name


BLOCKED = """
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
for name in {modules}:
    importlib.import_module(name)
"""


def run_blocked(blocked, modules):
    script = BLOCKED.format(blocked=blocked, modules=modules)
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)


def test_the_paper_can_be_imported_without_any_engine():
    modules = [f"reference.paper.{path.stem}" for path in (ROOT / "reference" / "paper").glob("*.py")]
    result = run_blocked(
        ["vllm", "openai", "accelerate", "transformers", "tokenizers", "tqdm"], ["reference", *modules]
    )
    assert result.returncode == 0, result.stderr


def test_the_run_can_be_imported_without_vllm_and_openai():
    result = run_blocked(["vllm", "openai"], ["reference", "run_paper", "reference.engines.vllm_sampler"])
    assert result.returncode == 0, result.stderr


def test_the_block_does_block():
    assert "transformers is blocked" in run_blocked(["transformers"], ["reference.engines.chat"]).stderr
