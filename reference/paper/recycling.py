"""Section 3.3 and Appendix C.2: what the model cannot reach by reward becomes supervision (Eqs. 14-20 and 29-34)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import SequenceMatcher
from typing import Any

from reference.interfaces import Teacher, UnusableAnswer
from reference.paper.answers import extract_answer, gold_number
from reference.paper.bridge import split_steps
from reference.paper.prompts import (
    Prompts,
    diagnose_student_messages,
    repair_messages,
    student_messages,
)
from reference.records import (
    Completion,
    Diagnosis,
    ExampleKind,
    Message,
    Problem,
    RolloutGroup,
    SFTExample,
)

MAX_EXCERPT = 120  # characters, Appendix D.2
MIN_LIKENESS = 0.8  # a part of the response must be more like the excerpt than this (ambiguity A43)
NEIGHBOURS = 20  # characters around the best place, in which the excerpt may begin
_SHOWN = re.compile(r"(?:\s|[$`]|\*\*|__|\\[()\[\]])+|(.)")  # group 1: what is left of a text without spaces and marks
DIAGNOSIS_KEYS = tuple(field.name for field in fields(Diagnosis))


def split_by_reward(groups: Sequence[RolloutGroup]) -> tuple[list[RolloutGroup], list[RolloutGroup]]:
    """Eq. (14): D_con = {q : sum_i r_i > 0} and D_fail = {q : sum_i r_i = 0}; all-one groups stay (A27, A47).

    Raises:
        ValueError: a group without rewards belongs to neither.
    """
    for group in groups:
        if not group.rewards:
            raise ValueError(f"problem {group.problem_id} has no rewards; sample it before filtering")
    consolidation = [group for group in groups if sum(group.rewards) > 0]
    failed = [group for group in groups if sum(group.rewards) == 0]
    return consolidation, failed


def incorrect_responses(group: RolloutGroup) -> list[Completion]:
    """Eqs. (15) and (29): O^-(q) = {o_i : r_i = 0}, in sample order, whatever it is that is wrong (ambiguity A42)."""
    return [response for response, reward in zip(group.responses, group.rewards, strict=True) if reward == 0]


def length_score(num_tokens: float, tau_length: float) -> float:
    """Eq. (31): S_l = min(Tok(o) / tau_l, 1)."""
    return min(num_tokens / tau_length, 1.0)


def step_score(num_steps: float, tau_steps: float) -> float:
    """Eq. (32): S_s = min(N_step(o) / tau_s, 1); N_step is the number of units of `split_steps` (ambiguity A41)."""
    return min(num_steps / tau_steps, 1.0)


def format_score(has_answer: bool) -> float:
    """Eq. (33): S_f = 1[Ans(o) is not empty], with the verifier's own extraction."""
    return 1.0 if has_answer else 0.0


def near_miss_score(
    num_tokens: float,
    num_steps: float,
    has_answer: bool,
    *,
    tau_length: float,
    tau_steps: float,
    weights: tuple[float, float, float] = (1, 1, 1),
) -> float:
    """Eq. (30): S_neg(o) = lambda_l S_l + lambda_s S_s + lambda_f S_f, in [0, 3].

    tau_l and tau_s: mean tokens and steps of the teacher's traces on hard problems (Table 9).

    Raises:
        ValueError: a threshold is not positive, or the weights are negative or do not sum to 3.
    """
    if tau_length <= 0 or tau_steps <= 0:
        raise ValueError(f"tau_length and tau_steps must be positive, got {tau_length} and {tau_steps}")
    if min(weights) < 0 or abs(sum(weights) - 3) > 1e-9:
        raise ValueError(f"the three weights must be >= 0 and sum to 3 (Eq. 30), got {tuple(weights)}")
    weight_length, weight_steps, weight_format = weights
    return (
        weight_length * length_score(num_tokens, tau_length)
        + weight_steps * step_score(num_steps, tau_steps)
        + weight_format * format_score(has_answer)
    )


