"""The paper's tables: typed correctly, and consistent with themselves except where A1 to A4 say otherwise."""

import math
from fractions import Fraction

import pytest

from reference.paper import reported
from reference.paper.reported import BENCHMARKS, LLAMA, QWEN, Row
from reference.records import Action

PLATINUM, MAWPS, SVAMP = 0, 1, 2

# A1: which of the three MAWPS test sets a row was measured on
OWN_ROWS = {name for name in reported.TABLE_10[QWEN] if name != "Base"} | {"Our Model"}
OWN_MAWPS, BASELINE_MAWPS, LATE_MAWPS = 355, 520, 351

# (table, model, row, column) of every accuracy that is no k/n to two decimals
A2 = {
    (10, QWEN, "SFT-Medium -> Bridged-Hard + GRPO + Recycling", PLATINUM),
    (11, QWEN, 1, PLATINUM),
}
A3 = {
    (1, LLAMA, "PRewrite", MAWPS),
    (10, LLAMA, "SFT-Mixed", PLATINUM),
    (10, LLAMA, "SFT-Medium", PLATINUM),
}
A4 = {(10, LLAMA, "SFT-Medium -> Raw-Hard", SVAMP)}


def all_rows():
    """(table, model, name, row) of the 37 rows of Tables 1, 10 and 11."""
    rows = []
    for number, table in ((1, reported.TABLE_1), (10, reported.TABLE_10), (11, {QWEN: reported.TABLE_11})):
        for model, named in table.items():
            rows.extend((number, model, name, row) for name, row in named.items())
    return rows


def num_problems(table, name, column):
    """How many test problems a cell was measured on: Table 7, but for MAWPS what A1 found."""
    if column != MAWPS:
        return reported.TABLE_7[BENCHMARKS[column]].test
    if table == 11:
        return {0: BASELINE_MAWPS, 1: OWN_MAWPS, 2: OWN_MAWPS, 3: LATE_MAWPS, 4: LATE_MAWPS}[name]
    return OWN_MAWPS if name in OWN_ROWS else BASELINE_MAWPS


def hundredths(percent):
    """The printed figure as a whole number of hundredths of a percent, without a float's remainder."""
    return round(percent * 100)


def is_share(percent, n):
    """Some k/n gives the printed figure when it is rounded to two decimals."""
    k = round(percent * n / 100)
    return any(abs(Fraction(10_000 * near, n) - hundredths(percent)) <= Fraction(1, 2) for near in (k - 1, k, k + 1))


def test_the_37_averages_recompute():
    rows = all_rows()
    assert len(rows) == 37
    for table, model, name, row in rows:
        assert len(row) == len(BENCHMARKS) + 1
        mean = Fraction(sum(hundredths(accuracy) for accuracy in row[:5]), 5)
        assert abs(mean - hundredths(row.average)) < Fraction(1, 2), (table, model, name)


def test_every_accuracy_is_a_share_of_its_test_set_but_for_the_slips():
    misfits = set()
    for table, model, name, row in all_rows():
        for column in range(5):
            if not is_share(row[column], num_problems(table, name, column)):
                misfits.add((table, model, name, column))
    assert misfits == A2 | A3 | A4


def test_d1_no_single_mawps_test_set_fits_the_column():
    for size in (OWN_MAWPS, BASELINE_MAWPS, LATE_MAWPS, 238):
        assert not all(is_share(row.mawps, size) for _, _, _, row in all_rows())


def test_d2_fits_the_size_that_table_7_gives_for_gsm8k():
    for table, model, name, column in A2:
        row = {10: reported.TABLE_10[model], 11: reported.TABLE_11}[table][name]
        assert is_share(row[column], 1320) and reported.TABLE_7["GSM8K"].test == 1320  # D5


@pytest.mark.parametrize(
    "cell, correct, n",
    [
        (reported.TABLE_1[LLAMA]["PRewrite"].mawps, 215, 520),
        (reported.TABLE_10[LLAMA]["SFT-Mixed"].gsm8k_platinum, 555, 1209),
        (reported.TABLE_10[LLAMA]["SFT-Medium"].gsm8k_platinum, 559, 1209),
    ],
)
def test_d3_is_cut_off_instead_of_rounded(cell, correct, n):
    assert hundredths(cell) == math.floor(10_000 * correct / n) == round(10_000 * correct / n) - 1


def test_table_2_and_table_3_agree_with_table_10():
    for model in (QWEN, LLAMA):
        rows = reported.TABLE_10[model]
        assert reported.TABLE_2[model]["Full Bridge"].average == rows["Full Model"].average
        without_rl = rows["SFT-Medium -> Bridged-Hard"].average
        unfiltered, filtered, recycled = reported.TABLE_3[model].values()
        assert filtered == rows["SFT-Medium -> Bridged-Hard + GRPO"].average
        assert recycled == rows["SFT-Medium -> Bridged-Hard + GRPO + Recycling"].average
        assert unfiltered < without_rl < filtered  # D8


