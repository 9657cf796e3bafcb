"""`--experiment`: the full run and the variants of each seed, in a folder for each, and the tables over all of them."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from reference.config import Config, flatten
from reference.connect import World
from reference.engines.artifacts import write_whole
from reference.engines.run_folder import RECEIPT, RunFolder, read_receipt
from reference.experiments.claims import claims
from reference.experiments.results import ClaimLine, Line, judged, lines_of, to_csv
from reference.experiments.variants import FULL, VARIANTS, Composition, Experiment, experiments
from reference.stages.plan import DataSizes, stage_names

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
    if request.jobs > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"--jobs {request.jobs} is for a launch of one process; give --jobs 1 to several")
    if not config.data.tests:
        raise ValueError("an experiment compares evaluations: give --data.tests")
    if config.evaluation.pass_samples == 0:
        raise ValueError("an experiment compares pass@8 too: give --evaluation.pass-samples 8 or more")


def chosen(request: Request, config: Config) -> dict[str, Experiment]:
    """The experiments asked for, in the order of the paper."""
    return {name: found for name, found in experiments(config).items() if name in request.names}


def variants_of(request: Request, config: Config) -> list[str]:
    """Every variant that one of the experiments needs, the full method first."""
    return list(dict.fromkeys(name for found in chosen(request, config).values() for name in found.variants))


def stages_of(request: Request, config: Config, sizes: DataSizes) -> list[tuple[str, Config, DataSizes, list[str]]]:
    """(variant, its configuration, the data it takes, the stages that are its own), the full run first."""
    found = [(FULL, config, sizes, stage_names(config))]
    for name in variants_of(request, config)[1:]:
        changed = VARIANTS[name].change(config)
        found.append((name, changed, VARIANTS[name].sizes(config, sizes), VARIANTS[name].own_stages(changed)))
    return found


def composition_of(request: Request, method: Composition) -> Composition:
    """The full method, and then each variant as a branch of its run."""

    def run_variants(run: RunFolder, config: Config, world: World) -> None:
        try:
            method(run, config, world)
            for name in variants_of(request, config):
                if name != FULL:
                    variant = VARIANTS[name]
                    changed = variant.change(config)
                    branch = run.variant(name, flatten(changed), variant.plan(changed), variant.wanted(changed))
                    (variant.composition or method)(branch, changed, world)
        finally:
            world.student.sampler.close()  # the next seed's engine needs its memory

    return run_variants


def seed_folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def is_done(folder: Path, variant: str, stage: str) -> bool:
    """Whether a seed's folder has a variant's stage."""
    own = folder if variant == FULL else folder / "variants" / variant
    path = own / stage / RECEIPT
    return path.exists() and bool(read_receipt(path)["done"])


def seed_configs(request: Request, config: Config) -> list[Config]:
    """The configuration of each seed, with its own base model where there are several."""
    bases = request.bases or [config.model.path] * len(request.seeds)
    return [
        replace(config, seed=seed, model=replace(config.model, path=base))
        for seed, base in zip(request.seeds, bases, strict=True)
    ]


def run_seeds(request: Request, config: Config, run_seed: Callable[[Config], None]) -> None:
    """`run_seed` for each seed's configuration; with `jobs`, that many at a time in processes of their own."""
    configs = seed_configs(request, config)
    if request.jobs == 1 or len(configs) == 1:
        for one in configs:
            run_seed(one)
        return
    with ProcessPoolExecutor(min(request.jobs, len(configs)), mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run_seed, one) for one in configs]
        try:
            for finished in as_completed(running):
                finished.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def write_results(request: Request, config: Config, out: Path) -> tuple[list[Line], list[ClaimLine]]:
    """`results/EXPERIMENT.csv` for each, and the claims that they bear on in `results/claims.csv`."""
    folders = [seed_folder(out, seed) for seed in request.seeds]
    found = chosen(request, config)
    lines = []
    for name, experiment in found.items():
        of_this = lines_of(name, experiment, folders)
        write_whole(out / "results" / f"{name}.csv", to_csv(of_this))
        lines += of_this
    verdicts = [
        judged(claim, found[claim.experiment], folders) for claim in claims(config) if claim.experiment in found
    ]
    write_whole(out / "results" / "claims.csv", to_csv(verdicts))
    return lines, verdicts
