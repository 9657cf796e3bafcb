"""The inspector's data: what the page shows of a problem is what the run did with it."""

import json
from collections import Counter

import pytest

from reference.engines.artifacts import read_records
from reference.paper.bridge import choose_action
from reference.paper.prompts import Prompts
from reference.paper.reported import CARLA, CARLA_COMPRESSED, CARLA_THRESHOLDS, TABLE_12
from reference.records import Action, Diagnosed, ExampleKind, RolloutGroup, SFTExample, StepScores, Thresholds
from reference.report.inspector import Inspector, carla, choose
from reference.report.page import LINES
from reference.report.story import read_run


@pytest.fixture(scope="module")
def inspector(small_run):
    return Inspector(read_run(small_run), 1000, 10**6)


RECYCLED = {ExampleKind.DIAGNOSTIC, ExampleKind.REPAIR, ExampleKind.NEW}


def by_problem(inspector):
    """Details by problem id; the index and the details are in the same order."""
    return {line["id"]: detail for line, detail in zip(inspector.index(), inspector.details(), strict=True)}


@pytest.fixture(scope="module")
def details(inspector):
    return by_problem(inspector)


def test_every_problem_is_there_behind_the_papers_example(inspector):
    assert [line["id"] for line in inspector.index()] == ["carla", *sorted(inspector.run.problems)]


def test_each_step_has_its_scores_and_the_leaf_that_they_lead_to(inspector, details):
    taus = inspector.thresholds()
    thresholds = Thresholds(taus["importance"], taus["jumpiness"], taus["difficulty"])
    seen = Counter()
    for detail in details.values():
        for step in detail["bridge"]["steps"] if detail["bridge"] and detail["graded"] else []:
            assert choose_action(StepScores(**step["scores"]), thresholds)[0] == step["action"]
            assert (step["rewritten"] is None) == (step["action"] == "drop")
            seen[step["action"]] += 1
    assert set(seen) == set(Action) and set(LINES) == set(Action)


def test_local_samples_are_those_that_were_trained_on(small_run, details):
    trained = read_records(small_run / "iter1/1_sft/2_bridge/examples.jsonl", SFTExample)
    local = [
        (e.problem_id, e.messages[0].content, e.messages[-1].content, e.target, e.ends_turn)
        for e in trained
        if e.kind is ExampleKind.LOCAL
    ]
    shown = [
        (problem_id, one["prompt"], one["written"] + one["answer"], one["answer"], one["ends_turn"])
        for problem_id, detail in details.items()
        for one in [step["local"] for step in (detail["bridge"] or {"steps": []})["steps"]]
        if one and problem_id != CARLA.id
    ]
    assert shown == local and local


def test_rollouts_have_their_rewards_and_advantages(small_run, details):
    for group in read_records(small_run / "iter1/2_filter/rollouts.jsonl", RolloutGroup):
        responses = details[group.problem_id]["rollouts"][0]["responses"]
        assert [response["text"] for response in responses] == [response.text for response in group.responses]
        assert [response["reward"] for response in responses] == list(group.rewards)
        mean = sum(group.rewards) / 4
        deviation = (sum((reward - mean) ** 2 for reward in group.rewards) / 3) ** 0.5
        expected = [(reward - mean) / (deviation + 1e-6) for reward in group.rewards]
        assert [response["advantage"] for response in responses] == pytest.approx(expected, abs=1e-3)


def test_each_token_is_shaded_by_its_own_log_probability(small_run, details):
    group = read_records(small_run / "iter1/2_filter/rollouts.jsonl", RolloutGroup)[0]
    for shown, response in zip(details[group.problem_id]["rollouts"][0]["responses"], group.responses, strict=True):
        assert "unshaded" not in shown
        assert sum(shown["lengths"]) == len(response.text) and len(shown["lengths"]) == len(response.token_ids)
        assert shown["centinats"] == pytest.approx([-100 * value for value in response.logprobs], abs=0.51)


def test_a_failure_has_its_candidates_and_the_one_that_was_diagnosed(small_run, details):
    records = read_records(small_run / "iter1/4_recycle/diagnosed.jsonl", Diagnosed)
    assert records
    recycled = read_records(small_run / "iter2/1_sft/union/examples.jsonl", SFTExample)
    for record in records:
        failure = details[record.problem_id]["failures"][0]
        told = failure["diagnosed"]
        scores = [candidate["score"] for candidate in failure["candidates"]]
        assert told["chosen"] == scores.index(max(scores))
        assert (
            max(scores) == pytest.approx(record.near_miss_score, abs=1e-3) and told["score"] == record.near_miss_score
        )
        response = details[record.problem_id]["rollouts"][0]["responses"][told["chosen"]]["text"]
        assert response == record.response
        if told["error"]:
            begin, end = told["error"]
            assert response[begin:end].split() == record.diagnosis.first_error.split()
        trained = [(e.kind, e.target) for e in recycled if e.problem_id == record.problem_id and e.kind in RECYCLED]
        assert [(sample["kind"], sample["answer"]) for sample in told["samples"]] == trained