def test_d9_removing_compress_and_drop_hurts_least_on_qwen_and_most_on_llama():
    removals = ("w/o Expand", "w/o Localize", "w/o Comp./Drop")
    averages = {model: [reported.TABLE_2[model][name].average for name in removals] for model in (QWEN, LLAMA)}
    assert max(averages[QWEN]) == averages[QWEN][2]
    assert min(averages[LLAMA]) == averages[LLAMA][2]


def test_rows_that_stand_in_two_tables_are_equal():
    for model in (QWEN, LLAMA):
        assert reported.TABLE_1[model]["Base"] == reported.TABLE_10[model]["Base"]
        assert reported.TABLE_1[model]["Our Model"] == reported.TABLE_10[model]["Full Model"]
    assert reported.TABLE_11[0] == reported.TABLE_10[QWEN]["Base"]
    assert reported.TABLE_11[1] == reported.TABLE_10[QWEN]["SFT-Medium -> Bridged-Hard + GRPO + Recycling"]
    assert reported.TABLE_11[2] == reported.TABLE_10[QWEN]["Full Model"]


def test_table_4_partitions_the_training_set():
    for groups in reported.TABLE_4.values():
        assert sum(groups.values()) == reported.TABLE_7["GSM8K"].train == 7473


def test_table_7_has_each_benchmark():
    assert [name for name, size in reported.TABLE_7.items() if size.train is None] == list(BENCHMARKS)


def test_the_quantiles_of_tables_8_and_9_are_in_order():
    for table in (reported.TABLE_8, reported.TABLE_9_STEPS, reported.TABLE_9_TOKENS):
        for row in table.values():
            assert list(row[1:]) == sorted(row[1:])
            assert row.minimum < row.mean < row.maximum


def test_table_12_follows_algorithm_1():
    assert reported.TABLE_12[0].scores.jumpiness == 0  # Eq. 7
    limits = reported.CARLA_THRESHOLDS
    assert (limits.importance, limits.jumpiness, limits.difficulty) == (0.5, 0.5, reported.TABLE_8[LLAMA].mean)
    for unit in reported.TABLE_12:
        assert {unit.scores.importance, unit.scores.jumpiness} <= {0, 0.25, 0.5, 0.75, 1}
        important = unit.scores.importance > limits.importance
        jumpy = unit.scores.jumpiness > limits.jumpiness
        difficult = unit.scores.difficulty > limits.difficulty
        expected = {
            (True, False, True): Action.LOCALIZE,
            (True, False, False): Action.KEEP,
            (False, False, False): Action.COMPRESS,
        }
        assert unit.action is expected[important, jumpy, difficult]


def test_table_12_has_a_preamble_four_numbered_steps_and_the_answer_last():
    first_lines = [unit.text.split("\n")[0] for unit in reported.TABLE_12]
    assert not first_lines[0].startswith("#")
    for number, line in enumerate(first_lines[1:], start=1):
        assert line.startswith(f"### Step {number}: ")
    assert reported.TABLE_12[-1].text.split("\n")[-1] == f"#### {reported.CARLA.gold}" == reported.CARLA_COMPRESSED
    assert sum("####" in unit.text for unit in reported.TABLE_12) == 1


def test_figures_11_and_12_have_the_localized_units_of_table_12_word_for_word(paper_text):
    """So the example that we show needs no other text behind Localize than before it."""
    trace, samples = (
        next(line for line in paper_text.splitlines() if line.startswith(title))
        for title in ("Bridge Transformation Example", "Localized SFT Samples")
    )
    before = 0
    for number, (_, scores, action) in enumerate(reported.TABLE_12[:4], start=1):
        line = next(line for line in paper_text.splitlines() if line.startswith(f"Unit {number}. "))
        unit = line.removeprefix(f"Unit {number}. ").split(f" {scores.importance:.2f} {scores.jumpiness:.2f} ")[0]
        before = trace.index(unit, before)
        assert (f"Target: {unit}" in samples) == (action is Action.LOCALIZE)
    assert trace.endswith(f" {reported.CARLA_COMPRESSED}") and samples.count("Target: ") == 3


def test_table_12_states_the_equations_and_they_hold():
    equations = (
        ("s = 3w - 6", "w + s = 54"),
        ("w + (3w - 6) = 54",),
        ("w + 3w - 6 = 54", "4w - 6 = 54"),
        ("4w = 60", "w = 15"),
        ("3(15) - 6 = 45 - 6 = 39", "15 + 39 = 54"),
    )
    for unit, lines in zip(reported.TABLE_12, equations, strict=True):
        assert all(line in unit.text for line in lines)
    water = int(reported.CARLA.gold)
    assert water + (3 * water - 6) == 4 * water - 6 == 54


