"""The Bridge stage: thresholds measured on this student, each hard trace once, and what cannot be used left out."""

import json
from collections import Counter

import numpy as np
import pytest

from reference.config import BridgeConfig, Config, ReadingsConfig, RecyclingConfig, flatten
from reference.engines.artifacts import write_records
from reference.engines.run_folder import RunFolder
from reference.interfaces import UnusableAnswer
from reference.paper.prompts import student_messages
from reference.records import Action, DifficultyGroup, Graded, Problem, Rejected, Trace
from reference.stages.build_bridge import STAGE, Calibration, build_bridge

PROBLEMS = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(4)]
HARD, MEDIUM = DifficultyGroup.HARD, DifficultyGroup.MEDIUM
GROUPS = [HARD, MEDIUM, HARD, HARD]
TRACES = [Trace(p.id, f"We add one.\n\nIt is {p.gold}.\n\n#### {p.gold}", 10 + n, 2) for n, p in enumerate(PROBLEMS)]


class Judging:
    """Gives every step the same scores; has nothing to say on the problems it is told to leave out."""

    concurrency = 1

    def __init__(self, importance, jumpiness=0.0, leaves_out=()):
        self.scores, self.leaves_out, self.asked = (importance, jumpiness), leaves_out, []

    def importance(self, problem, trace, trace_without_step, step):
        self.asked.append(problem.id)
        if problem.id in self.leaves_out:
            raise UnusableAnswer("the judge said: maybe")
        return self.scores[0]

    def jumpiness(self, problem, context, step):
        return self.scores[1]

    def compress(self, step):
        return "Short."


def bridged(path, student, teacher, config=Config(), groups=GROUPS, traces=TRACES):
    run = RunFolder(path, flatten(config), [STAGE], say=lambda line: None)
    run.take_up(PROBLEMS, [], student.prompts)
    write_records(path / "2_traces" / "traces.jsonl", traces)
    rates = {HARD: 0.0, MEDIUM: 0.5}
    graded = [Graded(p.id, 2, 0, 0, rates[g], g) for p, g in zip(PROBLEMS, groups, strict=True)]
    return build_bridge(run, config, PROBLEMS, graded, traces, student, teacher)


def counts(path):
    return json.loads((path / STAGE / "receipt.json").read_text())["counts"]


def test_thresholds_are_means_over_the_hard_traces_and_are_read_back(random_student, tmp_path):
    teacher, config = Judging(importance=1.0), Config(bridge=BridgeConfig(tau_difficulty=100.0))
    records, taus = bridged(tmp_path, random_student, teacher, config)
    assert taus == Calibration(100.0, np.mean([10, 12, 13]), 2.0)
    measured = json.loads((tmp_path / STAGE / "calibration.json").read_text())["measured"]
    assert measured["token_loss"]["min"] < measured["token_loss"]["mean"] < measured["token_loss"]["max"]
    asked = list(teacher.asked)
    assert set(asked) == {"p0", "p2", "p3"}
    assert bridged(tmp_path, random_student, teacher, config) == (records, taus)
    assert teacher.asked == asked


def test_tau_d_is_the_token_weighted_mean_of_all_difficulties(random_student, tmp_path):
    """Appendix C.1 and Table 8, ambiguity A16. It fails after processed steps, since other tokens are scored then."""
    off = {}
    for scores_after in ("original", "processed"):
        config = Config(readings=ReadingsConfig(scores_after=scores_after), bridge=BridgeConfig(tau_importance=1.0))
        records, taus = bridged(tmp_path / scores_after, random_student, Judging(0.0), config)
        total, num_tokens = 0.0, 0
        for record in records:
            messages = student_messages(random_student.prompts, PROBLEMS[int(record.problem_id[1:])])
            token_ids, starts = random_student.chat.trace_ids(messages, [step.original for step in record.steps])
            for step, begin, end in zip(record.steps, starts, [*starts[1:], len(token_ids)], strict=True):
                total += (end - begin) * step.scores.difficulty
                num_tokens += end - begin
        off[scores_after] = abs(total / num_tokens - taus.tau_difficulty)
    assert off["original"] < 1e-6 < 1e-3 < off["processed"]


def test_without_a_hard_trace_the_thresholds_come_from_all(random_student, tmp_path):
    records, taus = bridged(tmp_path, random_student, Judging(1.0), groups=[MEDIUM] * 4)
    assert records == [] and taus.tau_length == np.mean([10, 11, 12, 13]) and taus.tau_difficulty > 0


def test_without_any_trace_nothing_is_measured_and_given_thresholds_stay(random_student, tmp_path):
    config = Config(recycling=RecyclingConfig(tau_length=243.0))
    records, taus = bridged(tmp_path, random_student, Judging(1.0), config, traces=[])
    assert (records, taus) == ([], Calibration(None, 243.0, None))


@pytest.mark.parametrize(
    ("importance", "jumpiness", "tau_difficulty", "actions", "dropped"),
    [
        (1.0, 0.0, 100.0, {Action.KEEP: 6}, 0),
        (0.0, 0.0, 100.0, {Action.COMPRESS: 6}, 0),
        (0.0, 1.0, 100.0, {Action.COMPRESS: 3, Action.DROP: 3}, 0),  # nothing precedes the first step: J_1 = 0
        (0.0, 1.0, 1e-9, {Action.DROP: 6}, 3),
    ],
)
def test_actions_are_counted_and_so_are_traces_of_which_nothing_stays(
    random_student, tmp_path, importance, jumpiness, tau_difficulty, actions, dropped
):
    config = Config(bridge=BridgeConfig(tau_difficulty=tau_difficulty))
    records, _ = bridged(tmp_path, random_student, Judging(importance, jumpiness), config)
    assert Counter(step.action for record in records for step in record.steps) == actions
    assert {action: counts(tmp_path)[str(action)] for action in actions} == actions
    assert counts(tmp_path)["all dropped"] == dropped == sum(record.text.startswith("####") for record in records)


def test_what_the_judge_cannot_score_is_left_out_with_its_reason(random_student, tmp_path):
    config = Config(bridge=BridgeConfig(tau_difficulty=100.0))
    records, _ = bridged(tmp_path, random_student, Judging(1.0, leaves_out=("p2",)), config)
    assert [record.problem_id for record in records] == ["p0", "p3"] and counts(tmp_path)["rejected"] == 1
    lines = (tmp_path / STAGE / "rejected.jsonl").read_text().splitlines()
    assert [Rejected(**json.loads(line)) for line in lines] == [Rejected("p2", "the judge said: maybe")]
