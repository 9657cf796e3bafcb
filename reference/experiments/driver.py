"""`--experiment`: the full run and the variants of each seed, in a folder for each, and the tables over all of them."""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from reference.config import Config, ReadingsConfig
from reference.connect import World
from reference.engines.artifacts import write_whole
from reference.engines.run_folder import RECEIPT, RunFolder, read_receipt
from reference.experiments.claims import claims
from reference.experiments.effects import Effect, effects_of
from reference.experiments.results import SEED, ClaimLine, Line, find_stage, folder_of, judged, lines_of, to_csv
from reference.experiments.variants import FULL, VARIANTS, Composition, Experiment, experiments
from reference.stages.measured import measured_in
from reference.stages.plan import DataSizes, Expected, expected_work

ITERATIONS = 2  # Section 4.2; what is compared is named after them


@dataclass(frozen=True)
class Request:
    """What was asked for: experiments by name, seeds, how many of them run side by side, a base for each."""

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    jobs: int = 1
    bases: tuple[str, ...] = ()


def check_request(request: Request, config: Config) -> None:
    """Raises ValueError for what cannot be run."""
    known = experiments(config)
    for name in request.names:
        if name not in known:
            raise ValueError(f"there is no experiment {name!r}; there are {', '.join(known)}")
    if len(set(request.seeds)) < len(request.seeds) or not request.seeds:
        raise ValueError(f"--seeds takes different seeds, at least one, got {request.seeds}")
    if request.bases and len(request.bases) != len(request.seeds):
        raise ValueError(
            f"--bases takes a checkpoint for each of the {len(request.seeds)} --seeds, got {len(request.bases)}"
        )
    if request.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, got {request.jobs}")
    if config.iterations != ITERATIONS:
        raise ValueError(f"an experiment has {ITERATIONS} iterations and its own variants, not {config.iterations}")
    if config.bridge.without or not config.grpo.exclude_all_zero:
        raise ValueError(
            "an experiment's variants leave out operations and keep all-zero problems themselves; leave out "
            "--bridge.without and --grpo.no-exclude-all-zero"
        )
    if "readings" in request.names and config.readings != ReadingsConfig():
        raise ValueError("`--experiment readings` chooses the readings itself; leave out --readings.*")
    if "readings" in request.names and config.equations == "verl":
        raise ValueError("with --equations verl SFT has verl's mean in any reading; leave it out of `readings`")
    if request.jobs > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"--jobs {request.jobs} is for a launch of one process; give --jobs 1 to several")
    if not config.data.tests:
        raise ValueError("an experiment compares evaluations: give --data.tests")
    if config.evaluation.pass_samples == 0:
        raise ValueError("an experiment compares pass@8 too: give --evaluation.pass-samples 8 or more")


def variants_of(names: Iterable[str], config: Config) -> list[str]:
    """Every variant that these experiments need, in the order they are run.

    The full method first, which the others share stages with; the motivating one last, which some models cannot have.
    """
    known = experiments(config)
    found = dict.fromkeys(variant for name in names for variant in known[name].variants)
    return sorted(found, key=lambda name: (name != FULL, name == "motivation"))


def own_work(names: Iterable[str], config: Config, sizes: DataSizes, run: RunFolder) -> list[tuple[str, Expected]]:
    """(variant, expected work) of every stage that a variant of these experiments has as its own in a seed's run.

    Raises ValueError for settings that a variant was not begun with.
    """
    found = []
    for name in variants_of(names, config):
        variant = VARIANTS[name]
        changed = variant.change(config)
        measured = measured_in(branch_of(run, name, config), changed)
        for work in expected_work(changed, variant.sizes(config, sizes), variant.own_stages(changed), measured):
            rounds = variant.rounds if work.stage.endswith("3_grpo") else 1
            found.append((name, replace(work, rollouts=rounds * work.rollouts)))
    return found


def composition_of(request: Request, method: Composition) -> Composition:
    """The full method, and then each variant as a branch of its run."""

    def run_variants(run: RunFolder, config: Config, world: World) -> None:
        try:
            method(run, config, world)
            for name in variants_of(request.names, config)[1:]:
                branch = branch_of(run, name, config)
                branch.keep_settings()
                (VARIANTS[name].composition or method)(branch, VARIANTS[name].change(config), world)
                branch.keep_elsewhere()
        finally:
            world.student.sampler.close()  # the next seed's engine needs its memory

    return run_variants


