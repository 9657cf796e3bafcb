"""The named experiments: which variants of the method each compares, and what is evaluated of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from reference.config import Config, Operation, flatten, method_settings
from reference.connect import World
from reference.engines.run_folder import RunFolder
from reference.experiments import compositions, readings
from reference.paper.curricula import CURRICULA
from reference.stages.plan import DataSizes, evaluation_of, sft_stages, stage_names

Composition = Callable[[RunFolder, Config, World], None]
PASS, AVERAGE, FORMAT, ALL_ZERO = "pass@8", "average accuracy", "format", "all-zero problems"
NOT_IN_PAPER = "not in the paper"
FULL = "full"  # the method itself, in the seed's own folder
DEFAULT = "default"  # the combination of readings that the method has
OVER_BUDGETS = "average"  # of a curriculum, over its budgets: the right halves of Figures 6 and 7
BEFORE_0_2 = " (the default of version 0.1)"
AFTER_INITIAL_SFT, AFTER_TWO_ITERATIONS = ", after SFT", ", after two iterations"


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
    `settings`: those it is bound to. `rounds`: its own GRPO takes the steps of so many iterations. `shares`: variants
    that are run before it, and whose stages it takes where they come out the same.
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
    shares: tuple[str, ...] = ()

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


def _reading(chosen: tuple[str, ...]) -> Variant:
    return Variant(
        f"the method with the reading{'s' if len(chosen) > 1 else ''} {', '.join(chosen)}",
        own=readings.own_stages(chosen),
        change=lambda config: readings.with_readings(config, chosen),
        evaluated=(AFTER_SFT, AFTER_TWO),
        shares=readings.shares_of(chosen),
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
        own=("iter2/1_sft/repeated", "iter2/2_filter", "iter2/3_grpo"),
        composition=compositions.repeated,
        plan=compositions.repeated_plan,
    ),
    "grpo-alone": Variant(
        "GRPO from the base model on what it solves at all (Eq. 14), for the steps of the method's two iterations",
        own=("iter1/2_filter", "iter1/3_grpo"),
        composition=compositions.grpo_alone,
        plan=compositions.grpo_plan,
        rounds=2,
    ),
    "grpo-plain": Variant(
        "ordinary GRPO: from the base model, one epoch over all problems, none excluded",
        own=("iter1/3_grpo",),
        change=lambda config: replace(config, grpo=replace(config.grpo, exclude_all_zero=False)),
        composition=compositions.grpo_plain,
        plan=compositions.grpo_plan,
        shares=("grpo-alone",),
    ),
    "local-only": Variant(
        "the Bridge's local samples without its traces",
        own=("iter1/1_sft/2_local",),
        composition=compositions.local_only,
        plan=compositions.local_only_plan,
    ),
    **{readings.name_of(chosen): _reading(chosen) for chosen in readings.COMBINATIONS},
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
    `means`: further lines, each the mean of these rows by the first metric.
    """

    title: str
    source: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = (AVERAGE, PASS)
    means: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def variants(self) -> list[str]:
        """The variants to be run, each after those it shares stages with, the full method first."""
        needed = [name for row in self.rows for name in (*VARIANTS[row.variant].shares, row.variant)]
        return [FULL, *dict.fromkeys(name for name in needed if name != FULL)]


RAW_HARD = "raw-hard"
MEDIUM_ROW = Row("SFT-Medium", FULL, "iter1/1_sft/1_medium")
RAW_ROW = Row("SFT-Medium -> Raw-Hard", RAW_HARD, AFTER_SFT)
ALONE_ROW = Row("GRPO alone w/ all-zero exclusion, steps of both iterations", "grpo-alone", "iter1/3_grpo")
PLAIN_ROW = Row("GRPO alone on everything, one epoch", "grpo-plain", "iter1/3_grpo")


