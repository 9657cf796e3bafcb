"""Tables and verdicts from run folders whose numbers are known."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from reference.engines.artifacts import write_records
from reference.experiments.results import (
    Claim,
    describe_results,
    find_stage,
    folder_of,
    judged,
    lines_of,
    outcomes,
    to_csv,
)
from reference.experiments.statistics import estimate
from reference.experiments.variants import ALL_ZERO, AVERAGE, FORMAT, FULL, PASS, Experiment, Row
from reference.paper.pass_at_k import pass_at_k
from reference.records import Completion, Evaluated, Evaluation, RolloutGroup, Sampled

DONE = '{"done": true, "settings": {}, "inputs": {}, "outputs": {}, "counts": {}}'
RIGHT = {"test": 30, "ood": 20}  # problems of each benchmark
ROWS = (Row("Base", FULL, "base"), Row("One", FULL, "iter1/3_grpo"), Row("Other", "other", "iter1/3_grpo"))
EXPERIMENT = Experiment("Title", "Table 0", ROWS, (AVERAGE, PASS, ALL_ZERO))


def correct_of(seed, variant, checkpoint, benchmark):
    draw = np.random.default_rng([seed, len(variant), len(checkpoint), len(benchmark)])
    return draw.random(RIGHT[benchmark]) < 0.3 + 0.3 * (variant == "other") + 0.1 * len(checkpoint) / 12


def readable(i, benchmark):
    return i % len(benchmark) != 1


def evaluated(folder, seed, variant, checkpoint):
    results = []
    for name in RIGHT:
        correct = correct_of(seed, variant, checkpoint, name).tolist()
        write_records(
            folder / f"{name}.jsonl",
            [Evaluated(f"{name}-{i:03}", "", c, c or readable(i, name)) for i, c in enumerate(correct)],
        )
        right = sum(correct)
        results.append(Evaluation(checkpoint, name, len(correct), right, right / len(correct), 1.0))
    counts = correct_of(seed, variant, checkpoint, "test") * 3
    write_records(folder / "test.samples.jsonl", [Sampled(f"test-{i:03}", 16, int(c)) for i, c in enumerate(counts)])
    write_records(folder / "results.jsonl", results)
    (folder / "receipt.json").write_text(DONE)


def filtered(folder, seed):
    one = Completion((3,), "", True)
    groups = [RolloutGroup(f"p{i:03}", (one, one), (float(i % (seed + 2) == 0), 0.0)) for i in range(12)]
    write_records(folder / "rollouts.jsonl", groups)
    (folder / "receipt.json").write_text(DONE)


@pytest.fixture
def folders(tmp_path):
    found = [tmp_path / f"seed-{seed}" for seed in (1, 2, 3)]
    for seed, folder in enumerate(found, start=1):
        evaluated(folder / "eval" / "base", seed, FULL, "base")
        evaluated(folder / "eval" / "iter1-3_grpo", seed, FULL, "iter1/3_grpo")
        evaluated(folder / "variants" / "other" / "eval" / "iter1-3_grpo", seed, "other", "iter1/3_grpo")
        elsewhere = {stage: f"../../{stage}" for stage in ("eval/base", "iter1/2_filter")}
        (folder / "variants" / "other" / "elsewhere.json").write_text(json.dumps(elsewhere))
        filtered(folder / "iter1" / "2_filter", seed)
    return found


def test_every_row_has_every_metric_in_percent(folders):
    lines = lines_of("name", EXPERIMENT, folders)
    assert [(line.label, line.metric) for line in lines] == [
        *(("Base", metric) for metric in (AVERAGE, FORMAT, PASS, "test", "ood", "format test", "format ood")),
        *(
            (label, metric)
            for label in ("One", "Other")
            for metric in (AVERAGE, FORMAT, PASS, "test", "ood", "format test", "format ood", ALL_ZERO)
        ),
    ]
    for row, label in ((ROWS[1], "One"), (ROWS[2], "Other")):
        by_seed = []
        for seed in (1, 2, 3):
            of_both = [correct_of(seed, row.variant, row.checkpoint, name).mean() for name in RIGHT]
            by_seed.append(sum(of_both) / 2)
        (line,) = [line for line in lines if (line.label, line.metric) == (label, AVERAGE)]
        assert line.percent == round(100 * sum(by_seed) / 3, 2) and line.num_problems == 50 and line.seeds == "1 2 3"
        assert line.by_seed == " ".join(f"{100 * value:.2f}" for value in by_seed)
        assert line.low < line.percent < line.high


def test_the_format_rate_is_of_all_benchmarks_or_of_one(folders):
    expected = {
        name: [
            [c or readable(i, name) for i, c in enumerate(correct_of(seed, "other", "iter1/3_grpo", name))]
            for seed in (1, 2, 3)
        ]
        for name in RIGHT
    }
    assert [of.tolist() for of in outcomes(folders, ROWS[2], FORMAT)] == [expected["test"], expected["ood"]]
    (of_ood,) = outcomes(folders, ROWS[2], "format ood")
    assert of_ood.tolist() == expected["ood"] and 0 < of_ood.mean() < 1


def test_pass_at_8_is_that_of_eq_chen(folders):
    (found,) = outcomes(folders, ROWS[2], PASS)
    expected = [
        [pass_at_k(16, 3 * c, 8) for c in correct_of(seed, "other", "iter1/3_grpo", "test")] for seed in (1, 2, 3)
    ]
    assert found.tolist() == expected


def test_all_zero_problems_are_those_of_the_filter_before(folders):
    """A variant that shares the filter has the full run's."""
    (found,) = outcomes(folders, ROWS[2], ALL_ZERO)
    assert found.sum(axis=1).tolist() == [8, 9, 9]


