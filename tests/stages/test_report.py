"""The table at the end."""

from dataclasses import replace

import pytest

from reference.config import TINY, ReadingsConfig
from reference.engines.artifacts import write_records
from reference.paper.reported import LLAMA, QWEN, TABLE_10
from reference.records import Evaluation
from reference.stages.plan import stage_names
from reference.stages.report import (
    PAPER_ROW,
    final_table,
    main,
    seeds_table,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("num_correct", "num_problems", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Brown, Cai and DasGupta's symmetric cases
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0000),
    ],
)
def test_wilson_intervals_are_the_published_ones(num_correct, num_problems, low, high):
    found = wilson_interval(num_correct, num_problems)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("n", [1, 7, 150])
def test_wilson_intervals_stay_in_0_to_1_and_hold_the_share(n):
    for correct in range(n + 1):
        low, high = wilson_interval(correct, n)
        assert -1e-12 <= low <= correct / n + 1e-12 and correct / n - 1e-12 <= high <= 1 + 1e-12
        mirrored = wilson_interval(n - correct, n)
        assert (1 - mirrored[1], 1 - mirrored[0]) == (pytest.approx(low), pytest.approx(high))


RESULTS = [
    Evaluation("base", "test", 150, 60, 0.4, 0.9, 0.75),
    Evaluation("base", "ood_style", 50, 10, 0.2, 0.5),
    Evaluation("iter2/1_sft/1_medium", "test", 150, 75, 0.5, 1.0),
    Evaluation("iter2/3_grpo", "test", 150, 90, 0.6, 1.0, 0.0),
]


def row_of(stage):
    return next(line for line in final_table(RESULTS).splitlines() if line.startswith(stage))


def test_a_row_shows_accuracy_interval_average_pass_format_and_n():
    low, high = wilson_interval(60, 150)
    assert row_of("base").split("    ")[0].split() == ["base"]
    shown = " ".join(row_of("base").split())
    assert shown.startswith(f"base 40.0 [{100 * low:.1f}, {100 * high:.1f}] 30.0 75.0 80.0 150 ")  # (135 + 25) / 200


def test_the_papers_numbers_stand_beside_the_same_stage():
    qwen, llama = TABLE_10[QWEN]["Full Model"], TABLE_10[LLAMA]["Full Model"]
    assert f"{qwen.gsm8k_platinum:.2f} | {qwen.average:.2f}" in row_of("iter2/3_grpo")
    assert row_of("iter2/3_grpo").endswith(f"{llama.gsm8k_platinum:.2f} | {llama.average:.2f}")
    assert "|" not in row_of("iter2/1_sft/1_medium")  # the paper has no such row


def test_pass_at_8_of_zero_is_a_number_and_none_is_empty():
    assert " 0.0 " in row_of("iter2/3_grpo")
    assert len(" ".join(row_of("iter2/1_sft/1_medium").split()).split()) == len("s a [l, h] v f n".split())


def test_rows_keep_the_order_of_the_run_and_the_legend_names_other_models():
    lines = final_table(RESULTS).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["base", "iter2/1_sft/1_medium", "iter2/3_grpo"]
    assert "other models on other data" in lines[-1] and "Wilson" in final_table(RESULTS)


def test_several_runs_give_means_and_sample_deviations():
    other = [replace(result, accuracy=result.accuracy + 0.2) for result in RESULTS]
    lines = seeds_table([RESULTS, other]).splitlines()
    assert lines[2] == "| base | 50.0 (14.1) | 40.0 (14.1) | 75.0 (0.0) | 70.0 (0.0) | 150 |"
    assert lines[3] == "| iter2/1_sft/1_medium | 60.0 (14.1) | 60.0 (14.1) |  | 100.0 (0.0) | 150 |"
    assert seeds_table([RESULTS]).splitlines()[2] == "| base | 40.0 | 30.0 | 75.0 | 70.0 | 150 |"


def test_runs_that_cannot_be_averaged_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="same stages"):
        seeds_table([RESULTS, RESULTS[:-1]])
    for arguments, says in [(["nowhere"], "nowhere"), ([str(tmp_path / "a"), str(tmp_path / "b")], "same stages")]:
        write_records(tmp_path / "a" / "eval" / "results.jsonl", RESULTS)
        write_records(tmp_path / "b" / "eval" / "results.jsonl", RESULTS[:2])
        monkeypatch.setattr("sys.argv", ["report", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 2 and says in capsys.readouterr().err


def test_every_row_of_the_paper_belongs_to_a_stage_that_is_evaluated():
    phases = replace(TINY, readings=ReadingsConfig(later_sft="phases"))
    names = [*stage_names(TINY), *stage_names(phases)]
    for stage in PAPER_ROW:
        assert f"eval/{stage.replace('/', '-')}" in names


def test_each_benchmark_has_its_accuracy_format_rate_and_size():
    lines = final_table(RESULTS).splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("accuracy | format"))
    assert lines[at].split() == ["accuracy", "|", "format", "test", "(n", "150)", "ood_style", "(n", "50)"]
    assert lines[at + 1].split() == ["base", "40.0", "|", "90.0", "20.0", "|", "50.0"]
    assert lines[at + 3].split() == ["iter2/3_grpo", "60.0", "|", "100.0"]  # not evaluated on the second
