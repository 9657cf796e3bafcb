"""What the inspector shows: one record for each problem, with everything that the run did with it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import torch

from reference.paper import verl
from reference.paper.answers import extract_answer
from reference.paper.bridge import bridge_examples, choose_action, previous_context, processed_trace, split_steps
from reference.paper.grpo import group_advantages
from reference.paper.prompts import Prompts
from reference.paper.recycling import (
    format_score,
    length_score,
    locate_excerpt,
    near_miss_score,
    recycled_set,
    step_score,
)
from reference.paper.reported import CARLA, CARLA_COMPRESSED, CARLA_THRESHOLDS, TABLE_12
from reference.records import (
    Action,
    BridgedStep,
    BridgedTrace,
    Completion,
    Diagnosed,
    Graded,
    LocalSamples,
    Problem,
    Rejected,
    RolloutGroup,
    SFTExample,
    Trace,
)
from reference.report.story import Iteration, Outcome, Run, read_group
from reference.report.token_shading import TokenTexts

Data = dict[str, Any]  # as JSON has it


class Inspector:
    """A run's records by problem, and the page's data made of them.

    At most `max_problems` are shown, and at most `max_shaded_tokens` of their tokens with their log-probabilities.
    """

    def __init__(self, run: Run, max_problems: int, max_shaded_tokens: int):
        self.run = run
        self.graded: Mapping[str, Graded] = {record.problem_id: record for record in run.graded}
        self.traces: Mapping[str, Trace] = {record.problem_id: record for record in run.traces}
        self.bridged: Mapping[str, BridgedTrace] = {record.problem_id: record for record in run.bridged}
        self.outcomes: list[tuple[Iteration, Mapping[str, Outcome]]] = [
            (iteration, {outcome.problem_id: outcome for outcome in iteration.outcomes}) for iteration in run.iterations
        ]
        self.diagnosed: Mapping[int, Mapping[str, Diagnosed]] = {
            iteration.number: {record.problem_id: record for record in iteration.diagnosed}
            for iteration in run.iterations
        }
        self.rejected: dict[str, list[tuple[str, Rejected]]] = defaultdict(list)
        for stage in run.stages:
            for record in stage.rejected:
                self.rejected[record.problem_id].append((stage.name, record))
        self.chosen = choose(self.kinds(), max_problems)
        self.texts = TokenTexts(run.tokenizer) if run.tokenizer else None
        self.tokens_left = max_shaded_tokens

    def kinds(self) -> dict[str, tuple]:
        """What happened to each problem, in short: problems of one kind are interchangeable for whoever looks in."""
        return {problem_id: self._kind(problem_id) for problem_id in self.run.problems}

    def _kind(self, problem_id: str) -> tuple:
        graded = self.graded.get(problem_id)
        actions = {step.action for step in self.bridged[problem_id].steps} if problem_id in self.bridged else set()
        outcomes = [known[problem_id].kind if problem_id in known else "" for _, known in self.outcomes]
        return (
            str(graded.group) if graded else "",
            *sorted(actions),
            *outcomes,
            *(stage for stage, _ in self.rejected.get(problem_id, ())),
        )

    def index(self) -> list[Data]:
        """A line of the list for each chosen problem."""
        lines = [self._line(self.run.problems[problem_id]) for problem_id in self.chosen]
        return [carla(self.run.prompts)["index"], *lines]

    def details(self) -> list[Data]:
        """All of each chosen problem, in the order of the index."""
        details = [self._detail(self.run.problems[problem_id]) for problem_id in self.chosen]
        return [carla(self.run.prompts)["detail"], *details]

    def thresholds(self) -> Data:
        """What scores are compared with; an empty one before the Bridge stage."""
        if self.run.calibration is None:
            return {}
        taus, settings = self.run.calibration["used"], self.run.settings
        return {
            "importance": settings["bridge.tau_importance"],
            "jumpiness": settings["bridge.tau_jumpiness"],
            "difficulty": taus["tau_difficulty"],
            "length": taus["tau_length"],
            "steps": taus["tau_steps"],
            "weights": settings["recycling.weights"],
        }

    def _line(self, problem: Problem) -> Data:
        graded, bridged = self.graded.get(problem.id), self.bridged.get(problem.id)
        rewards = [known[problem.id].rewards if problem.id in known else None for _, known in self.outcomes]
        return {
            "id": problem.id,
            "question": problem.question,
            "gold": problem.gold,
            "group": str(graded.group) if graded else "",
            "actions": [str(step.action) for step in bridged.steps] if bridged else [],
            "rollouts": [[sum(given), len(given)] if given else None for given in rewards],
            "failed": any(problem.id in records for records in self.diagnosed.values()),
            "rejected": problem.id in self.rejected,
        }

    def _detail(self, problem: Problem) -> Data:
        graded, trace = self.graded.get(problem.id), self.traces.get(problem.id)
        bridged = self.bridged.get(problem.id)
        groups = [(iteration, self._group(iteration, known.get(problem.id))) for iteration, known in self.outcomes]
        return {
            "solution": problem.solution,
            "graded": asdict(graded) if graded else None,
            "trace": {"steps": split_steps(trace.text), "tokens": trace.num_tokens} if trace else None,
            "bridge": self._bridged(problem, bridged) if bridged else None,
            "rollouts": [self._rollouts(iteration, group) for iteration, group in groups],
            "failures": [self._failure(problem, iteration, group) for iteration, group in groups],
            "rejected": [{"stage": stage, "reason": one.reason} for stage, one in self.rejected.get(problem.id, ())],
        }

    def _group(self, iteration: Iteration, outcome: Outcome | None) -> RolloutGroup | None:
        return read_group(self.run, iteration.number, outcome) if outcome else None

    def _bridged(self, problem: Problem, bridged: BridgedTrace) -> Data:
        return _bridge(problem, bridged, self.run.prompts, self.run.settings["readings.local_samples"])

    def _rollouts(self, iteration: Iteration, group: RolloutGroup | None) -> Data | None:
        if group is None:
            return None
        rewards = torch.tensor([group.rewards], dtype=torch.float64)
        advantages = group_advantages(rewards, eps=self.run.settings["grpo.advantage_eps"])[0].tolist()
        responses = [
            {"reward": reward, "advantage": round(advantage, 3), **self._response(response)}
            for response, reward, advantage in zip(group.responses, group.rewards, advantages, strict=True)
        ]
        return {"iteration": iteration.number, "responses": responses}

    def _response(self, response: Completion) -> Data:
        data = {"text": response.text, "tokens": len(response.token_ids), "finished": response.finished}
        if response.logprobs is None:
            return {**data, "unshaded": "this run was made before log-probabilities were kept"}
        if self.texts is None:
            return {**data, "unshaded": "the run has no checkpoint whose tokenizer could tell the tokens apart"}
        if self.tokens_left < len(response.token_ids):
            return {**data, "unshaded": "left out for the size of this page; rollouts.jsonl has them"}
        shading = self.texts.shading(response)
        if shading is None:
            return {**data, "unshaded": "the tokens' texts are not the response, letter for letter"}
        self.tokens_left -= len(response.token_ids)
        return {**data, "lengths": shading.lengths, "centinats": shading.centinats}

    def _failure(self, problem: Problem, iteration: Iteration, group: RolloutGroup | None) -> Data | None:
        """An all-zero group: what each candidate's near-miss score is made of, and what the teacher said of one."""
        if group is None or sum(group.rewards) > 0:
            return None
        taus = self.thresholds()
        if not taus or taus["length"] is None or taus["steps"] is None:
            return {"iteration": iteration.number, "candidates": [], "diagnosed": None, "recycles": iteration.recycles}
        record = self.diagnosed[iteration.number].get(problem.id)
        answer_of = verl.extract_answer if self.run.settings.get("equations") == "verl" else extract_answer
        candidates = [candidate(response, taus, answer_of) for response in group.responses]
        return {
            "iteration": iteration.number,
            "candidates": candidates,
            "recycles": iteration.recycles,
            "diagnosed": self._diagnosis(problem, record, group) if record else None,
        }

    def _diagnosis(self, problem: Problem, record: Diagnosed, group: RolloutGroup) -> Data:
        samples = recycled_set(problem, record.response, record.diagnosis, self.run.prompts)
        return {
            "chosen": [response.text for response in group.responses].index(record.response),
            "score": record.near_miss_score,
            "fields": asdict(record.diagnosis),
            "error": _utf16(record.response, locate_excerpt(record.response, record.diagnosis.first_error)),
            "samples": [_sample(sample) for sample in samples],
        }


