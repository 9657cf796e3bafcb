"""What a run is expected to take: from the data's sizes and the paper's tables, by hand once more."""

from dataclasses import replace

import pytest

from reference.config import PRESETS
from reference.connect import data_sizes
from reference.stages.plan import DataSizes, describe, expected_work, filter_of, totalled

QWEN = PRESETS["qwen2.5-0.5b"]
SIZES = DataSizes(7473, 59, {"gsm8k_platinum": 1209, "svamp": 300})


def work_of(config=QWEN, sizes=SIZES):
    return {work.stage: work for work in expected_work(config, sizes)}


def test_the_papers_own_numbers_come_back():
    """Table 4's groups, and 64 responses to each of 7473 problems."""
    work = work_of()
    assert work["1_difficulty"].rollouts == 478_272
    assert work["2_traces"].teacher_calls == 2869 + 1988
    assert work["iter1/4_recycle"].teacher_calls == 1988 and "iter2/4_recycle" not in work
    assert work["iter1/3_grpo"].rollouts == (7473 - 1988) * 8
    assert work["eval/base"].rollouts == 1209 + 300 + 1209 * 64


def test_the_bridge_asks_about_each_step_up_to_three_times():
    """Importance of each step, jumpiness of all but the first, one rewriting at most."""
    steps = round(1988 * 7.36)
    bridge = work_of()["3_bridge"]
    assert bridge.teacher_calls == steps + (steps - 1988) + steps
    trace, step = 242.98, 242.98 / 7.36
    importance = steps * (300 + 59 + 2 * trace)
    jumpiness = (steps - 1988) * (300 + 59 + trace / 2 + step)
    rewriting = steps * (120 + 59 + trace / 2 + step)
    assert bridge.tokens_read == pytest.approx(importance + jumpiness + rewriting, rel=1e-6)


def test_the_filter_is_the_one_of_the_same_iteration():
    assert filter_of("iter1/3_grpo") == filter_of("iter1/4_recycle") == "iter1/2_filter"
    assert filter_of("iter12/3_grpo") == "iter12/2_filter"


def test_llama_has_its_own_tables():
    work = work_of(PRESETS["llama3.2-1b"])
    assert work["2_traces"].teacher_calls == 2784 + 1185 and work["iter1/4_recycle"].teacher_calls == 1185


def test_the_last_line_is_the_sum():
    work = expected_work(QWEN, SIZES)
    total = totalled(work)
    assert total.teacher_calls == sum(one.teacher_calls for one in work) > 0
    last = describe(work).split("\n")[-1]
    assert last.split() == [
        "all",
        "together",
        *map(str, (total.rollouts, total.teacher_calls, total.tokens_read, total.tokens_written)),
    ]


def test_the_papers_presets_are_planned_without_a_network():
    sizes = data_sizes(QWEN)
    assert sizes == DataSizes(
        7473, 58, {"gsm8k_platinum": 1209, "mawps": 355, "svamp": 300, "math500": 500, "logiqa": 651}
    )
    limited = replace(QWEN, data=replace(QWEN.data, limit=100, test_limit=50))
    assert data_sizes(limited) == DataSizes(100, 58, dict.fromkeys(sizes.tests, 50))


def test_files_count_as_they_are(tmp_path):
    lines = ['{"question": "%s", "answer": "#### 4"}' % ("What is it? " * 10)] * 3
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    data = replace(QWEN.data, train=str(tmp_path / "mine.jsonl"), tests=("logiqa", f"mine={tmp_path / 'mine.jsonl'}"))
    assert data_sizes(replace(QWEN, data=data)) == DataSizes(3, 30, {"logiqa": 651, "mine": 3})


def test_the_questions_of_gsm8k_are_as_long_as_the_plan_has_them(gsm8k):
    data = replace(QWEN.data, train=str(gsm8k / "train.jsonl"), tests=())
    assert data_sizes(replace(QWEN, data=data)) == DataSizes(7473, data_sizes(QWEN).question_tokens, {})
