"""The command line: a preset, typed overrides of every setting, and what to do with them."""

import json
import os
import platform
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import transformers
import tyro

from reference.config import FREE, PRESETS, Config, TeacherConfig, check, flatten, method_settings
from reference.connect import OFFLINE, base_checkpoint, connect, data_sizes, load_prompts
from reference.engines.artifacts import read_records, write_whole
from reference.engines.distributed import Process, check_tracker, fail
from reference.engines.memory import describe_memory, in_units, shape_of
from reference.engines.run_folder import NothingMoreToDo, RunFolder
from reference.experiments.driver import (
    Request,
    check_request,
    composition_of,
    finished,
    is_there,
    minutes_of,
    own_work,
    run_seeds,
    seed_configs,
    seed_folder,
    write_results,
)
from reference.experiments.effects import describe_effects
from reference.experiments.page import write_page
from reference.experiments.results import SEED, describe_results
from reference.experiments.variants import Composition
from reference.records import Evaluation
from reference.report.page import write_report
from reference.stages.measured import measured_in
from reference.stages.plan import Expected, describe, expected_work, sources, stage_names, totalled
from reference.stages.report import final_table

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy")


@dataclass(frozen=True)
class Command:
    """Run "Learning What to Learn". A preset may stand first: tiny (the default)."""

    out: str = ""
    """Folder of the run; runs/PRESET by default. A run that was interrupted goes on."""
    stages: tuple[str, ...] = ()
    """Only these stages (`iter1` is all of iter1/...); what they need must be done."""
    redo: str | None = None
    """Throw away this stage and all after it, and run them again."""
    experiment: tuple[
        Literal["motivation", "components", "bridge-operations", "all-zero", "iterations", "controls", "readings"], ...
    ] = ()
    """Run these experiments in place of the method alone (docs/experiments.md); the folder is then
    runs/PRESET-experiments."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """With --experiment: every seed is a run of its own, and the tables are over all of them."""
    bases: tuple[str, ...] = ()
    """With --experiment: a base model for each seed, in place of --model.path for all."""
    jobs: int = 1
    """With --experiment: so many seeds at a time."""
    tracker: Literal["tensorboard", "wandb"] | None = None
    """Hand every training step's metrics to this tracker too; TensorBoard's files are then in the run's folder."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Show the stages that are left, their sizes and expected teacher calls; run nothing."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def parse(arguments: Sequence[str]) -> tuple[str, Command]:
    """The preset's name and the command.

    Raises:
        ValueError: an unknown preset or setting, with the nearest name.
        SystemExit: `--help`, or a value of the wrong type (code 2).
    """
    preset, rest = "tiny", list(arguments)
    if rest and not rest[0].startswith("-"):
        preset = rest.pop(0)
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; the nearest name is {nearest(preset, list(PRESETS))!r}")
    command, unknown = tyro.cli(
        Command,
        prog="run_paper.py [PRESET]",
        args=rest,
        default=Command(config=PRESETS[preset]),
        return_unknown_args=True,
    )
    if unknown:
        names = [
            f"--{name.replace('_', '-')}"
            for name in (*flatten(command.config), *(each.name for each in fields(Command)))
        ]
        given = unknown[0].partition("=")[0]
        raise ValueError(
            f"there is no setting {given!r}; the nearest name is {nearest(given, names)!r} (--help lists all)"
        )
    return preset, command


def nearest(given: str, names: Sequence[str]) -> str:
    """The name that is spelt most like the one given."""
    return get_close_matches(given, names, n=1, cutoff=0)[0]


def main(arguments: Sequence[str], run_paper: Composition) -> int:
    """Parse, run, report. The exit code: 0, 2 for a mistake in what was asked for, 130 for an interruption."""
    again = "what is finished is kept, run the same command again"
    try:
        preset, command = parse(arguments)
        if command.redo:  # a second --redo would throw away what the first has finished
            again += ", without --redo"
        config = command.config
        check(config)
        if command.tracker:
            check_tracker(command.tracker)
        if command.dry_run and _rank() != "0":
            return 0  # the launch's first process says it for all
        if command.experiment:
            run_experiments(preset, command, run_paper)
            return 0
        if (command.seeds, command.jobs, command.bases) != (Command.seeds, Command.jobs, Command.bases):
            raise ValueError(
                "--seeds, --jobs and --bases are for --experiment; a single run has --seed and --model.path"
            )
        out = Path(command.out or f"runs/{preset}")
        if any(out.glob(f"{SEED}*/config.json")):
            raise ValueError(f"{out} is a folder of experiments; give the run another --out, or a seed's folder in it")
        process = Process() if command.dry_run else Process.of_launch(config.processes)
        run = RunFolder(
            out,
            method_settings(config),
            stage_names(config),
            wanted=command.stages,
            redo=command.redo,
            free=FREE,
            process=process,
        )
        if command.dry_run:
            print(dry_run(run, config))
        else:
            execute(preset, run, config, run_paper, command.tracker)
            results = run.path / "eval" / "results.jsonl"
            if process.is_main and results.exists():
                print(f"\n{final_table(read_records(results, Evaluation))}\n")
            add_report(run)
        return 0
    except ValueError as error:
        print(f"{_speaker()}: {error}", file=sys.stderr)
        return fail(2)
    except OSError as error:
        print(f"{_speaker()}: {error}; {again}", file=sys.stderr)
        return fail(2)
    except KeyboardInterrupt:
        print(f"\nrun_paper: interrupted; {again}", file=sys.stderr)
        return fail(130)
    except SystemExit:  # the main process says why
        fail(2)
        raise
    except BaseException:
        fail(1, traceback.format_exc())
        raise


