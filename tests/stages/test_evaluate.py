"""Evaluation counts every problem once, whatever happens to it."""

import json
from dataclasses import replace

import pytest

from reference.config import Config, DataConfig, EvaluationConfig, flatten
from reference.engines.artifacts import read_records
from reference.engines.judge import Judge
from reference.engines.run_folder import RunFolder
from reference.interfaces import Sampling, Share
from reference.paper.pass_at_k import pass_at_k
from reference.records import Completion, Evaluated, Evaluation, Problem, Sampled
from reference.stages.evaluate import evaluate

CONFIG = Config(
    sampler_rows=16,
    data=DataConfig(max_prompt_tokens=60),
    evaluation=EvaluationConfig(max_new_tokens=20, pass_samples=8, temperature=0.7, top_p=0.9),
)
PLAN = ["eval/base", "1_difficulty", "eval/iter1-3_grpo"]
TOO_LONG = Problem("test-2", "many " * 60, "2")
BENCHMARKS = {
    "test": [
        Problem("test-0", "right", "5"),
        Problem("test-1", "wrong", "1"),
        TOO_LONG,
        Problem("test-3", "silent", "3"),
    ],
    "other": [Problem(f"other-{n:02}", "right", "5") for n in range(40)],
}
ANSWERS = {"right": "2 + 3 = 5\n#### 5", "wrong": "#### 7", "silent": "5", "many": "#### 2"}


class Scripted:
    """A sampler that knows its answers; a sample with an odd seed is wrong. It keeps every call."""

    share = Share()

    def __init__(self, student, fail_at=None):
        self.chat, self.fail_at = student.chat, fail_at
        self.loaded, self.calls = [], []

    def load(self, checkpoint):
        self.loaded.append(checkpoint)

    def sample(self, prompts, seeds, sampling):
        if self.fail_at == len(self.calls):
            raise KeyboardInterrupt
        self.calls.append((list(map(tuple, prompts)), seeds, sampling))
        texts = [self.chat.tokenizer.decode(prompt) for prompt in prompts]
        words = [next(word for word in ANSWERS if f"user\n{word}" in text) for text in texts]
        return [
            [Completion((2,), ANSWERS[word] if seed % 2 == 0 else "#### 999", True) for seed in group]
            for word, group in zip(words, seeds, strict=True)
        ]


@pytest.fixture
def scripted(random_student):
    def make(fail_at=None):
        student = replace(random_student, sampler=None)
        return replace(student, sampler=Scripted(student, fail_at))

    return make


def evaluated(path, student, config=CONFIG, name="base", benchmarks=BENCHMARKS):
    run = RunFolder(path, flatten(CONFIG), PLAN, say=lambda line: None)
    problems = [problem for group in benchmarks.values() for problem in group]
    run.take_up([], problems, student.prompts)
    judge = Judge(problem for problems in benchmarks.values() for problem in problems)
    evaluate(run, config, name, student.base, benchmarks, student, judge)
    return path / "eval" / "results.jsonl"


def test_the_counts_are_those_of_the_whole_benchmark(scripted, tmp_path):
    first, other = read_records(evaluated(tmp_path, scripted()), Evaluation)
    assert (first.stage, first.benchmark, first.num_problems, first.num_correct) == ("base", "test", 4, 1)
    assert (first.accuracy, first.format_rate) == (0.25, 0.5)  # two of four end in a readable answer
    assert (other.benchmark, other.num_problems, other.num_correct, other.accuracy) == ("other", 40, 40, 1.0)


def test_a_problem_that_is_too_long_counts_as_wrong_and_is_never_sampled(scripted, tmp_path):
    student = scripted()
    evaluated(tmp_path, student)
    answers = {record.problem_id: record for record in read_records(tmp_path / "eval/base/test.jsonl", Evaluated)}
    assert answers["test-2"] == Evaluated("test-2", "", False, False)
    samples = {record.problem_id: record for record in read_records(tmp_path / "eval/base/test.samples.jsonl", Sampled)}
    assert samples["test-2"] == Sampled("test-2", 8, 0)
    long = tuple(student.prompt_ids(TOO_LONG))
    assert all(long not in prompts for prompts, _, _ in student.sampler.calls)


def test_a_benchmark_of_too_long_problems_gives_zero(scripted, tmp_path):
    (only,) = read_records(evaluated(tmp_path, scripted(), benchmarks={"test": [TOO_LONG]}), Evaluation)
    assert (only.num_problems, only.num_correct, only.accuracy, only.pass_at_8) == (1, 0, 0.0, 0.0)