def branch_of(run: RunFolder, name: str, config: Config) -> RunFolder:
    """A variant in a full run's folder. Raises ValueError for settings that it was not begun with."""
    variant = VARIANTS[name]
    changed = variant.change(config)
    plan, wanted = variant.plan(changed), variant.wanted(changed)
    return run.variant(name, variant.settings(changed), plan, wanted, variant.shares)


def seed_folder(out: Path, seed: int) -> Path:
    """Where a seed's run and its variants lie."""
    return out / f"{SEED}{seed}"


def is_there(folder: Path, variant: str, stage: str) -> bool:
    """Whether a seed has a variant's stage: done for it, or found to be the same as one that was there."""
    return find_stage(folder, variant, stage) is not None


def _own_stages(variant: str, config: Config) -> list[str]:
    return VARIANTS[variant].own_stages(VARIANTS[variant].change(config))


def finished(config: Config, folders: Sequence[Path]) -> dict[str, Experiment]:
    """The experiments that are done for all of these seeds, in the order of the paper."""
    found = {}
    for name, experiment in experiments(config).items():
        needed = [(label, stage) for label in experiment.variants for stage in _own_stages(label, config)]
        if all(is_there(folder, *stage) for folder in folders for stage in needed):
            found[name] = experiment
    return found


def minutes_of(config: Config, experiment: Experiment, folders: Sequence[Path]) -> float:
    """What a finished experiment's stages took, the full run's with them: by the clock, the mean over the seeds."""
    own = [(label, stage) for label in experiment.variants for stage in _own_stages(label, config)]
    paths = {folder_of(folder, *one) / RECEIPT for folder in folders for one in own}
    return sum(read_receipt(path)["seconds"] for path in paths) / 60 / len(folders)


def seed_configs(request: Request, config: Config) -> list[Config]:
    """The configuration of each seed, with its own base model where there are several."""
    bases = request.bases or [config.model.path] * len(request.seeds)
    return [
        replace(config, seed=seed, model=replace(config.model, path=base))
        for seed, base in zip(request.seeds, bases, strict=True)
    ]


def run_seeds(request: Request, config: Config, run_seed: Callable[[Config], None]) -> None:
    """`run_seed` for each seed's configuration; with `jobs`, that many at a time in processes of their own.

    Where one fails, those that are at work go on to their end, and none is begun any more.

    Raises:
        OSError: a process was killed, which ends all of them.
    """
    configs = seed_configs(request, config)
    if request.jobs == 1 or len(configs) == 1:
        for one in configs:
            run_seed(one)
        return
    with ProcessPoolExecutor(min(request.jobs, len(configs)), mp_context=get_context("spawn")) as pool:
        seeds = {pool.submit(run_seed, one): one.seed for one in configs}
        failures = []
        try:
            for ended in as_completed(seeds):
                if not ended.cancelled() and (error := ended.exception()):
                    if isinstance(error, BrokenProcessPool):
                        raise OSError(
                            f"a process of --jobs {request.jobs} was killed, most likely because memory ran out, "
                            "and the others ended with it; fewer --jobs need less"
                        ) from error
                    failures.append(error)
                    print(f"seed {seeds[ended]} has ended: {error}; what else is at work goes on", file=sys.stderr)
                    pool.shutdown(wait=False, cancel_futures=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if failures:
        raise failures[0]


def write_results(
    config: Config, found: Mapping[str, Experiment], folders: Sequence[Path], out: Path
) -> tuple[list[Line], list[ClaimLine], list[Effect]]:
    """`results/EXPERIMENT.csv` for each, the claims that they bear on, and the effects of `readings`."""
    lines = []
    for name, experiment in found.items():
        of_this = lines_of(name, experiment, folders)
        write_whole(out / "results" / f"{name}.csv", to_csv(of_this))
        lines += of_this
    verdicts = [
        judged(claim, found[claim.experiment], folders) for claim in claims(config) if claim.experiment in found
    ]
    if verdicts:
        write_whole(out / "results" / "claims.csv", to_csv(verdicts))
    effects = effects_of(folders) if "readings" in found else []
    if effects:
        write_whole(out / "results" / "readings-effects.csv", to_csv(effects))
    return lines, verdicts, effects
