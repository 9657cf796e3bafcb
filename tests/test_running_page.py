"""docs/running.md is true: what it shows is what the commands print, and every option and path on it exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from reference.cli import Command, main
from reference.config import Config, flatten

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
OTHERS = {"cpu", "config_file", "num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port"}
OTHERS |= {"nproc-per-node", "standalone", "port"}


@pytest.mark.parametrize("preset", ["qwen2.5-0.5b", "llama3.2-1b"])
def test_the_dry_runs_print_what_the_page_shows(preset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([preset, "--dry-run"], None) == 0
    printed = capsys.readouterr().out
    blocks = re.findall(r"^```\w*\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [line.rstrip() for line in printed.splitlines()] in [
        [line.rstrip() for line in block.splitlines()] for block in blocks
    ]


def test_every_option_on_the_page_exists():
    known = {name.replace("_", "-") for name in (*flatten(Config()), *(field.name for field in fields(Command)))}
    assert set(re.findall(r"(?<![\w-])--([\w.-]*\w)", PAGE)) <= known | OTHERS


def test_every_path_on_the_page_exists():
    for path in re.findall(r"`((?:reference|tests|configs|docs|\.ci)/[\w./-]+)`", PAGE):
        assert (ROOT / path).exists(), path
    assert (ROOT / "configs/fsdp.yaml").exists()


def test_the_launch_file_says_what_the_page_says():
    launch = yaml.safe_load((ROOT / "configs" / "fsdp.yaml").read_text())
    assert launch["distributed_type"] == "FSDP" and launch["fsdp_config"]["fsdp_version"] == 2
    assert launch["num_processes"] == 2 and launch["mixed_precision"] == "bf16"
    assert not launch["fsdp_config"]["fsdp_offload_params"]
    assert not launch["fsdp_config"]["fsdp_activation_checkpointing"]