def choose(kinds: Mapping[str, tuple], limit: int) -> list[str]:
    """At most `limit` problems, sorted by id: the difficulty groups in turn, and in each of them its kinds in turn.

    So a rare kind is there too. The first part of a kind is its group.
    """
    by_group: dict[str, dict[tuple, list[str]]] = defaultdict(lambda: defaultdict(list))
    for problem_id in sorted(kinds):
        by_group[kinds[problem_id][0]][kinds[problem_id]].append(problem_id)
    groups = [_in_turn([by_kind[kind] for kind in sorted(by_kind)]) for _, by_kind in sorted(by_group.items())]
    return sorted(_in_turn(groups)[:limit])


def _in_turn(lists: Sequence[Sequence[str]]) -> list[str]:
    return [one for turn in zip_longest(*lists) for one in turn if one is not None]


def candidate(response: Completion, taus: Data, answer_of: Callable[[str], str | None]) -> Data:
    """Eqs. (30)-(33) for one response."""
    num_tokens, num_steps = len(response.token_ids), len(split_steps(response.text))
    has_answer = answer_of(response.text) is not None
    total = near_miss_score(
        num_tokens,
        num_steps,
        has_answer,
        tau_length=taus["length"],
        tau_steps=taus["steps"],
        weights=tuple(taus["weights"]),
    )
    return {
        "tokens": num_tokens,
        "steps": num_steps,
        "length_score": round(length_score(num_tokens, taus["length"]), 3),
        "step_score": round(step_score(num_steps, taus["steps"]), 3),
        "format_score": format_score(has_answer),
        "score": round(total, 3),
    }