def select_near_miss(
    responses: Sequence[Completion],
    *,
    tau_length: float,
    tau_steps: float,
    weights: tuple[float, float, float] = (1, 1, 1),
    answer_of: Callable[[str], str | None] = extract_answer,
) -> tuple[int, float]:
    """Eq. (34): o^- = argmax S_neg(o) over O^-(q); its index and its score. On a tie the lowest index wins.

    answer_of: the verifier's Ans(o), the one that the rewards are of (ambiguity A48).

    Raises:
        ValueError: there is no response to choose from.
    """
    if not responses:
        raise ValueError("no incorrect response to choose a near miss from")
    scores = [
        near_miss_score(
            len(response.token_ids),
            len(split_steps(response.text)),
            answer_of(response.text) is not None,
            tau_length=tau_length,
            tau_steps=tau_steps,
            weights=weights,
        )
        for response in responses
    ]
    best = max(scores)
    return scores.index(best), best


def diagnose(teacher: Teacher, problem: Problem, response: str) -> Diagnosis:
    """Eq. (16): e = T(q, a*, o^-), validated as Eq. 17. Raises UnusableAnswer."""
    return parse_diagnosis(teacher.diagnose(problem, response), problem.gold)


def parse_diagnosis(text: str, gold: str) -> Diagnosis:
    """Eq. (17): the seven fields from the teacher's JSON text, checked by `validate_diagnosis` (ambiguity A44).

    Raises:
        UnusableAnswer: not one JSON object, or not a valid diagnosis.
    """
    try:
        values = json.loads(text, object_pairs_hook=_with_each_key_once)
    except UnusableAnswer:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, or a number of thousands of digits
        raise UnusableAnswer(f"the diagnosis is not JSON ({error}): {text[:80]!r}") from error
    if not isinstance(values, dict):
        raise UnusableAnswer(f"the diagnosis must be a JSON object, got {text[:80]!r}")
    return validate_diagnosis(values, gold)