def test_a_stage_from_elsewhere_is_found_by_what_was_written_down(folders):
    """Not guessed: a stage that was deleted, or is not done yet, must not be taken for the full run's."""
    seed, stage = folders[0], "eval/iter1-3_grpo"
    shutil.rmtree(seed / "variants" / "other" / "eval")
    assert find_stage(seed, "other", stage) is None and find_stage(seed, FULL, stage) is not None
    (seed / "variants" / "other" / "elsewhere.json").write_text(json.dumps({stage: f"../../{stage}"}))
    assert find_stage(seed, "other", stage) == (seed / stage).resolve()


def test_a_variant_has_its_own_stage_before_the_shared_one(folders):
    seed = folders[0]
    assert folder_of(seed, "other", "eval/iter1-3_grpo") == seed / "variants" / "other" / "eval" / "iter1-3_grpo"
    assert folder_of(seed, "other", "eval/base") == seed / "eval" / "base"
    assert folder_of(seed, FULL, "eval/iter1-3_grpo") == seed / "eval" / "iter1-3_grpo"
    begun = seed / "variants" / "other" / "eval" / "begun"
    begun.mkdir()
    (begun / "receipt.json").write_text('{"done": false, "settings": {}, "inputs": {}}')
    for name in ("nothing", "begun"):
        with pytest.raises(ValueError, match=f"other/eval/{name} is not done yet; run the experiment to its end"):
            folder_of(seed, "other", f"eval/{name}")


def test_a_claim_is_judged_on_the_same_problems_and_seeds(folders):
    claim = Claim("name", "Table 0", "Other is above One", AVERAGE, ("Other",), ("One",))
    line = judged(claim, EXPERIMENT, folders)
    above, below = (outcomes(folders, row, AVERAGE) for row in (ROWS[2], ROWS[1]))
    expected = estimate([a - b for a, b in zip(above, below, strict=True)])
    assert (line.difference, line.low, line.high) == tuple(
        round(100 * value, 2) for value in (expected.mean, expected.low, expected.high)
    )
    assert line.verdict == "seen"
    reverse = judged(Claim("name", "", "", AVERAGE, ("One",), ("Other",)), EXPERIMENT, folders)
    assert (reverse.difference, reverse.verdict) == (-line.difference, "not seen")


def test_several_labels_stand_for_their_mean(folders):
    both = judged(Claim("name", "", "", AVERAGE, ("One", "Other"), ("Base",)), EXPERIMENT, folders)
    single = [
        judged(Claim("name", "", "", AVERAGE, (one,), ("Base",)), EXPERIMENT, folders) for one in ("One", "Other")
    ]
    assert both.difference == pytest.approx(sum(line.difference for line in single) / 2, abs=0.01)


def test_the_csv_and_the_terminal_say_the_same(folders):
    lines = lines_of("name", EXPERIMENT, folders)
    rows = list(csv.DictReader(io.StringIO(to_csv(lines))))
    assert [float(row["percent"]) for row in rows] == [line.percent for line in lines]
    verdicts = [
        judged(Claim("name", "Table 0", "Other is above One", AVERAGE, ("Other",), ("One",)), EXPERIMENT, folders)
    ]
    said = describe_results(lines, verdicts)
    assert "Other is above One (Table 0, average accuracy)" in said and "seen" in said
