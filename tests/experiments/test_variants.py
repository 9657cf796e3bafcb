"""What each experiment compares, and that the paper's own tables have the same rows."""

from dataclasses import replace

import pytest

from reference.cli import run_of_seed
from reference.config import PRESETS, TINY, ReadingsConfig, flatten
from reference.engines.distributed import Process
from reference.experiments.claims import claims
from reference.experiments.driver import Request, check_request, own_work, seed_configs, variants_of
from reference.experiments.variants import (
    AFTER_TWO_ITERATIONS,
    BEFORE_0_2,
    BRIDGE_VARIANTS,
    FULL,
    PLAIN_ROW,
    VARIANTS,
    Experiment,
    component_rows,
    experiments,
)
from reference.paper.reported import QWEN, TABLE_2, TABLE_3, TABLE_10
from reference.stages.plan import DataSizes, expected_work, stage_names

EVERYTHING = tuple(experiments(TINY))
SIZES = DataSizes(320, 40, {"test": 100, "ood": 100})


def test_the_rows_are_the_papers():
    assert [row.label for row in component_rows(TINY)] == list(TABLE_10[QWEN])
    assert list(BRIDGE_VARIANTS) == list(TABLE_2[QWEN])
    assert [row.label for row in experiments(TINY)["all-zero"].rows] == list(TABLE_3[QWEN])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_row_is_evaluated_by_its_variant(preset):
    config = PRESETS[preset]
    for experiment in experiments(config).values():
        for row in experiment.rows:
            variant = VARIANTS[row.variant]
            assert f"eval/{row.checkpoint.replace('/', '-')}" in variant.wanted(variant.change(config)), row


def test_every_claim_is_about_rows_that_exist():
    found = experiments(TINY)
    for claim in claims(TINY):
        labels = {row.label for row in found[claim.experiment].rows}
        assert {*claim.better, *claim.worse} <= labels and not {*claim.better} & {*claim.worse}, claim
    assert {claim.experiment for claim in claims(TINY)} == set(found) - {"readings"}  # it bears on no claim
    assert len({(claim.experiment, claim.claim) for claim in claims(TINY)}) == len(claims(TINY))


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_variant_says_is_its_own_is_in_its_plan(name):
    variant = VARIANTS[name]
    config = variant.change(TINY)
    plan = variant.plan(config)
    assert len(set(plan)) == len(plan)
    for own in variant.own:
        assert any(stage == own or stage.startswith(f"{own}/") for stage in plan), own
    assert set(variant.own_stages(config)) <= set(variant.wanted(config)) <= set(plan)


def test_a_variant_changes_what_it_says():
    changes = {
        name: {key for key, value in flatten(variant.change(TINY)).items() if value != flatten(TINY)[key]}
        for name, variant in VARIANTS.items()
    }
    assert changes["without-compress-drop"] == {"bridge.without"} and changes["four-iterations"] == {"iterations"}
    assert changes["grpo-on-everything"] == {"iterations", "grpo.exclude_all_zero"}
    assert changes["motivation"] == {"evaluation.pass_samples"}
    assert changes["grpo-plain"] == {"grpo.exclude_all_zero"}
    assert changes["processed+tokens"] == {"readings.scores_after", "readings.sft_mean"}
    assert changes["own_turn+phases"] == {"readings.local_samples", "readings.later_sft"}
    assert changes[FULL] == changes["sft-mixed"] == changes["repeated"] == changes["grpo-alone"] == set()


def test_the_readings_are_all_combinations_of_four_settings_each_once():
    rows = experiments(TINY)["readings"].rows
    after_two = [VARIANTS[row.variant].change(TINY).readings for row in rows if row.label.endswith("two iterations")]
    assert len(after_two) == len(set(after_two)) == 16 and after_two[0] == ReadingsConfig()
    after_sft = [VARIANTS[row.variant].change(TINY).readings for row in rows if row.label.endswith("after SFT")]
    assert len(after_sft) == len(set(after_sft)) == 8 and {one.later_sft for one in after_sft} == {"union"}
    (old,) = [row for row in rows if row.label.endswith(BEFORE_0_2 + AFTER_TWO_ITERATIONS)]
    assert VARIANTS[old.variant].change(TINY).readings == ReadingsConfig("processed", "own_turn", "phases", "responses")