def _with_each_key_once(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise UnusableAnswer(f"the diagnosis has a key twice: {keys}")
    return dict(pairs)


def validate_diagnosis(values: Mapping[str, Any], gold: str) -> Diagnosis:
    """Appendix D.2's rules: exactly the seven keys, a short excerpt, a last line `#### a*`.

    Whether the excerpt is one is for `locate_excerpt` (ambiguity A43).

    Raises:
        UnusableAnswer: naming the first rule that is broken.
    """
    if set(values) != set(DIAGNOSIS_KEYS):
        odd = sorted(set(values) ^ set(DIAGNOSIS_KEYS))
        raise UnusableAnswer(f"a diagnosis has exactly the keys {list(DIAGNOSIS_KEYS)}; missing or unknown: {odd}")
    for key, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise UnusableAnswer(f"the diagnosis field {key!r} must be a text that is not empty, got {value!r}")
        try:
            value.encode()
        except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair, which no file in UTF-8 can hold
            raise UnusableAnswer(f"the diagnosis field {key!r} has half of a surrogate pair: {value!r}") from error
    diagnosis = Diagnosis(**values)
    if len(diagnosis.first_error) > MAX_EXCERPT:
        raise UnusableAnswer(f"first_error has {len(diagnosis.first_error)} characters, at most {MAX_EXCERPT} count")
    last_line = diagnosis.short_correct_reasoning.rstrip().rsplit("\n", 1)[-1]
    if last_line != f"#### {gold_number(gold)}":
        raise UnusableAnswer(f"short_correct_reasoning must end in '#### {gold_number(gold)}', got {last_line!r}")
    return diagnosis


def locate_excerpt(response: str, excerpt: str) -> tuple[int, int] | None:
    """Where f_err stands in o^-: response[start:end]; None where it does not (ambiguity A43).

    The first exact place; else the first that differs in spaces and in marks (`$`, `**`, `\\(`, a backtick) only; else
    the part that is most like it, by a difflib ratio above 0.8 of what is neither space nor mark.
    """
    wanted, _ = _shown(excerpt)
    if not wanted:
        return None
    exact = response.find(excerpt.strip())
    if exact >= 0:
        return exact, exact + len(excerpt.strip())
    shown, places = _shown(response)
    start = shown.find(wanted)
    found = (start, start + len(wanted)) if start >= 0 else _most_alike(shown, places, wanted)
    return (places[found[0]], places[found[1] - 1] + 1) if found else None


def _shown(text: str) -> tuple[str, list[int]]:
    """The text without spaces and marks, and where each of its characters stands."""
    places = [match.start() for match in _SHOWN.finditer(text) if match[1]]
    return "".join(text[place] for place in places), places


def _most_alike(shown: str, places: Sequence[int], wanted: str) -> tuple[int, int] | None:
    """The part of `shown` that is most like `wanted`, from the start of a word to the last character they share.

    Parts as long as `wanted` are compared first, since what else they hold is soon bounded; the best one's neighbours
    then without their ends. A word begins where a space or a mark was left out.
    """
    starts = [at for at, place in enumerate(places) if at == 0 or places[at - 1] < place - 1]
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    best, nearest = MIN_LIKENESS, None
    for start in starts:
        matcher.set_seq1(shown[start : start + len(wanted)])
        if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best and matcher.ratio() > best:
            best, nearest = matcher.ratio(), start
    if nearest is None:
        return None
    parts = []
    for start in [start for start in starts if abs(start - nearest) <= NEIGHBOURS]:
        matcher.set_seq1(shown[start : start + len(wanted)])
        shared = matcher.get_matching_blocks()[:-1]  # the last one is empty
        end = max((block.a + block.size for block in shared), default=0)
        matcher.set_seq1(shown[start : start + end])
        parts.append((matcher.ratio(), -start, start + end))
    _, start, end = max(parts)
    return -start, end


def correct_prefix(response: str, first_error: str) -> str | None:
    """p_pre of Eq. 18: the part of o^- before f_err; None where f_err is not to be found."""
    located = locate_excerpt(response, first_error)
    return response[: located[0]].strip() if located else None


def has_repair(response: str, diagnosis: Diagnosis) -> bool:
    """Whether the diagnosis gives a repair sample: its excerpt is located in the response."""
    return locate_excerpt(response, diagnosis.first_error) is not None


def diagnostic_example(problem: Problem, response: str, diagnosis: Diagnosis, prompts: Prompts) -> SFTExample:
    """Eq. (18), D_diag: (q, o^-) -> (c_err, f_err, w_err), as JSON in the order of Figure 14."""
    target = {
        "error_type": diagnosis.error_type,
        "first_error": diagnosis.first_error,
        "why_wrong": diagnosis.why_wrong,
    }
    messages = diagnose_student_messages(prompts, problem, response)
    answer = Message("assistant", json.dumps(target, ensure_ascii=False))
    return SFTExample(problem.id, ExampleKind.DIAGNOSTIC, (*messages, answer))


def repair_example(problem: Problem, response: str, diagnosis: Diagnosis, prompts: Prompts) -> SFTExample | None:
    """Eq. (18), D_repair: (q, p_pre, f_err, h_fix) -> s_next; None where there is no p_pre (ambiguity A43)."""
    prefix = correct_prefix(response, diagnosis.first_error)
    if prefix is None:
        return None
    messages = repair_messages(prompts, problem, prefix, diagnosis.first_error, diagnosis.minimal_fix)
    return SFTExample(
        problem.id, ExampleKind.REPAIR, (*messages, Message("assistant", diagnosis.correct_next_step.strip()))
    )


def new_trace_example(problem: Problem, diagnosis: Diagnosis, prompts: Prompts) -> SFTExample:
    """Eq. (18), D_new: q -> c_new, which ends in `#### a*`."""
    answer = Message("assistant", diagnosis.short_correct_reasoning.strip())
    return SFTExample(problem.id, ExampleKind.NEW, (*student_messages(prompts, problem), answer))


def recycled_set(problem: Problem, response: str, diagnosis: Diagnosis, prompts: Prompts) -> list[SFTExample]:
    """Eq. (19) for one failed problem: D_rec = D_diag, D_repair and D_new together (ambiguity A45).

    Without D_repair where the excerpt is not located in the response (ambiguity A43).
    """
    repair = repair_example(problem, response, diagnosis, prompts)
    return [
        diagnostic_example(problem, response, diagnosis, prompts),
        *([] if repair is None else [repair]),
        new_trace_example(problem, diagnosis, prompts),
    ]


def next_sft_set(acquisition: Sequence[SFTExample], recycled: Sequence[SFTExample]) -> list[SFTExample]:
    """Eq. (20): D_SFT^(t+1) = D_acq union D_rec^(t); in the first iteration nothing is recycled yet."""
    return [*acquisition, *recycled]