def component_rows(config: Config) -> tuple[Row, ...]:
    """Table 10; the SFT on what was recycled is the last one of iteration 2 (ambiguities A28, A29)."""
    return (
        Row("Base", FULL, "base"),
        Row("SFT-Mixed", "sft-mixed", "sft_mixed"),
        MEDIUM_ROW,
        RAW_ROW,
        Row("SFT-Medium -> Bridged-Hard", FULL, AFTER_SFT),
        Row("SFT-Medium -> Bridged-Hard + GRPO", FULL, "iter1/3_grpo"),
        Row("SFT-Medium -> Bridged-Hard + GRPO + Recycling", FULL, sft_stages(config, 2)[-1]),
        Row("Full Model", FULL, AFTER_TWO),
    )


BRIDGE_VARIANTS = {
    "w/o Expand": "without-expand",
    "w/o Localize": "without-localize",
    "w/o Comp./Drop": "without-compress-drop",
    "Raw Hard": RAW_HARD,
    "Full Bridge": FULL,
}


def reading_rows() -> tuple[Row, ...]:
    """Every combination of readings after its initial SFT and after two iterations, beside rows without a Bridge."""
    rows = [Row("Base", FULL, "base"), MEDIUM_ROW, RAW_ROW, ALONE_ROW, PLAIN_ROW]
    chosen = ((), *readings.COMBINATIONS)
    early = [one for one in chosen if readings.LATER not in one]
    rows += [reading_row(one, AFTER_INITIAL_SFT) for one in early]
    rows += [reading_row(one, AFTER_TWO_ITERATIONS) for one in chosen]
    return tuple(rows)


def reading_row(chosen: tuple[str, ...], when: str) -> Row:
    """A combination's row; `when` is AFTER_INITIAL_SFT, for combinations without LATER, or AFTER_TWO_ITERATIONS."""
    name, of_sft = readings.name_of(chosen), when == AFTER_INITIAL_SFT
    before = [one for one in readings.BEFORE if one != readings.LATER or not of_sft]
    label = f"{name or DEFAULT}{BEFORE_0_2 if list(chosen) == before else ''}{when}"
    return Row(label, name or FULL, AFTER_SFT if of_sft else AFTER_TWO)


def of_curriculum(config: Config, curriculum: str) -> tuple[str, ...]:
    """The labels of a curriculum's rows, one for each budget."""
    return tuple(f"{curriculum} {budget}" for budget in config.motivation.budgets)


def motivation_rows(config: Config) -> tuple[Row, ...]:
    """A row for each curriculum and budget."""
    return (
        Row("base", "motivation", "base"),
        *(
            Row(f"{curriculum} {budget}", "motivation", f"{curriculum}/{budget}")
            for curriculum in CURRICULA
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
            tuple((f"{curriculum} {OVER_BUDGETS}", of_curriculum(config, curriculum)) for curriculum in CURRICULA),
        ),
        "components": Experiment("Components", "Table 10, Figure 3", component_rows(config)),
        "bridge-operations": Experiment(
            "Bridge operations",
            "Table 2",
            tuple(
                Row(label + when, variant, checkpoint)
                for label, variant in BRIDGE_VARIANTS.items()
                for when, checkpoint in ((AFTER_INITIAL_SFT, AFTER_SFT), (AFTER_TWO_ITERATIONS, AFTER_TWO))
            ),
        ),
        "all-zero": Experiment(
            "What becomes of all-zero problems",
            "Table 3",
            (
                Row("Initial SFT + GRPO", "grpo-on-everything", "iter1/3_grpo"),
                Row("w/ all-zero exclusion", FULL, "iter1/3_grpo"),
                Row("w/ all-zero exclusion + Recycling", FULL, sft_stages(config, 2)[-1]),
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
                ALONE_ROW,
                PLAIN_ROW,
                Row("Second iteration without recycling, equal steps", "repeated", AFTER_TWO),
                Row("Full Model", FULL, AFTER_TWO),
                Row("SFT-Medium -> local samples alone", "local-only", "iter1/1_sft/2_local"),
                Row("SFT-Medium -> Bridged-Hard", FULL, AFTER_SFT),
            ),
        ),
        "readings": Experiment("Readings of the paper", NOT_IN_PAPER, reading_rows()),
    }