def test_a_combination_is_run_after_those_whose_stages_it_takes():
    order = variants_of(("readings", "controls"), TINY)
    for name in order:
        assert all(order.index(other) < order.index(name) for other in VARIANTS[name].shares), name
    # grpo-alone's filter serves grpo-plain too, whether it has a row or not.
    assert Experiment("One row", "nowhere", (PLAIN_ROW,)).variants == [FULL, "grpo-alone", "grpo-plain"]


@pytest.mark.parametrize("later_sft", ["union", "phases"])
def test_the_recycling_row_is_the_last_sft_of_iteration_2(later_sft):
    """Ambiguities A28 and A29."""
    config = replace(TINY, readings=ReadingsConfig(later_sft=later_sft))
    last = {"union": "iter2/1_sft/union", "phases": "iter2/1_sft/3_recycled"}[later_sft]
    assert [row.checkpoint for row in component_rows(config) if row.label.endswith("Recycling")] == [last]
    assert [row.checkpoint for row in experiments(config)["all-zero"].rows][-1] == last


def test_only_what_is_asked_for_is_run():
    assert variants_of(("components", "all-zero"), TINY) == [FULL, "sft-mixed", "raw-hard", "grpo-on-everything"]
    everything = variants_of(EVERYTHING, TINY)
    assert set(everything) == set(VARIANTS) and everything[0] == FULL and everything[-1] == "motivation"


def test_the_expected_work_has_every_stage(tmp_path):
    found = own_work(EVERYTHING, TINY, SIZES, run_of_seed(tmp_path, TINY, Process()))
    assert [work.stage for variant, work in found if variant == FULL] == stage_names(TINY)
    for name, variant in VARIANTS.items():
        assert [work.stage for label, work in found if label == name] == variant.own_stages(variant.change(TINY))
    rollouts = {(variant, work.stage): work.rollouts for variant, work in found}
    assert rollouts["grpo-alone", "iter1/3_grpo"] == 2 * rollouts[FULL, "iter1/3_grpo"] > 0


def test_the_motivating_experiment_is_expected_to_cost_what_it_does():
    """Qwen's medium pool has 2869 x 243 tokens: 1000K need traces of resampled questions, hard ones more."""
    config = VARIANTS["motivation"].change(PRESETS["qwen2.5-0.5b"])
    sizes = DataSizes(7473, 58, {"gsm8k_platinum": 1209})
    work = {one.stage: one for one in expected_work(config, sizes, ["2_pools", "eval/mixed-200000"])}
    needed = 1_000_000 / (242.98 + 1)  # with the end of each turn
    assert work["2_pools"].teacher_calls == 7473 + round(sum(max(0, needed - n) for n in (2616, 2869, 1988)))
    assert work["eval/mixed-200000"].rollouts == 1209 * 65


def test_each_seed_may_have_a_base_of_its_own():
    with_bases = seed_configs(Request(("components",), (4, 5), 1, ("one", "two")), TINY)
    assert [(config.seed, config.model.path) for config in with_bases] == [(4, "one"), (5, "two")]
    without = seed_configs(Request(("components",), (4, 5)), TINY)
    assert [(config.seed, config.model.path) for config in without] == [(4, "offline"), (5, "offline")]


@pytest.mark.parametrize(
    ("request_", "config", "says"),
    [
        (Request(("none",), (1,), 1), TINY, "there is no experiment 'none'; there are motivation, components"),
        (Request(("components",), (1, 1), 1), TINY, "--seeds takes different seeds"),
        (Request(("components",), (), 1), TINY, "--seeds takes different seeds, at least one"),
        (
            Request(("components",), (1, 2), 1, ("one",)),
            TINY,
            "--bases takes a checkpoint for each of the 2 --seeds, got 1",
        ),
        (Request(("components",), (1,), 0), TINY, "--jobs must be at least 1, got 0"),
        (Request(("components",), (1,), 1), replace(TINY, iterations=3), "an experiment has 2 iterations"),
        (Request(("components",), (1,), 1), replace(TINY, data=replace(TINY.data, tests=())), "give --data.tests"),
        (
            Request(("readings",), (1,), 1),
            replace(TINY, readings=ReadingsConfig(later_sft="phases")),
            "chooses the readings itself; leave out --readings",
        ),
        (Request(("readings",), (1,), 1), replace(TINY, equations="verl"), "SFT has verl's mean in any reading"),
        (
            Request(("components",), (1,), 1),
            replace(TINY, evaluation=replace(TINY.evaluation, pass_samples=0)),
            "--evaluation.pass-samples",
        ),
    ],
)
def test_what_cannot_be_run_is_one_sentence(request_, config, says):
    with pytest.raises(ValueError, match=says):
        check_request(request_, config)