def run_experiments(preset: str, command: Command, run_paper: Composition) -> None:
    """All seeds, then the tables. Raises ValueError for what cannot be run."""
    if command.stages or command.redo:
        raise ValueError(
            "--experiment runs whole; for single stages give a seed's own folder as --out and its --seed, without it"
        )
    config, out = command.config, Path(command.out or f"runs/{preset}-experiments")
    if (out / "config.json").exists():
        raise ValueError(f"{out} is the folder of a single run; give the experiments another --out")
    request = Request(tuple(command.experiment), command.seeds, command.jobs, command.bases)
    check_request(request, config)
    if command.dry_run:
        print(dry_run_experiments(request, config, out))
        return
    process = Process.of_launch(config.processes) if request.jobs == 1 else None
    run_seeds(request, config, partial(run_seed, preset, request, out, run_paper, command.tracker, process))
    if process is None or process.is_main:
        folders = [seed_folder(out, seed) for seed in request.seeds]
        found = finished(config, folders)  # those of earlier commands too
        lines, verdicts, effects = write_results(config, found, folders, out)
        report = write_page(out, found, lines, verdicts, effects, request.seeds)
        minutes = ", ".join(f"{name} {minutes_of(config, one, folders):.1f}" for name, one in found.items())
        print(f"\n{describe_results(lines, verdicts)}\n")
        if effects:
            print(f"{describe_effects(effects)}\n")
        print(f"minutes of a seed's stages, the full run's with them: {minutes}")
        print(f"in {out / 'results'}\nreport: {report}")


def run_seed(
    preset: str,
    request: Request,
    out: Path,
    run_paper: Composition,
    tracker: str | None,
    process: Process | None,
    config: Config,
) -> None:
    """The full run of one seed and its variants, in the processes of the launch or in a new one."""
    process = process or Process.of_launch(config.processes)
    run = run_of_seed(out, config, process)
    execute(preset, run, config, composition_of(request, run_paper), tracker)
    add_report(run)


def run_of_seed(out: Path, config: Config, process: Process) -> RunFolder:
    """The full run of a seed, whose lines name it. Raises ValueError for settings that the folder is not of."""

    def say(line: str) -> None:
        print(f"seed {config.seed}: {line}", flush=True)

    folder, settings = seed_folder(out, config.seed), method_settings(config)
    return RunFolder(folder, settings, stage_names(config), free=FREE, say=say, process=process)


def dry_run_experiments(request: Request, config: Config, out: Path) -> str:
    """What is left of each seed, stage by stage, and what all of it is expected to take."""
    load_prompts(config.data.prompts)
    configs, sizes = seed_configs(request, config), data_sizes(config)
    runs = [run_of_seed(out, one, Process()) for one in configs]
    of_seeds = [own_work(request.names, one, sizes, run) for one, run in zip(configs, runs, strict=True)]
    parts, left = [], []
    for of_stage in zip(*of_seeds, strict=True):
        missing = Counter(
            (variant, work)
            for run, (variant, work) in zip(runs, of_stage, strict=True)
            if not is_there(run.path, variant, work.stage)
        )
        for (variant, work), times in missing.items():  # a line for each seed where they have measured different sizes
            seeds = f" x {times}" if len(runs) > 1 else ""
            parts.append(replace(work, stage=f"{variant} {work.stage}{seeds}"))
            left += [work] * times
    origins = [f"seed {one.seed}: {sources(measured_in(run, one))}" for one, run in zip(configs, runs, strict=True)]
    needs = dict.fromkeys(device_needs(one) for one in configs)
    total = totalled(left)
    return "\n\n".join([describe(parts, total), "\n".join(origins), *teacher_price(config, total), *needs])