def test_in_the_last_iteration_nothing_is_diagnosed(details):
    failures = [detail["failures"][1] for detail in details.values() if len(detail["failures"]) == 2]
    failures = [failure for failure in failures if failure]
    assert failures and all(failure["diagnosed"] is None and not failure["recycles"] for failure in failures)


def test_carla_takes_the_leaves_of_table_12():
    detail = carla(Prompts())["detail"]
    assert [step["action"] for step in detail["bridge"]["steps"]] == [unit.action for unit in TABLE_12]
    assert detail["thresholds"]["difficulty"] == CARLA_THRESHOLDS.difficulty == 1.26


def test_carla_has_the_trace_of_figure_11():
    """Four units as they were, and the answer in place of the check."""
    bridge, units = carla(Prompts())["detail"]["bridge"], [unit.text for unit in TABLE_12]
    assert [step["original"].strip() for step in bridge["steps"]] == units
    assert [step["rewritten"].strip() for step in bridge["steps"]] == [*units[:4], CARLA_COMPRESSED]
    assert bridge["text"].split("\n\n") == [*units[:4], CARLA_COMPRESSED]


def test_carla_has_the_local_samples_of_figure_12():
    """The first from the question alone, the others from the question and all that precedes; none of other units."""
    local = [step["local"] for step in carla(Prompts())["detail"]["bridge"]["steps"]]
    assert [at for at, one in enumerate(local) if one] == [0, 1, 3]
    for at in (0, 1, 3):
        assert local[at]["kind"] == ExampleKind.LOCAL and local[at]["answer"] == f"{TABLE_12[at].text}\n\n"
        assert CARLA.question in local[at]["prompt"] and not local[at]["ends_turn"]
        assert [unit.text in local[at]["written"] for unit in TABLE_12] == [before < at for before in range(5)]


def test_the_inspector_shows_the_local_samples_of_the_runs_own_reading(copied):
    """A run that has them as turns of their own shows them so."""
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**settings, "readings.local_samples": "own_turn"}))
    shown = [
        step["local"]
        for detail in by_problem(Inspector(read_run(copied), 1000, 10**6)).values()
        for step in (detail["bridge"] or {"steps": []})["steps"]
        if step["local"]
    ]
    own = [one for one in shown if CARLA.question not in one["prompt"]]
    assert own and all("Write only the next step." in one["prompt"] and not one["written"] for one in own)


def test_the_cap_keeps_some_of_every_kind_and_is_the_same_every_time():
    kinds = {f"p{n:03d}": ("rare",) if n in (17, 90) else (str(n % 3),) for n in range(100)}
    chosen = choose(kinds, 9)
    assert len(chosen) == 9 and chosen == sorted(chosen) == choose(dict(reversed(kinds.items())), 9)
    assert Counter(kinds[problem_id] for problem_id in chosen) == {("0",): 3, ("1",): 2, ("2",): 2, ("rare",): 2}
    assert choose(kinds, 1000) == sorted(kinds) and choose({}, 5) == []


def test_a_capped_inspector_shows_no_more_than_it_may(small_run):
    run = read_run(small_run)
    inspector = Inspector(run, max_problems=5, max_shaded_tokens=100)
    details = inspector.details()
    assert len(inspector.chosen) == 5 and len(inspector.index()) == len(details) == 6
    responses = [r for detail in details for g in detail["rollouts"] if g for r in g["responses"]]
    shaded = [response for response in responses if "lengths" in response]
    assert 0 < sum(len(response["lengths"]) for response in shaded) <= 100
    assert {r["unshaded"] for r in responses if "lengths" not in r} == {
        "left out for the size of this page; rollouts.jsonl has them"
    }
    groups = {graded.group for graded in run.graded if graded.problem_id in inspector.chosen}
    assert groups == {graded.group for graded in run.graded}


def test_without_log_probabilities_or_a_tokenizer_the_text_is_shown_and_the_reason(copied):
    for checkpoint in copied.glob("iter*/*/**/tokenizer.json"):
        checkpoint.unlink()
    path = copied / "iter1/2_filter/rollouts.jsonl"
    groups = [json.loads(line) for line in path.read_text().splitlines()]
    for response in groups[0]["responses"]:
        response["logprobs"] = None
    path.write_text("".join(json.dumps(group) + "\n" for group in groups))
    first, second = Inspector(read_run(copied), 1000, 10**6).details()[1:3]
    assert "before log-probabilities were kept" in first["rollouts"][0]["responses"][0]["unshaded"]
    assert "no checkpoint whose tokenizer" in second["rollouts"][0]["responses"][0]["unshaded"]
