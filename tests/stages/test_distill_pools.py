"""Enough traces for a budget, fresh ones for problems that come again."""

from collections import Counter

import pytest

from reference.config import TINY, flatten
from reference.engines.run_folder import RunFolder, read_receipt
from reference.interfaces import UnusableAnswer
from reference.offline import word_problems
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.paper.prompts import Prompts
from reference.records import DifficultyGroup, Graded
from reference.stages.distill_pools import distill_pools

PROBLEMS = word_problems.generate("train", 20, 0)
GROUPS = [DifficultyGroup.SIMPLE] * 12 + [DifficultyGroup.MEDIUM] * 6 + [DifficultyGroup.HARD] * 2
GRADED = [Graded(problem.id, 4, 1, 0, 0.5, group) for problem, group in zip(PROBLEMS, GROUPS, strict=True)]


class Counting(SymbolicTeacher):
    """The symbolic teacher, which notes what it was asked for and cannot solve some problems."""

    def __init__(self, unsolved=()):
        super().__init__(1)
        self.asked, self.unsolved = Counter(), set(unsolved)

    def solve(self, problem, attempt=0):
        self.asked[problem.id, attempt] += 1
        if problem.id in self.unsolved:
            raise UnusableAnswer("it is too hard")
        return super().solve(problem, attempt)


def pools_of(tmp_path, student, budget, teacher):
    run = RunFolder(tmp_path, flatten(TINY), ["1_difficulty", "2_pools"], say=lambda line: None)
    run.take_up(PROBLEMS, [], Prompts())
    run.folder("1_difficulty").mkdir(exist_ok=True)
    (run.folder("1_difficulty") / "difficulty.jsonl").write_text("graded\n")
    return distill_pools(run, TINY, "2_pools", budget, PROBLEMS, GRADED, student, teacher)


def test_a_budget_of_nothing_takes_one_trace_of_each_problem(tmp_path, random_student):
    teacher = Counting()
    pools = pools_of(tmp_path, random_student, 0, teacher)
    assert {group: len(traces) for group, traces in pools.traces.items()} == Counter(GROUPS)
    assert set(teacher.asked) == {(problem.id, 0) for problem in PROBLEMS} and max(teacher.asked.values()) == 1
    for group, traces in pools.traces.items():
        assert pools.sizes[group] == sum(trace.num_tokens + 1 for trace in traces)  # and the end of the turn


def test_a_small_group_comes_again_with_fresh_traces(tmp_path, random_student):
    teacher, budget = Counting(), 1500
    pools = pools_of(tmp_path, random_student, budget, teacher)
    for group, traces in pools.traces.items():
        total = sum(trace.num_tokens + 1 for trace in traces)
        assert total > budget
        assert total - budget < max(pools.sizes[group], 0.3 * budget)  # and not far beyond
        of_group = [problem.id for problem, its_group in zip(PROBLEMS, GROUPS, strict=True) if its_group is group]
        assert {trace.problem_id for trace in traces} == set(of_group)
    hard = [trace.text for trace in pools.traces[DifficultyGroup.HARD]]
    assert len(hard) > 10 and len(set(hard)) > len(hard) / 2  # another attempt is another trace, as far as it varies
    assert max(teacher.asked.values()) == 1


def test_what_is_there_is_read_again_in_the_same_order(tmp_path, random_student):
    teacher = Counting()
    first = pools_of(tmp_path, random_student, 1500, teacher)
    asked = sum(teacher.asked.values())
    assert pools_of(tmp_path, random_student, 1500, teacher) == first and sum(teacher.asked.values()) == asked


def test_the_pass_over_a_whole_group_comes_first(tmp_path, random_student):
    """So that a budget within the group's own tokens has every problem once at most."""
    pools = pools_of(tmp_path, random_student, 1500, Counting())
    simple = [trace.problem_id for trace in pools.traces[DifficultyGroup.SIMPLE]]
    assert len(set(simple[:12])) == 12 and simple[:12] != sorted(simple[:12])


def test_each_pass_resamples_in_an_order_of_its_own(tmp_path, random_student):
    """Appendix A.1 resamples questions: not always the same first ones."""
    pools = pools_of(tmp_path, random_student, 3000, Counting())
    simple = [trace.problem_id for trace in pools.traces[DifficultyGroup.SIMPLE]]
    first, second = simple[:12], simple[12:24]
    assert second[:4] != first[:4]
    assert all(count <= -(-len(simple) // 12) for count in Counter(simple).values())


def rejections(tmp_path):
    return [path.read_text() for path in (tmp_path / "2_pools").glob("rejected.*.jsonl")]


def test_a_problem_without_a_usable_trace_is_left_out(tmp_path, random_student):
    pools = pools_of(tmp_path, random_student, 1500, Counting([PROBLEMS[18].id]))
    assert {trace.problem_id for trace in pools.traces[DifficultyGroup.HARD]} == {PROBLEMS[19].id}
    rejected = (tmp_path / "2_pools" / "rejected.hard.0.jsonl").read_text()
    assert PROBLEMS[18].id in rejected
    passes = len(list((tmp_path / "2_pools").glob("hard.*.jsonl")))
    counts = read_receipt(tmp_path / "2_pools" / "receipt.json")["counts"]
    assert passes > 1 and counts["hard traces"] == len(pools.traces[DifficultyGroup.HARD])
    assert counts["rejected"] == sum(text.count(PROBLEMS[18].id) for text in rejections(tmp_path)) >= 1


def test_a_group_that_can_never_be_filled_stops_with_a_sentence(tmp_path, random_student):
    with pytest.raises(ValueError, match="--teacher.max-rejected"):
        pools_of(tmp_path, random_student, 1500, Counting([PROBLEMS[18].id, PROBLEMS[19].id]))
