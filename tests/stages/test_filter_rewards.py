"""The filter: every problem's rollouts once, with rewards and readable log-probabilities."""

import json
import math

import pytest

from reference.config import Config, GRPOConfig, flatten
from reference.engines.artifacts import read_records
from reference.engines.run_folder import RunFolder
from reference.records import Problem, RolloutGroup
from reference.stages.filter_rewards import ROLLOUT_SETTINGS, filter_rewards, rollout_groups

NAME = "iter1/2_filter"
PROBLEMS = [Problem(f"p{n}", f"What is {n} + 1?", str(n + 1)) for n in range(3)]
CONFIG = Config(grpo=GRPOConfig(num_rollouts=2, max_new_tokens=12))


@pytest.fixture
def filtered(random_student, tmp_path):
    """The stage's folder and what it returned."""
    run = RunFolder(tmp_path, flatten(CONFIG), [NAME], say=lambda line: None)
    run.take_up(PROBLEMS, [], random_student.prompts)
    split = filter_rewards(run, CONFIG, NAME, random_student.base, PROBLEMS, random_student)
    return tmp_path / NAME, split


def test_the_filter_is_bound_to_how_it_samples_and_to_nothing_else_of_grpo(filtered):
    """A single setting of a section, too: for a while such a name bound nothing."""
    read = json.loads((filtered[0] / "receipt.json").read_text())["settings"]
    assert {name for name in read if name.startswith("grpo.")} == set(ROLLOUT_SETTINGS)
    assert read["grpo.num_rollouts"] == 2 and len(ROLLOUT_SETTINGS) == 4


def test_every_problem_is_on_one_side(filtered):
    consolidation, failed = filtered[1]
    assert sorted(group.problem_id for group in (*consolidation, *failed)) == [problem.id for problem in PROBLEMS]
    counts = json.loads((filtered[0] / "receipt.json").read_text())["counts"]
    assert counts["problems"] == 3 and counts["all-zero"] == len(failed)


def test_log_probabilities_are_the_samplers_to_four_decimals(filtered, random_student):
    kept = read_records(filtered[0] / "rollouts.jsonl", RolloutGroup)
    random_student.sampler.load(random_student.base)
    exact = rollout_groups(PROBLEMS, CONFIG.grpo, CONFIG.seed, NAME, random_student)
    assert "-0.0," not in (filtered[0] / "rollouts.jsonl").read_text()
    for group, whole in zip(kept, exact, strict=True):
        for response, other in zip(group.responses, whole.responses, strict=True):
            assert (response.token_ids, response.text) == (other.token_ids, other.text)
            assert len(response.logprobs) == len(response.token_ids)
            assert list(response.logprobs) == [round(logprob, 4) for logprob in other.logprobs]
            assert any(logprob != round(logprob, 4) for logprob in other.logprobs)  # there was something to round
            assert all(math.copysign(1, logprob) == -1 or logprob == 0 for logprob in response.logprobs)
