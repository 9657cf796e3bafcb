"""docs/readings.md says what the committed results of `readings` say."""

from pathlib import Path

from reference.config import ReadingsConfig
from reference.experiments.effects import Effect
from reference.experiments.page import readings_panel, standalone
from reference.experiments.readings import COMBINATIONS, READINGS
from reference.experiments.results import Line
from reference.experiments.tables import effects_table, read_csv
from reference.experiments.variants import AVERAGE, FORMAT, PASS

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "readings.md").read_text(encoding="utf-8").split())
EFFECTS = read_csv(ROOT / "docs" / "results" / "readings-effects.csv", Effect)
LINES = {(one.label, one.metric): one for one in read_csv(ROOT / "docs" / "results" / "readings.csv", Line)}
SFT, TWO = "after SFT", "after two iterations"


def moved(when, metric, reading):
    (one,) = [one for one in EFFECTS if (one.when, one.metric, one.reading) == (when, metric, reading)]
    return f"{one.difference:+.1f} ({one.low:+.1f} to {one.high:+.1f})"


def accuracy(label):
    return f"{LINES[label, AVERAGE].percent:.1f}"


def passed(name):
    return f"{LINES[f'{name}, {SFT}', PASS].percent:.1f}"


def reached(when):
    found = [
        line.percent for (label, metric), line in LINES.items() if metric == AVERAGE and label.endswith(f", {when}")
    ]
    return f"{min(found):.1f} to {max(found):.1f}", len(found)


def test_the_page_quotes_the_effects():
    for sentence in (
        f"it changes average accuracy by {moved(SFT, AVERAGE, 'own_turn')} and pass@8 by "
        f"{moved(SFT, PASS, 'own_turn')} after the initial SFT",
        f"accuracy changes by {moved(TWO, AVERAGE, 'own_turn')} and the format rate by "
        f"{moved(TWO, FORMAT, 'own_turn')}. That loss",
        f"the change is {moved(TWO, FORMAT, 'processed x own_turn')} where scores are measured after processed steps, "
        f"beyond what each does alone, and {moved(TWO, FORMAT, 'own_turn x tokens')} with a token mean",
        f"After processed steps accuracy changes by {moved(SFT, AVERAGE, 'processed')} and pass@8 by "
        f"{moved(SFT, PASS, 'processed')}",
        f"accuracy by {moved(TWO, AVERAGE, 'processed')} after two iterations. A rewritten step",
        f"Phases change accuracy by {moved(TWO, AVERAGE, 'phases')} and pass@8 by {moved(TWO, PASS, 'phases')}, "
        f"neither of which can be told from zero, and the format rate by {moved(TWO, FORMAT, 'phases')}",
        f"one mean over tokens changes accuracy by {moved(SFT, AVERAGE, 'tokens')} and pass@8 by "
        f"{moved(SFT, PASS, 'tokens')} after the initial SFT, and accuracy by {moved(TWO, AVERAGE, 'tokens')}",
        f"from {passed('default')} to {passed('tokens')}, with `own_turn` from {passed('own_turn')} to "
        f"{passed('own_turn+tokens')}",
    ):
        assert sentence in PAGE, sentence


def test_what_the_page_concludes_from_them():
    """Which readings matter: a difference is told apart from none if its interval has not 0 in it."""
    apart = {(one.when, one.metric, one.reading) for one in EFFECTS if one.low > 0 or one.high < 0}
    for reading in ("own_turn", "processed"):
        assert {(SFT, AVERAGE, reading), (SFT, PASS, reading), (TWO, AVERAGE, reading)} <= apart
    assert (TWO, AVERAGE, "phases") not in apart and (TWO, PASS, "phases") not in apart
    assert {(SFT, AVERAGE, "tokens"), (SFT, PASS, "tokens"), (SFT, PASS, "own_turn x tokens")} <= apart
    together = [one for one in EFFECTS if " x " in one.reading]
    largest = sorted(together, key=lambda one: -abs(one.difference))[:2]
    assert {(one.when, one.metric, one.reading) for one in largest} == {
        (TWO, FORMAT, "processed x own_turn"),
        (TWO, FORMAT, "own_turn x tokens"),
    }
    of_sft = {one.reading: abs(one.difference) for one in EFFECTS if (one.when, one.metric) == (SFT, AVERAGE)}
    assert max((reading for reading in READINGS if reading in of_sft), key=of_sft.get) == "own_turn"


def test_the_page_quotes_the_accuracies():
    (of_sft, count_sft), (of_two, count_two) = reached(SFT), reached(TWO)
    old = "(the default of version 0.1)"
    best = max((key for key in LINES if key[1] == AVERAGE and key[0].endswith(TWO)), key=lambda key: LINES[key].percent)
    assert (count_sft, count_two) == (8, 16) == (2**3, len(COMBINATIONS) + 1)
    for sentence in (
        f"the eight combinations reach {of_sft} of average accuracy, below SFT on medium traces "
        f"({accuracy('SFT-Medium')}) and on raw hard ones after them ({accuracy('SFT-Medium -> Raw-Hard')})",
        f"the sixteen reach {of_two}; GRPO without any SFT reaches {accuracy('GRPO alone on everything, one epoch')}",
        f"and {accuracy('GRPO alone w/ all-zero exclusion, steps of both iterations')} on what the base model solves",
        f"`processed+own_turn+phases`: {accuracy(f'processed+own_turn {old}, {SFT}')} after the initial SFT and "
        f"{accuracy(f'processed+own_turn+phases {old}, {TWO}')} after two iterations, where today's reach "
        f"{accuracy(f'default, {SFT}')} and {accuracy(f'default, {TWO}')}",
        f"The highest of the sixteen is `{best[0].split(',')[0]}` with {LINES[best].percent:.1f}",
    ):
        assert sentence in PAGE, sentence
    assert float(of_sft.split()[2]) < LINES["SFT-Medium", AVERAGE].percent


def test_the_tables_and_the_settings_are_there():
    text = (ROOT / "docs" / "readings.md").read_text(encoding="utf-8")
    assert effects_table(EFFECTS) in text and "](results/readings.svg)" in text
    for setting in vars(ReadingsConfig()):
        assert f"`--readings.{setting.replace('_', '-')}`" in text
    assert all(f"`{reading}`" in text for reading in READINGS)


def test_the_committed_figure_shows_the_committed_effects():
    drawn = (ROOT / "docs" / "results" / "readings.svg").read_text(encoding="utf-8")
    assert drawn == standalone(readings_panel(EFFECTS).svg)