def test_accuracy_is_greedy_and_pass_at_8_is_sampled_on_the_first_benchmark_only(scripted, tmp_path):
    student = scripted()
    results = evaluated(tmp_path, student)
    greedy = [call for call in student.sampler.calls if call[2] == Sampling(0.0, 1.0, 20)]
    sampled = [call for call in student.sampler.calls if call[2] == Sampling(0.7, 0.9, 20)]
    assert len(greedy) + len(sampled) == len(student.sampler.calls)
    assert sum(len(prompts) for prompts, _, _ in greedy) == 3 + 40
    assert [len(group) for _, seeds, _ in sampled for group in seeds] == [8] * 3
    assert max(sum(len(group) for group in seeds) for _, seeds, _ in student.sampler.calls) <= 16
    first, other = read_records(results, Evaluation)
    assert other.pass_at_8 is None and "pass_at_8" not in results.read_text().splitlines()[1]
    samples = read_records(tmp_path / "eval/base/test.samples.jsonl", Sampled)
    seeds = {prompts[at]: group for prompts, groups, _ in sampled for at, group in enumerate(groups)}
    right = sum(seed % 2 == 0 for seed in seeds[tuple(student.prompt_ids(BENCHMARKS["test"][0]))])
    assert [record.num_correct for record in samples] == [right, 0, 0, 0]
    assert first.pass_at_8 == pytest.approx(pass_at_k(8, right, 8) / 4)


def test_seeds_differ_between_problems_and_stages_and_follow_the_runs_seed(scripted, tmp_path):
    def seeds_of(folder, name="base", seed=1111):
        student = scripted()
        evaluated(tmp_path / folder, student, replace(CONFIG, seed=seed), name)
        return [
            seed for _, groups, sampling in student.sampler.calls if sampling.temperature for g in groups for seed in g
        ]

    base = seeds_of("a")
    assert len(set(base)) == len(base) == 24
    assert seeds_of("b") == base
    assert not set(base) & set(seeds_of("c", "iter1/3_grpo"))
    assert not set(base) & set(seeds_of("d", seed=2))


def test_pass_at_8_can_be_left_out(scripted, tmp_path):
    config = replace(CONFIG, evaluation=replace(CONFIG.evaluation, pass_samples=0))
    first, _ = read_records(evaluated(tmp_path, scripted(), config), Evaluation)
    assert first.pass_at_8 is None and not (tmp_path / "eval/base/test.samples.jsonl").exists()


def test_results_hold_a_line_for_each_stage_and_benchmark_in_the_order_of_the_run(scripted, tmp_path):
    evaluated(tmp_path, scripted(), name="iter1/3_grpo")
    results = evaluated(tmp_path, scripted(), name="base")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(line["stage"], line["benchmark"]) for line in lines] == [
        ("base", "test"),
        ("base", "other"),
        ("iter1/3_grpo", "test"),
        ("iter1/3_grpo", "other"),
    ]
    fields = ["stage", "benchmark", "num_problems", "num_correct", "accuracy", "format_rate"]
    assert [list(line) for line in lines] == [[*fields, "pass_at_8"], fields] * 2


def test_the_checkpoint_that_is_named_is_the_one_that_is_loaded(scripted, tmp_path):
    student = scripted()
    evaluated(tmp_path, student)
    assert student.sampler.loaded == [student.base]


def test_what_is_done_is_kept(scripted, tmp_path):
    evaluated(tmp_path, scripted())
    again = scripted()
    evaluated(tmp_path, again)
    assert again.sampler.calls == [] and again.sampler.loaded == []


def test_a_kill_right_after_the_receipt_loses_no_line(scripted, tmp_path):
    results = evaluated(tmp_path, scripted())
    expected = results.read_bytes()
    results.unlink()
    assert evaluated(tmp_path, scripted()).read_bytes() == expected


@pytest.mark.parametrize("fail_at", range(6))
def test_an_interrupted_evaluation_asks_nothing_twice(scripted, tmp_path, fail_at):
    """1 batch of `test`, 2 of its samples, 3 of `other`: killed before any of them, no problem is sampled again."""
    whole = scripted()
    expected = evaluated(tmp_path / "whole", whole).read_bytes()
    assert len(whole.sampler.calls) == 6
    first, second = scripted(fail_at), scripted()
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path / "run", first)
    assert evaluated(tmp_path / "run", second).read_bytes() == expected
    assert first.sampler.calls + second.sampler.calls == whole.sampler.calls


def test_answers_are_sorted_and_each_problem_is_there_once(scripted, tmp_path):
    evaluated(tmp_path, scripted())
    ids = [record.problem_id for record in read_records(tmp_path / "eval/base/other.jsonl", Evaluated)]
    assert ids == sorted(problem.id for problem in BENCHMARKS["other"])
