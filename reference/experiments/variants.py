"""The named experiments: which variants of the method each compares, and what is evaluated of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from reference.config import Config, Operation, flatten, method_settings
from reference.connect import World
from reference.engines.run_folder import RunFolder
from reference.experiments import compositions
from reference.stages.plan import DataSizes, evaluation_of, stage_names

Composition = Callable[[RunFolder, Config, World], None]
PASS, AVERAGE, FORMAT, ALL_ZERO = "pass@8", "average accuracy", "format", "all-zero problems"
NOT_IN_PAPER = "not in the paper"
FULL = "full"  # the method itself, in the seed's own folder


def _as_it_is(config: Config) -> Config:
    return config


def _all_data(config: Config, sizes: DataSizes) -> DataSizes:
    return sizes


def _in_domain(config: Config, sizes: DataSizes) -> DataSizes:
    """The benchmark that the motivating experiment samples on."""
    name, size = next(iter(sizes.tests.items()))
    return replace(sizes, tests={name: min(size, config.motivation.test_limit or size)})


@dataclass(frozen=True)
class Variant:
    """The method with other settings, or another composition of stages with a plan of its own.

    `own`: the stages (or `iter2` for all of iter2/...) that come out otherwise than in the full run and are done anew;
    evaluations follow their checkpoints. `evaluated` names the checkpoints to evaluate; all of `own` when empty.
    `settings`: those it is bound to. `rounds`: its own GRPO takes the steps of so many iterations.
    """

    what: str
    own: tuple[str, ...]
    change: Callable[[Config], Config] = _as_it_is
    composition: Composition | None = None
    plan: Callable[[Config], list[str]] = stage_names
    evaluated: tuple[str, ...] = ()
    sizes: Callable[[Config, DataSizes], DataSizes] = _all_data
    settings: Callable[[Config], dict[str, object]] = method_settings
    rounds: int = 1

    def wanted(self, config: Config) -> list[str]:
        """The plan without the evaluations that nobody asks for."""
        unasked = [name for name in self.plan(config) if name.startswith("eval/")]
        if not self.evaluated:
            return self.plan(config)
        asked = [name for checkpoint in self.evaluated for name in evaluation_of(config, checkpoint)]
        return [name for name in self.plan(config) if name not in unasked or name in asked]

    def own_stages(self, config: Config) -> list[str]:
        """What is done for this variant alone, in order."""
        mine = [name for name in self.plan(config) if _within(name, self.own)]
        checkpoints = [*mine, *(name.rsplit("/", 1)[0] for name in mine)]  # a curriculum's phases are one checkpoint
        evaluations = [evaluation for name in checkpoints for evaluation in evaluation_of(config, name)]
        return [name for name in self.wanted(config) if name in mine or name in evaluations]


def _within(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == pattern or name.startswith(pattern + "/") for pattern in patterns)


EVERYTHING = ("eval", "1_difficulty", "2_traces", "3_bridge", "iter1", "iter2")
AFTER_SFT, AFTER_TWO = "iter1/1_sft/2_bridge", "iter2/3_grpo"
FROM_BRIDGE = ("3_bridge", "iter1/1_sft/2_bridge", "iter1/2_filter", "iter1/3_grpo", "iter1/4_recycle", "iter2")


def _without(*operations: Operation) -> Variant:
    return Variant(
        f"the Bridge without {' and '.join(operations)}: such a step is kept as it is, without a local sample",
        own=FROM_BRIDGE,
        change=lambda config: replace(config, bridge=replace(config.bridge, without=operations)),
        evaluated=(AFTER_SFT, AFTER_TWO),
    )


VARIANTS: dict[str, Variant] = {
    FULL: Variant("the method as the configuration has it", own=EVERYTHING),
    "motivation": Variant(
        "five curricula at five budgets of supervised tokens, from the base model",
        own=("eval/base", "2_pools", *("simple", "medium", "hard", "mixed", "medium_hard")),
        change=lambda config: replace(
            config, evaluation=replace(config.evaluation, pass_samples=config.motivation.num_samples)
        ),
        composition=compositions.motivation,
        plan=compositions.motivation_plan,
        sizes=_in_domain,
        settings=flatten,
    ),
    "sft-mixed": Variant(
        "one SFT phase over traces of all groups, in their own proportions",
        own=("2_all_traces", "sft_mixed"),
        composition=compositions.sft_mixed,
        plan=compositions.sft_mixed_plan,
    ),
    "without-expand": _without("expand"),
    "without-localize": _without("localize"),
    "without-compress-drop": _without("compress", "drop"),
    "raw-hard": replace(
        _without("expand", "localize", "compress", "drop"), what="the hard traces as the teacher wrote them"
    ),
    "grpo-on-everything": Variant(
        "GRPO on all problems, those of which no rollout was right too",
        own=("iter1/3_grpo",),
        change=lambda config: replace(config, iterations=1, grpo=replace(config.grpo, exclude_all_zero=False)),
    ),
    "four-iterations": Variant(
        "the method for four iterations",
        own=("iter2/4_recycle", "iter3", "iter4"),
        change=lambda config: replace(config, iterations=4),
        evaluated=("iter3/3_grpo", "iter4/3_grpo"),
    ),
    "repeated": Variant(
        "a second iteration without recycling: as many samples of D_acq once more",
        own=("iter2/1_sft/3_repeated", "iter2/2_filter", "iter2/3_grpo"),
        composition=compositions.repeated,
        plan=compositions.repeated_plan,
    ),
    "grpo-alone": Variant(
        "GRPO from the base model, for the steps of both iterations",
        own=("iter1/2_filter", "iter1/3_grpo"),
        composition=compositions.grpo_alone,
        plan=compositions.grpo_alone_plan,
        rounds=2,
    ),
    "local-only": Variant(
        "the Bridge's local samples without its traces",
        own=("iter1/1_sft/2_local",),
        composition=compositions.local_only,
        plan=compositions.local_only_plan,
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of an experiment's table: which variant's checkpoint, and what the paper calls it."""

    label: str
    variant: str
    checkpoint: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper: `rows` in its order, and the metrics that it has.

    With the average of all benchmarks comes each benchmark's own accuracy, and with each accuracy its format rate.
    """

    title: str
    source: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = (AVERAGE, PASS)

    @property
    def variants(self) -> list[str]:
        """The variants to be run, the full method first."""
        return [FULL, *dict.fromkeys(row.variant for row in self.rows if row.variant != FULL)]


SFT_MIXED, RAW_HARD = Row("SFT-Mixed", "sft-mixed", "sft_mixed"), "raw-hard"
COMPONENTS = (
    Row("Base", FULL, "base"),
    SFT_MIXED,
    Row("SFT-Medium", FULL, "iter1/1_sft/1_medium"),
    Row("SFT-Medium -> Raw-Hard", RAW_HARD, AFTER_SFT),
    Row("SFT-Medium -> Bridged-Hard", FULL, AFTER_SFT),
    Row("SFT-Medium -> Bridged-Hard + GRPO", FULL, "iter1/3_grpo"),
    Row("SFT-Medium -> Bridged-Hard + GRPO + Recycling", FULL, "iter2/1_sft/3_recycled"),
    Row("Full Model", FULL, AFTER_TWO),
)
BRIDGE_VARIANTS = {
    "w/o Expand": "without-expand",
    "w/o Localize": "without-localize",
    "w/o Comp./Drop": "without-compress-drop",
    "Raw Hard": RAW_HARD,
    "Full Bridge": FULL,
}


def motivation_rows(config: Config) -> tuple[Row, ...]:
    """A row for each curriculum and budget."""
    return (
        Row("base", "motivation", "base"),
        *(
            Row(f"{curriculum} {budget}", "motivation", f"{curriculum}/{budget}")
            for curriculum in compositions.CURRICULA
            for budget in config.motivation.budgets
        ),
    )


def experiments(config: Config) -> dict[str, Experiment]:
    """Every experiment by its name on the command line."""
    return {
        "motivation": Experiment(
            "Curricula at equal budgets of supervised tokens",
            "Figures 1, 6 and 7",
            motivation_rows(config),
            (PASS,),
        ),
        "components": Experiment("Components", "Table 10, Figure 3", COMPONENTS),
        "bridge-operations": Experiment(
            "Bridge operations",
            "Table 2",
            tuple(
                Row(label + when, variant, checkpoint)
                for label, variant in BRIDGE_VARIANTS.items()
                for when, checkpoint in ((", after SFT", AFTER_SFT), (", after two iterations", AFTER_TWO))
            ),
        ),
        "all-zero": Experiment(
            "What becomes of all-zero problems",
            "Table 3",
            (
                Row("Initial SFT + GRPO", "grpo-on-everything", "iter1/3_grpo"),
                Row("w/ all-zero exclusion", FULL, "iter1/3_grpo"),
                Row("w/ all-zero exclusion + Recycling", FULL, "iter2/1_sft/3_recycled"),
            ),
        ),
        "iterations": Experiment(
            "Iterations 1 to 4",
            "Table 11, Figures 4 and 9",
            (
                Row("Base", FULL, "base"),
                Row("Iteration 1", FULL, "iter1/3_grpo"),
                Row("Iteration 2", FULL, AFTER_TWO),
                Row("Iteration 3", "four-iterations", "iter3/3_grpo"),
                Row("Iteration 4", "four-iterations", "iter4/3_grpo"),
            ),
            (AVERAGE, PASS, ALL_ZERO),
        ),
        "controls": Experiment(
            "Controls",
            NOT_IN_PAPER,
            (
                Row("Base", FULL, "base"),
                Row("GRPO alone, steps of both iterations", "grpo-alone", "iter1/3_grpo"),
                Row("Second iteration without recycling, equal steps", "repeated", AFTER_TWO),
                Row("Full Model", FULL, AFTER_TWO),
                Row("SFT-Medium -> local samples alone", "local-only", "iter1/1_sft/2_local"),
                Row("SFT-Medium -> Bridged-Hard", FULL, AFTER_SFT),
            ),
        ),
    }