def _bridge(
    problem: Problem, bridged: BridgedTrace, prompts: Prompts, local_samples: LocalSamples = "continuation"
) -> Data:
    local = iter(bridge_examples(problem, bridged, prompts, local_samples)[1:])
    steps = [
        {
            "original": step.original,
            "rewritten": step.rewritten,
            "scores": asdict(step.scores),
            "action": str(step.action),
            "local": _sample(next(local)) if step.is_local else None,
        }
        for step in bridged.steps
    ]
    return {"text": bridged.text, "steps": steps}


def carla(prompts: Prompts) -> dict[str, Data]:
    """The paper's own example, as any other problem that went through the Bridge."""
    bridge = _bridge(CARLA, carla_bridged(), prompts)
    index: Data = {"id": CARLA.id, "question": CARLA.question, "gold": CARLA.gold, "group": "", "rollouts": []}
    index |= {"actions": [step["action"] for step in bridge["steps"]], "failed": False, "rejected": False}
    detail: Data = {"bridge": bridge, "thresholds": asdict(CARLA_THRESHOLDS), "rollouts": [], "failures": []}
    detail |= {"graded": None, "trace": None, "rejected": [], "solution": ""}
    return {"index": {**index, "paper": True}, "detail": detail}


def carla_bridged() -> BridgedTrace:
    """Table 12's units and scores through Algorithm 1, and what Figures 11 and 12 have of them after it.

    The localized units stand there as they were; the compressed one has become the answer alone.
    """
    steps: list[BridgedStep] = []
    processed: list[str] = []
    for unit in TABLE_12:
        action, is_local = choose_action(unit.scores, CARLA_THRESHOLDS)
        rewritten = f"{CARLA_COMPRESSED if action is Action.COMPRESS else unit.text}\n\n"
        context = previous_context(processed)
        steps.append(BridgedStep(f"{unit.text}\n\n", context, unit.scores, action, rewritten, is_local))
        processed.append(rewritten)
    return BridgedTrace(CARLA.id, processed_trace(processed, CARLA.gold), tuple(steps))


def _sample(example: SFTExample) -> Data:
    """An SFT example: its kind, what is asked, the assistant's words so far, what it learns to write after them."""
    asked: Sequence[str] = [message.content for message in example.messages[:-1]]
    return {
        "kind": str(example.kind),
        "prompt": "\n\n".join(asked),
        "written": example.messages[-1].content[: example.supervised_from],
        "answer": example.target,
        "ends_turn": example.ends_turn,
    }


def _utf16(text: str, span: tuple[int, int] | None) -> list[int] | None:
    """A part of a text in the page's units."""
    if span is None:
        return None
    return [len(text[:end].encode("utf-16-le", "surrogatepass")) // 2 for end in span]
