"""`--experiment` in processes of its own: every variant does what is its own, and nothing twice."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from reference.cli import main, run_of_seed
from reference.config import TINY
from reference.engines.distributed import Process
from reference.experiments.claims import claims
from reference.experiments.driver import Request, finished, run_seeds
from reference.experiments.variants import FULL, VARIANTS, experiments
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper.prompts import Prompts
from run_paper import run_paper

ROOT = Path(__file__).parents[2]
SMALL = """
    --data.limit 20 --data.test-limit 3 --difficulty.num-samples 4 --difficulty.max-new-tokens 96
    --grpo.batch-size 4 --grpo.mini-batch-size 2 --grpo.num-rollouts 4 --grpo.max-new-tokens 48
    --evaluation.pass-samples 8 --evaluation.max-new-tokens 64
    --motivation.budgets 200 400 --motivation.num-samples 8 --motivation.test-limit 2
""".split()
CONFIG = replace(TINY, motivation=replace(TINY.motivation, budgets=(200, 400)))


def run(out, *more):
    command = [sys.executable, "run_paper.py", "tiny", "--out", str(out), *SMALL, *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All experiments for two seeds, side by side."""
    out = tmp_path_factory.mktemp("experiments") / "out"
    names = list(experiments(CONFIG))
    process = run(out, "--experiment", *names, "--seeds", "1", "2", "--jobs", "2")
    assert process.returncode == 0, process.stderr
    return out, process, ("--experiment", *names, "--seeds", "1", "2")


def done_in(folder):
    receipts = [path for path in folder.rglob("receipt.json") if "variants" not in path.relative_to(folder).parts]
    return {str(path.parent.relative_to(folder)) for path in receipts if json.loads(path.read_text())["done"]}


@pytest.mark.slow
def test_each_variant_does_what_is_its_own_and_no_more(whole):
    for seed in (1, 2):
        for name, variant in VARIANTS.items():
            if name != FULL:
                own = set(variant.own_stages(variant.change(CONFIG)))
                assert done_in(whole[0] / f"seed-{seed}" / "variants" / name) == own, name


