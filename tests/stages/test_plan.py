"""What a run is expected to take: from the data's sizes and the paper's tables, by hand once more."""

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest

from reference.cli import dry_run_experiments, run_of_seed
from reference.config import PRESETS, TINY, method_settings
from reference.connect import connect, data_sizes
from reference.engines.artifacts import read_json
from reference.engines.distributed import Process
from reference.engines.run_folder import NothingMoreToDo, RunFolder
from reference.experiments.driver import Request, own_work
from reference.paper.prompts import Prompts
from reference.records import DifficultyGroup, Trace
from reference.stages.measured import measured_in
from reference.stages.plan import (
    NOTHING,
    DataSizes,
    Measured,
    describe,
    expected_work,
    filter_of,
    sources,
    stage_names,
    totalled,
)
from run_paper import run_paper

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


SMALL = replace(
    TINY,
    data=replace(TINY.data, limit=12, test_limit=1),
    difficulty=replace(TINY.difficulty, num_samples=8, max_new_tokens=96),
    grpo=replace(TINY.grpo, batch_size=4, mini_batch_size=2, num_rollouts=4, max_new_tokens=96),
    evaluation=replace(TINY.evaluation, pass_samples=8, max_new_tokens=16),
)
VERBS = ("solve", "importance", "jumpiness", "expand", "compress", "localize", "diagnose")


def counted(world):
    """Counts what is really sampled and asked from now on."""
    spent, sampler, teacher = Counter(), world.student.sampler, world.teacher

    def counting(name, function, size):
        def call(*arguments):
            spent[name] += size(*arguments)
            return function(*arguments)

        return call

    sampler.sample = counting("rollouts", sampler.sample, lambda prompts, seeds, sampling: sum(map(len, seeds)))
    for verb in VERBS:
        setattr(teacher, verb, counting(verb, getattr(teacher, verb), lambda *_: 1))
    return spent


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A real run, a stage at a time: its folder, and for each stage what the plan said just before and what it took."""
    path = tmp_path_factory.mktemp("walk") / "run"
    world = connect(SMALL, Process(), path / "teacher")
    sizes, spent, stages = data_sizes(SMALL), counted(world), {}
    for name in stage_names(SMALL):
        run = RunFolder(path, method_settings(SMALL), stage_names(SMALL), wanted=[name])
        run.take_up(world.problems, [test for tests in world.benchmarks.values() for test in tests], Prompts())
        (said,) = expected_work(SMALL, sizes, [name], measured_in(run, SMALL))
        spent.clear()
        with suppress(NothingMoreToDo):
            run_paper(run, SMALL, world)
        stages[name] = said, dict(spent)
    return path, stages


def test_each_stage_takes_what_the_plan_says_before_it(walked):
    """Rollouts and calls are exact once the stages before are done, but for the rewriting of steps: see below."""
    _, stages = walked
    for name, (said, took) in stages.items():
        calls = sum(took.get(verb, 0) for verb in VERBS)
        assert said.rollouts == took.get("rollouts", 0), name
        assert said.teacher_calls == calls or name == "3_bridge", name
    assert sum(said.rollouts for said, _ in stages.values()) > 0
    assert stages["2_traces"][1]["solve"] > 0 and stages["iter1/4_recycle"][1]["diagnose"] > 0


def test_the_bridge_takes_what_the_plan_says_but_for_the_steps_that_nobody_rewrites(walked):
    """Which steps are kept or dropped, only their scores can tell; all else was known."""
    path, stages = walked
    said, took = stages["3_bridge"]
    counts = read_json(path / "3_bridge" / "receipt.json")["counts"]
    assert counts["hard traces"] > 0 and counts["rejected"] == 0 and counts["keep"] + counts["drop"] > 0
    assert said.teacher_calls == sum(took.values()) + counts["keep"] + counts["drop"]


def test_the_papers_shares_would_have_said_something_else(walked):
    _, stages = walked
    of_paper = {work.stage: work for work in expected_work(SMALL, data_sizes(SMALL))}
    for name in ("2_traces", "3_bridge", "iter1/3_grpo", "iter1/4_recycle"):
        assert of_paper[name] != stages[name][0], name


def test_problems_that_were_left_out_and_traces_that_were_rejected_are_not_counted():
    """Eleven of twelve problems were graded; of four traces of hard problems two were usable, of three steps each."""
    groups = {DifficultyGroup.SIMPLE: 2, DifficultyGroup.MEDIUM: 5, DifficultyGroup.HARD: 4}
    measured = Measured(groups, [Trace(name, "", 30, 3) for name in ("p", "q")])
    work = {one.stage: one for one in expected_work(QWEN, DataSizes(12, 59, {}), measured=measured)}
    assert work["iter1/2_filter"].rollouts == 11 * 8 and work["2_traces"].teacher_calls == 5 + 4
    assert work["3_bridge"].teacher_calls == 6 + (6 - 2) + 6


def test_a_stage_that_is_about_to_be_done_again_is_not_counted_from(walked):
    path, _ = walked

    def measured(redo):
        return measured_in(RunFolder(path, method_settings(SMALL), stage_names(SMALL), redo=redo), SMALL)

    assert measured("1_difficulty") == NOTHING
    assert measured("2_traces").groups and not measured("2_traces").hard_traces
    assert list(measured("iter2/2_filter").failed) == [1] and list(measured("eval").failed) == [1, 2]


def test_a_variant_counts_from_the_run_that_it_belongs_to(walked, tmp_path):
    """A Bridge variant has its own filter stages and the run's difficulty groups and traces."""
    path, stages = walked
    (tmp_path / f"seed-{SMALL.seed}").symlink_to(path)
    run = run_of_seed(tmp_path, SMALL, Process())
    work = {
        one.stage: one
        for variant, one in own_work(["components"], SMALL, data_sizes(SMALL), run)
        if variant == "raw-hard"
    }
    counts = read_json(path / "3_bridge" / "receipt.json")["counts"]
    steps = sum(counts[action] for action in ("keep", "expand", "compress", "drop", "localize"))
    assert work["3_bridge"].teacher_calls == 2 * steps - counts["hard traces"]  # scored, and never rewritten
    assert work["iter1/3_grpo"].rollouts == stages["iter1/3_grpo"][0].rollouts


