"""Main effects and interactions of the readings, from run folders whose effects were planted."""

import pytest

from reference.engines.artifacts import write_records
from reference.experiments.effects import TIMES, describe_effects, effects_of, shown
from reference.experiments.readings import COMBINATIONS, LATER, LOCAL, MEAN, SCORES
from reference.experiments.variants import (
    AFTER_INITIAL_SFT,
    AFTER_TWO_ITERATIONS,
    AVERAGE,
    FORMAT,
    FULL,
    PASS,
    reading_row,
)
from reference.records import Evaluated, Evaluation, Sampled
from tests.experiments.test_results import DONE

PROBLEMS = 100
WHEN = {AFTER_INITIAL_SFT: "after SFT", AFTER_TWO_ITERATIONS: "after two iterations"}


def right_of(chosen, when, seed):
    """Right answers of 100: 40, and what each reading adds; two of them more together than alone."""
    count = 40 + seed - 20 * (LOCAL in chosen) + 6 * (SCORES in chosen) - 8 * (LOCAL in chosen and SCORES in chosen)
    return count + (4 * (LATER in chosen) if when == AFTER_TWO_ITERATIONS else 0)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    out = tmp_path_factory.mktemp("readings")
    for seed in (1, 2):
        for when in WHEN:
            for chosen in ((), *COMBINATIONS):
                if LATER in chosen and when == AFTER_INITIAL_SFT:
                    continue
                row = reading_row(chosen, when)
                folder = (
                    out / f"seed-{seed}" if row.variant == FULL else out / f"seed-{seed}" / "variants" / row.variant
                )
                folder = folder / "eval" / row.checkpoint.replace("/", "-")
                right = right_of(chosen, when, seed)
                ids = [f"test-{at:03}" for at in range(PROBLEMS)]
                readable = 90 - 10 * (MEAN in chosen)
                answers = [Evaluated(one, "", at < right, at < readable) for at, one in enumerate(ids)]
                write_records(folder / "test.jsonl", answers)
                write_records(
                    folder / "test.samples.jsonl", [Sampled(one, 8, int(at < right)) for at, one in enumerate(ids)]
                )
                summary = Evaluation(row.checkpoint, "test", PROBLEMS, right, right / 100, readable / 100)
                write_records(folder / "results.jsonl", [summary])
                (folder / "receipt.json").write_text(DONE)
    return [out / "seed-1", out / "seed-2"]


def test_planted_effects_come_back(seeds):
    found = {(one.when, one.metric, one.reading): one.difference for one in effects_of(seeds)}
    for when in WHEN.values():
        for metric in (AVERAGE, PASS):
            assert found[when, metric, SCORES] == 6 - 8 / 2  # half of the combinations have the other one too
            assert found[when, metric, LOCAL] == -20 - 8 / 2
            assert found[when, metric, SCORES + TIMES + LOCAL] == -8
            assert found[when, metric, MEAN] == found[when, metric, LOCAL + TIMES + MEAN] == 0
        assert found[when, FORMAT, MEAN] == -10 and found[when, FORMAT, LOCAL] == 0
    assert found["after two iterations", AVERAGE, LATER] == 4
    assert ("after SFT", AVERAGE, LATER) not in found
    assert len(found) == 3 * (3 + 3) + 3 * (4 + 6)


def test_an_effect_is_paired_over_problems_and_seeds(seeds):
    """The seeds differ by a point and the problems between right and wrong: of a difference neither is left."""
    effects = effects_of(seeds)
    (mean,) = [one for one in effects if (one.when, one.metric, one.reading) == ("after two iterations", AVERAGE, MEAN)]
    assert (mean.low, mean.high, mean.num_problems, mean.seeds) == (0, 0, PROBLEMS, "1 2")
    (local,) = [one for one in effects if (one.when, one.metric, one.reading) == ("after SFT", AVERAGE, LOCAL)]
    assert local.low < local.difference < local.high < 0


def test_the_figure_has_each_reading_and_the_largest_interaction(seeds):
    effects = effects_of(seeds)
    assert shown(effects, "after SFT") == [SCORES, LOCAL, MEAN, SCORES + TIMES + LOCAL]
    assert shown(effects, "after two iterations") == [SCORES, LOCAL, LATER, MEAN, SCORES + TIMES + LOCAL]
    text = describe_effects(effects)
    assert text.count("after SFT") == 3 * 4 and text.count("after two iterations") == 3 * 5
    assert " -24.0 " in text