def _rank() -> str:
    """This process's number in the launch, before there is a group."""
    return os.environ.get("RANK", "0")


def _speaker() -> str:
    """Who reports a mistake: of several processes each may have found its own."""
    return "run_paper" if _rank() == "0" else f"run_paper (process {_rank()})"


def execute(preset: str, run: RunFolder, config: Config, run_paper: Composition, tracker: str | None) -> None:
    """The run itself."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    process = run.process
    world = connect(config, process, run.path / "teacher")
    with run.lock():
        tests = [problem for problems in world.benchmarks.values() for problem in problems]
        run.take_up(world.problems, tests, world.student.prompts)
        versions = json.dumps(environment(process), indent=1) + "\n"
        process.on_main(lambda: write_whole(run.path / "environment.json", versions))
        left_out = f", {world.num_too_long} left out (prompt too long)" if world.num_too_long else ""
        size = f"{len(world.problems)} training problems{left_out}"
        place = str(process.device) if process.size == 1 else f"{process.size} processes on {process.device.type}"
        run.say(f"{preset} in {run.path} on {place}: {size}")
        if tracker:
            process.start_tracker(tracker, run.path, run.settings)
        try:
            run_paper(run, config, world)
        except NothingMoreToDo:
            pass
        except BaseException:  # the others may have ended otherwise: each process says what it has spent
            if world.chat_teacher:
                world.chat_teacher.close()
                print(teacher_line(asdict(world.chat_teacher.usage()), config.teacher), flush=True)
            raise
        finally:
            process.end_tracker()
        if world.chat_teacher:
            world.chat_teacher.close()
            run.say(teacher_line(process.total(asdict(world.chat_teacher.usage())), config.teacher))


def add_report(run: RunFolder) -> None:
    """Write the run's report."""
    if run.process.is_main:
        run.say(f"report: {write_report(run.path)}")


def environment(process: Process) -> dict[str, str]:
    """What the run was made with."""
    versions = {name: version(name) for name in PACKAGES}
    place = {"device": process.device.type, "processes": str(process.size)}
    return {"python": platform.python_version(), **place, **versions}


def teacher_line(usage: dict[str, float], settings: TeacherConfig) -> str:
    """What the teacher's calls of this command were, and what they cost at the prices given."""
    read, written = usage["tokens_read"], usage["tokens_written"]
    return (
        f"{'teacher':<27} {usage['calls']} calls, {usage['replayed']} replayed from before, "
        f"{usage['resent']} sent again, "
        f"{read} tokens read, {written} written, about {dollars(read, written, settings):.2f} USD"
    )


def dollars(tokens_read: float, tokens_written: float, settings: TeacherConfig) -> float:
    """At --teacher.input-price and --teacher.output-price for a million tokens."""
    return (tokens_read * settings.input_price + tokens_written * settings.output_price) / 1e6


def dry_run(run: RunFolder, config: Config) -> str:
    """The stages that are left: sizes, expected teacher calls, tokens and their price; and device needs."""
    load_prompts(config.data.prompts)
    measured = measured_in(run, config)
    work = expected_work(config, data_sizes(config), measured=measured)
    left = [one for one in work if run.is_left(one.stage)]
    parts = [describe(left), sources(measured)]
    return "\n\n".join([*parts, *teacher_price(config, totalled(left)), device_needs(config)])


def teacher_price(config: Config, total: Expected) -> list[str]:
    """A line with what the teacher is expected to cost; nothing for the one that needs no calls."""
    if config.teacher.kind != "chat":
        return []
    price = dollars(total.tokens_read, total.tokens_written, config.teacher)
    return [
        f"{config.teacher.model}: about {price:.2f} USD at {config.teacher.input_price} for a million tokens read "
        f"and {config.teacher.output_price} for a million written; answers asked again come on top"
    ]


def device_needs(config: Config) -> str:
    """Memory for each process, from the model's shape."""
    path = str(base_checkpoint(config)) if config.model.path == OFFLINE else config.model.path
    shape = shape_of(path)
    if shape is None:
        return f"{config.model.path} is not in a local folder: its size shows once it is there"
    table = describe_memory(
        shape,
        config.sft.max_tokens_per_batch,
        config.grpo.max_tokens_per_batch,
        config.model.activation_checkpointing,
    )
    sampler = f"the sampler's weights take {in_units(shape, 2 * shape.parameters)} in bfloat16, its cache comes on top"
    if config.sampler == "vllm":
        sampler += f", together {100 * config.vllm.gpu_memory_utilization:.0f} % of the GPU"
    return f"{shape.parameters / 1e6:.1f} million parameters; memory of each process:\n{table}\n{sampler}"