def test_seeds_that_have_measured_other_sizes_have_lines_of_their_own(walked, tmp_path):
    path, stages = walked
    (tmp_path / f"seed-{SMALL.seed}").symlink_to(path)
    lines = dry_run_experiments(Request(("components",), (SMALL.seed, 2)), SMALL, tmp_path).splitlines()
    rows = [line for line in lines if line.startswith("raw-hard 3_bridge x 1 ")]
    assert len(rows) == 2 and f" {stages['3_bridge'][0].size} " in rows[0] and rows[0] != rows[1]
    assert [line.startswith("full 2_traces x 1 ") for line in lines].count(True) == 1  # the first seed has them
    calls = [line[-40:-25].strip() for line in lines[1 : lines.index("")]]
    assert sum(int(number or 0) for number in calls[:-1]) == int(calls[-1])
    assert f"seed {SMALL.seed}: {sources(measured_in(run_of_seed(tmp_path, SMALL, Process()), SMALL))}" in lines
    assert f"seed 2: {sources(NOTHING)}" in lines


def test_the_plan_says_what_was_measured_and_what_is_the_papers():
    paper = "difficulty groups (Table 4), traces of hard problems (Table 9)"
    assert (
        sources(NOTHING) == f"from the paper: {paper}; guessed: every step rewritten, as many failures as hard problems"
    )
    groups = dict.fromkeys(DifficultyGroup, 1)
    trace = Trace("p", "one", 1, 1)
    assert sources(Measured(groups)).startswith(
        "measured in this run: difficulty groups; from the paper: traces of hard"
    )
    assert sources(Measured(groups, [trace], {1: 2})) == (
        "measured in this run: difficulty groups, traces of hard problems, failures of iteration 1; "
        "guessed: every step rewritten, further failures as before"
    )