def test_the_stage_rows_are_table_10_in_the_order_of_a_run():
    rows = reported.stage_rows(QWEN)
    assert {name: row.average for name, row in rows.items()} == {
        "base": 39.38,
        "sft_medium": 41.39,
        "sft_bridged": 42.94,
        "grpo": 44.15,
        "sft_recycled": 45.27,
        "full": 49.69,
    }
    assert list(rows) == ["base", "sft_medium", "sft_bridged", "grpo", "sft_recycled", "full"]
    assert [row.average for row in reported.stage_rows(LLAMA).values()] == [16.22, 36.89, 39.65, 41.65, 43.03, 48.53]


def test_a_model_that_the_paper_has_not_is_refused():
    with pytest.raises(ValueError, match="nothing for 'tiny'; it has qwen2.5-0.5b and llama3.2-1b"):
        reported.stage_rows("tiny")


def printed_rows():
    """How each line of Tables 1-4 and 7-12 begins and ends in the text dump of the paper."""
    for table, _, name, row in all_rows():
        label = f"Our Model (iter={name})" if table == 11 and name > 0 else str(name or "Base")
        yield label.replace("->", r"\rightarrow"), printed(row)
    for rows in reported.TABLE_2.values():
        yield from (("", f"{name} {printed(row)}") for name, row in rows.items())
    for name, qwen in reported.TABLE_3[QWEN].items():
        yield name, printed((qwen, reported.TABLE_3[LLAMA][name]))
    for group, qwen in reported.TABLE_4[QWEN].items():
        yield group.capitalize(), f"{qwen} {reported.TABLE_4[LLAMA][group]}"
    for name, size in reported.TABLE_7.items():
        yield name, f"{size.train or '–'} / {size.test}"
    for label, model in (("Qwen2.5-0.5B", QWEN), ("Llama3.2-1B", LLAMA)):
        yield label, printed(reported.TABLE_8[model])
        yield label, step_counts(model)
    for number, (_, scores, action) in enumerate(reported.TABLE_12, start=1):
        figures = f"{scores.importance:.2f} {scores.jumpiness:.2f} {scores.difficulty:.4f}"
        yield f"Unit {number}.", f"{figures} {action.capitalize()}"


def step_counts(model):
    mean, *quantiles = reported.TABLE_9_STEPS[model]
    return f"Step count {mean:.2f} {' '.join(map(str, quantiles))}"


def token_counts(model):
    mean, *quantiles = reported.TABLE_9_TOKENS[model]
    return f"Token count {mean:.2f} {' '.join(map(str, quantiles))}"


def printed(figures):
    return " ".join(f"{figure:.2f}" for figure in figures)


def test_every_row_stands_in_the_papers_text(paper_text):
    lines = paper_text.splitlines()
    for start, end in printed_rows():
        assert any(line.startswith(start) and line.endswith(end) for line in lines), (start, end)
    for model in (QWEN, LLAMA):
        assert f"{step_counts(model)}\n{token_counts(model)}\n" in paper_text
    assert reported.CARLA.question in paper_text


@pytest.mark.parametrize(
    "table, head, caption",
    [(reported.TABLE_5, "Category SFT Setting", "Table 5:"), (reported.TABLE_6, "Category GRPO Setting", "Table 6:")],
)
def test_every_setting_stands_in_the_papers_text(paper_text, table, head, caption):
    """Left out: what the dump garbles (powers of ten, the betas, "Top-pp"); the next test has these."""
    printed_settings = paper_text.split(head)[1].split(caption)[0].strip().splitlines()
    assert len(table) == len(printed_settings)
    for (name, setting), line in zip(table.items(), printed_settings, strict=True):
        if name in ("Learning rate", "Actor learning rate", "Adam betas", "Top-p"):
            continue
        if isinstance(setting, bool):
            assert line.removesuffix(" during training") == f"{name} {'Enabled' if setting else 'Disabled'}"
        else:
            assert line in (f"{name} {setting}", f"{name} {setting} steps")


def test_the_settings_that_the_papers_text_garbles():
    sft, grpo = reported.TABLE_5, reported.TABLE_6
    assert (sft["Learning rate"], grpo["Actor learning rate"]) == (2e-5, 1e-6)
    assert (sft["Adam betas"], grpo["Top-p"]) == ((0.9, 0.95), 0.9)


def test_a_row_names_its_columns_in_the_order_of_the_benchmarks():
    names = [name.lower().replace("-", "_") for name in BENCHMARKS]
    assert list(Row._fields) == [*names, "average"]