@pytest.mark.slow
def test_the_tables_have_every_row_and_the_seeds_differ(whole):
    for name, experiment in experiments(CONFIG).items():
        rows = list(csv.DictReader((whole[0] / "results" / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
        labels = {row["label"] for row in rows}
        assert labels == {row.label for row in experiment.rows} | {label for label, _ in experiment.means}
        assert {row["seeds"] for row in rows} == {"1 2"} and all(len(row["by_seed"].split()) == 2 for row in rows)
        assert any(len(set(row["by_seed"].split())) == 2 for row in rows)
    verdicts = list(csv.DictReader((whole[0] / "results" / "claims.csv").read_text(encoding="utf-8").splitlines()))
    assert len(verdicts) == len(claims(CONFIG)) and {row["verdict"] for row in verdicts} <= {
        "seen",
        "not seen",
        "undecided",
    }
    effects = list(csv.DictReader((whole[0] / "results" / "readings-effects.csv").read_text().splitlines()))
    # 3 metrics of 3 readings and 3 pairs after the initial SFT, of 4 readings and 6 pairs after two iterations
    assert len(effects) == 3 * (6 + 10) and {row["seeds"] for row in effects} == {"1 2"}
    assert "what the paper claims" in whole[1].stdout and whole[1].stderr == ""


@pytest.mark.slow
def test_the_numbers_are_those_of_the_evaluations(whole):
    rows = list(csv.DictReader((whole[0] / "results" / "components.csv").read_text(encoding="utf-8").splitlines()))
    for label, where in (("Full Model", "eval/iter2-3_grpo"), ("SFT-Mixed", "variants/sft-mixed/eval/sft_mixed")):
        for at, seed in enumerate((1, 2)):
            lines = (whole[0] / f"seed-{seed}" / where / "results.jsonl").read_text().splitlines()
            results = [json.loads(line) for line in lines]
            (row,) = [row for row in rows if (row["label"], row["metric"]) == (label, "average accuracy")]
            average = 100 * sum(result["accuracy"] for result in results) / len(results)
            assert float(row["by_seed"].split()[at]) == pytest.approx(average, abs=0.005)


@pytest.mark.slow
def test_the_controls_take_as_many_steps_as_the_method(whole):
    for folder in (whole[0] / "seed-1", whole[0] / "seed-2"):

        def steps(stage, folder=folder):
            return json.loads((folder / stage / "receipt.json").read_text())["counts"]["steps"]

        assert steps("variants/repeated/iter2/3_grpo") == steps("iter2/3_grpo")
        assert steps("variants/repeated/iter2/1_sft/repeated") == steps("iter2/1_sft/union")
        assert steps("variants/grpo-alone/iter1/3_grpo") == steps("iter1/3_grpo") + steps("iter2/3_grpo")


@pytest.mark.slow
def test_sft_mixed_has_the_tokens_of_medium_and_hard(whole):
    """Ambiguity A57: each of the three groups may fall short of its share by less than one trace."""

    def lines(path):
        return [json.loads(line) for line in path.read_text().splitlines()]

    for folder in (whole[0] / "seed-1", whole[0] / "seed-2"):
        lengths = [trace["num_tokens"] for trace in lines(folder / "2_traces" / "traces.jsonl")]  # of medium and hard
        steps = lines(folder / "variants" / "sft-mixed" / "sft_mixed" / "metrics.jsonl")
        learned = sum(step["supervised_tokens"] for step in steps) / CONFIG.sft.epochs
        assert sum(lengths) - 4 * max(lengths) < learned < sum(lengths) + 2 * len(lengths)


@pytest.mark.slow
def test_the_minutes_of_an_experiment_are_those_of_its_variants_and_the_full_run(whole):
    out, process, _ = whole
    (line,) = [line for line in process.stdout.splitlines() if line.startswith("minutes of a seed's stages")]
    said = dict(part.rsplit(" ", 1) for part in line.split(": ")[1].split(", "))
    for name, experiment in experiments(CONFIG).items():
        folders = [out / f"seed-{seed}" for seed in (1, 2)]
        folders += [folder / "variants" / variant for folder in folders for variant in experiment.variants[1:]]
        receipts = [folder / stage / "receipt.json" for folder in folders for stage in done_in(folder)]
        seconds = [json.loads(path.read_text())["seconds"] for path in receipts]
        assert said[name] == f"{sum(seconds) / 60 / 2:.1f}", name


@pytest.mark.slow
def test_each_seed_runs_on_its_own_base(tmp_path):
    for seed in (1, 2):
        weights = load_file(shutil.copytree(BASE_CHECKPOINT, tmp_path / f"base-{seed}") / "model.safetensors")
        moved = {name: value + seed * 1e-2 for name, value in weights.items()}
        save_file(moved, tmp_path / f"base-{seed}" / "model.safetensors", {"format": "pt"})
    bases = [str(tmp_path / f"base-{seed}") for seed in (1, 2)]
    request = ("--experiment", "all-zero", "--seeds", "1", "2", "--jobs", "2", "--bases", *bases)
    process = run(tmp_path / "out", *request)
    assert process.returncode == 0, process.stderr
    responses = set()
    for seed, base in zip((1, 2), bases, strict=True):
        folder = tmp_path / "out" / f"seed-{seed}"
        receipt = json.loads((folder / "1_difficulty" / "receipt.json").read_text())
        assert receipt["settings"]["model.path"] == base
        responses.add((folder / "eval" / "base" / "test.jsonl").read_text())
    assert len(responses) == 2
    again = run(tmp_path / "out", *request[:-2], *reversed(bases))
    assert again.returncode == 2 and "was begun with model.path" in again.stderr


@pytest.mark.slow
def test_a_second_time_nothing_is_done_again(whole):
    before = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    process = run(whole[0], *whole[2])
    assert process.returncode == 0, process.stderr
    after = {path: path.read_bytes() for path in whole[0].rglob("*") if path.is_file()}
    assert [path for path in after if after[path] != before.get(path) and path.name != "report.html"] == []
    left = run(whole[0], *whole[2], "--dry-run")
    assert left.returncode == 0 and left.stdout.splitlines()[1].split() == ["all", "together"]


@pytest.mark.slow
def test_a_later_command_tells_of_the_earlier_experiments_too(whole, tmp_path):
    out = shutil.copytree(whole[0], tmp_path / "out")
    earlier = {path.name: path.read_bytes() for path in (out / "results").iterdir()}
    for path in (out / "results").iterdir():
        path.unlink()
    process = run(out, "--experiment", "all-zero", "--seeds", "1", "2", "--motivation.num-samples", "16")
    assert process.returncode == 0, process.stderr
    assert {path.name: path.read_bytes() for path in (out / "results").iterdir()} == earlier
    for more in ((), ("--dry-run",)):
        process = run(out, "--experiment", "motivation", "--seeds", "1", "--motivation.num-samples", "16", *more)
        assert process.returncode == 2 and "was begun with evaluation.pass_samples = 8" in process.stderr
        process = run(out, "--experiment", "all-zero", "--seeds", "1", "--grpo.lr", "0.3", *more)
        assert process.returncode == 2 and "was begun with grpo.lr" in process.stderr
    shutil.rmtree(out / "seed-2" / "variants" / "raw-hard" / "3_bridge")
    found = finished(CONFIG, [out / "seed-1", out / "seed-2"])
    assert set(experiments(CONFIG)) - set(found) == {"components", "bridge-operations", "readings"}


def test_one_failing_seed_is_named_and_the_others_go_on(tmp_path, capsys):
    (tmp_path / "seed-2").mkdir(parents=True)
    (tmp_path / "seed-2" / "config.json").write_text('{"seed": 7}')
    request = Request(("components",), (1, 2), jobs=2)
    with pytest.raises(ValueError, match="seed-2 was begun with"):
        run_seeds(request, CONFIG, partial(_take_up, tmp_path))
    assert "seed 2 has ended: " in capsys.readouterr().err
    assert (tmp_path / "seed-1" / "config.json").exists()


def test_a_killed_process_is_a_sentence_that_names_memory():
    with pytest.raises(OSError, match="a process of --jobs 2 was killed, most likely because memory ran out"):
        run_seeds(Request(("components",), (1, 2), jobs=2), CONFIG, _killed)


def _killed(config):
    os.kill(os.getpid(), signal.SIGKILL)


def _take_up(out, config):
    run_of_seed(out, config, Process()).take_up([], [], Prompts())


@pytest.mark.distributed
def test_two_processes_run_experiments_seed_after_seed(tmp_path):
    """One launch for both seeds; the main process alone writes the tables."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = ["--experiment", "all-zero", "--seeds", "1", "2"]
    command = [*launcher, "run_paper.py", "tiny", "--out", str(tmp_path / "out"), *SMALL, *asked]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launched = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=environment)
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count("what the paper claims") == 1
    (name,) = finished(CONFIG, [tmp_path / "out" / "seed-1", tmp_path / "out" / "seed-2"])
    assert name == "all-zero"
    assert {path.name for path in (tmp_path / "out" / "results").iterdir()} == {
        "all-zero.csv",
        "all-zero.svg",
        "claims.csv",
    }
    side_by_side = subprocess.run([*command, "--jobs", "2"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert side_by_side.returncode != 0 and "--jobs 2 is for a launch of one process" in side_by_side.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--experiment", "nothing"), "invalid choice"),
        (("--experiment", "components", "--stages", "iter1"), "--experiment runs whole"),
        (("--experiment", "components", "--redo", "iter1"), "--experiment runs whole"),
        (("--experiment", "components", "--iterations", "1"), "an experiment has 2 iterations"),
        (("--experiment", "components", "--bridge.without", "expand"), "leave out --bridge.without"),
        (("--seeds", "1", "2"), "are for --experiment"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(tmp_path, capsys, more, says):
    assert says in refused(capsys, tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def refused(capsys, out, *more):
    """What is said of a mistake; in this process, since none of them comes further than the settings."""
    try:
        code = main(["tiny", "--out", str(out), *SMALL, *more], run_paper)
    except SystemExit as stopped:  # by the parser
        code = stopped.code
    printed = capsys.readouterr()
    assert code == 2
    return printed.err + printed.out


def test_a_run_and_experiments_do_not_share_a_folder(tmp_path, capsys):
    (tmp_path / "out" / "seed-1").mkdir(parents=True)
    (tmp_path / "out" / "seed-1" / "config.json").write_text("{}")
    assert "is a folder of experiments" in refused(capsys, tmp_path / "out", "--dry-run")
    single = refused(capsys, tmp_path / "out" / "seed-1", "--experiment", "components", "--dry-run")
    assert "is the folder of a single run" in single


def test_the_dry_run_shows_what_each_variant_adds(tmp_path):
    process = run(tmp_path / "out", "--experiment", "bridge-operations", "--dry-run")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert any(line.startswith("full 1_difficulty x 3 ") for line in lines)
    assert any(line.startswith("without-expand 3_bridge x 3 ") for line in lines)
    assert not any(line.startswith("without-expand 1_difficulty") for line in lines)
    assert not (tmp_path / "out").exists()
