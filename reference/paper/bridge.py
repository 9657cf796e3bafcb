"""Section 3.2 and Appendix C.1: Bridge makes a teacher's trace of a hard problem learnable (Eqs. 4-13, Algorithm 1).

Text in, text out: the teacher and the student's step scorer come in as arguments, so that Algorithm 1 needs no model.
"""

import math
import re
from collections.abc import Collection, Sequence
from itertools import pairwise

from reference.interfaces import StepScorer, Teacher, UnusableAnswer
from reference.paper.answers import gold_number, is_answer_line, stated_answers
from reference.paper.prompts import Prompts, next_step_messages, student_messages
from reference.records import (
    Action,
    BridgedStep,
    BridgedTrace,
    ExampleKind,
    LaterSFT,
    LocalSamples,
    Message,
    Problem,
    ScoresAfter,
    SFTExample,
    StepScores,
    Thresholds,
    Trace,
)

JUDGE_SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)

# Where a unit begins, the strongest sign first (ambiguity A21): a heading, `Step 3:`, `3.`, a paragraph.
_UNIT_STARTS = (
    re.compile(r"^(?= {0,3}#{1,6}[ \t]+\S)", re.MULTILINE),
    re.compile(r"^(?= {0,3}[*_]{0,2}Step[ \t]+[0-9]+\b)", re.MULTILINE | re.IGNORECASE),
    re.compile(r"^(?= {0,3}[*_]{0,2}[0-9]+[.)][*_]{0,2}[ \t])", re.MULTILINE),
    re.compile(r"\n[ \t\r]*\n\s*"),
)

# What a rewritten step may not take from a later one.
MIN_SENTENCE = 20  # characters
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(?=.*[^\W\d_])(.+)$", re.MULTILINE)  # with a word in it: no answer line
_LABEL = re.compile(r"^[ \t]*+[#*_]*+[ \t]*+[*_]*+Step[ \t]++([0-9]+)\b[*_]*+[:.]?", re.MULTILINE | re.IGNORECASE)
_NUMBER = r"(?:[0-9]++(?:\.[0-9]++)?+|\.[0-9]++)%?+"
_EQUATION = re.compile(  # not in the middle of a longer calculation, nor with one as its result
    rf"(?<![\w.)*/+-])(?<![*/+-] ){_NUMBER}(?:[ )]*+[-+*/][( ]*+{_NUMBER})+[ )]*+="
    rf" *+{_NUMBER}(?!\w|[ \t]*[-+*/][ \t]*[0-9(])"
)
_FRACTION = re.compile(r"\\[dt]?frac\{([0-9.,]+)\}\{([0-9.,]+)\}")
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_PLAIN = str.maketrans({"$": None, "\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-", "\u00b7": "*"})
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+")


def split_steps(trace: str) -> list[str]:
    """Eq. (4): C = [s_1, ..., s_m], the trace cut into coherent reasoning units.

    Lossless: `"".join(split_steps(trace)) == trace`. Cuts at headings; without two units then at numbered steps; else
    at blank lines. The `#### answer` line belongs to the unit before it. An empty trace has no steps.
    """
    for starts in _UNIT_STARTS:
        units = _cut(trace, [match.end() for match in starts.finditer(trace)])
        if len(units) > 1:
            return units
    return [trace] if trace else []


def _cut(trace: str, starts: Sequence[int]) -> list[str]:
    """Cut at the starts that begin a unit: not before the first or behind the last word, not at an answer line."""
    inner = [at for at in starts if trace[:at].strip() and trace[at:].strip()]
    starts = [at for at in inner if not is_answer_line(trace[at:].split("\n", 1)[0])]
    bounds = [0, *starts, len(trace)]
    return [trace[begin:end] for begin, end in pairwise(bounds)]


def importance_score(problem: Problem, trace: str, steps: Sequence[str], index: int, teacher: Teacher) -> float:
    """Eq. (5): I_i = J_imp(q, a*, C, C without s_i, s_i), on the original trace (ambiguity A15)."""
    without_step = "".join([*steps[:index], *steps[index + 1 :]])
    return _judged(teacher.importance(problem, trace, without_step, steps[index]))


def previous_context(steps: Sequence[str]) -> str:
    """Eq. (6): P_i = [s_1, ..., s_{i-1}] as one text. Line 9 of Algorithm 1 takes processed steps (ambiguity A14)."""
    return "".join(steps).strip()


def jumpiness_score(problem: Problem, context: str, step: str, teacher: Teacher) -> float:
    """Eq. (7): J_i = J_jump(q, P_i, s_i); 0 without asking where P_i is empty, as for s_1 (ambiguity A58)."""
    return _judged(teacher.jumpiness(problem, context, step)) if context else 0.0


def _judged(score: float) -> float:
    if score not in JUDGE_SCORES:
        raise UnusableAnswer(f"the judge's score must be one of {JUDGE_SCORES}, got {score!r}")
    return float(score)


def mean_nll(logprobs: Sequence[float]) -> float:
    """Eq. (8): D_i = -(1/|s_i|) sum_t log pi_theta(s_{i,t} | q, P_i, s_{i,<t}), in nats per token.

    Raises:
        ValueError: the step has no tokens.
    """
    if len(logprobs) == 0:
        raise ValueError("a step's difficulty needs at least one token, got an empty step")
    return -math.fsum(logprobs) / len(logprobs)


def choose_action(scores: StepScores, thresholds: Thresholds) -> tuple[Action, bool]:
    """Algorithm 1, lines 11-29: the operation for one step, and whether it adds a local sample.

    A score equal to its threshold is not above it (ambiguity A17).

    Raises:
        ValueError: a score or a threshold is NaN, which would choose an action by accident.
    """
    numbers = (scores.importance, scores.jumpiness, scores.difficulty)
    limits = (thresholds.importance, thresholds.jumpiness, thresholds.difficulty)
    if any(math.isnan(number) for number in (*numbers, *limits)):
        raise ValueError(f"scores and thresholds must be numbers, got {scores} and {thresholds}")
    jumpy = scores.jumpiness > thresholds.jumpiness
    difficult = scores.difficulty > thresholds.difficulty
    if scores.importance <= thresholds.importance:  # line 11
        return (Action.DROP, False) if jumpy or difficult else (Action.COMPRESS, False)
    if not jumpy and not difficult:  # line 18
        return Action.KEEP, False
    if jumpy:  # line 20; line 22: also local if difficult (ambiguity A18)
        return Action.EXPAND, difficult
    return Action.LOCALIZE, True


def apply_action(
    action: Action, problem: Problem, context: str, step: str, teacher: Teacher, later: Sequence[str] = ()
) -> str | None:
    """Eq. (9): s~_i = B(s_i; I_i, J_i, D_i, q, P_i); None for a dropped step.

    Raises:
        UnusableAnswer: what the teacher wrote is not this step (`check_rewritten`).
    """
    if action is Action.KEEP:
        return step
    if action is Action.DROP:
        return None
    if action is Action.COMPRESS:
        rewritten = teacher.compress(step)
    elif action is Action.EXPAND:
        rewritten = teacher.expand(problem, context, step, later)
    else:
        rewritten = teacher.localize(problem, context, step, later)
    check_rewritten(step, rewritten, later, known=f"{problem.question}\n{context}")
    separator = step[len(step.rstrip()) :]
    return rewritten.strip() + separator


def check_rewritten(step: str, rewritten: str, later: Sequence[str] = (), known: str = "") -> None:
    """Whether a rewritten step is still this step: not empty, no other final answer, nothing of the `later` steps.

    Of a later step it may have no heading, no `Step N` label, no equation and no sentence of 20 characters, unless the
    step itself or what is `known` (question and context) has it. A final answer that got lost comes back with
    `processed_trace`.

    Raises:
        UnusableAnswer: naming what is wrong.
    """
    about = f"the step {step.strip()[:60]!r}"
    if not rewritten.strip():
        raise UnusableAnswer(f"the teacher rewrote to an empty text {about}")
    added = set(stated_answers(rewritten)) - set(stated_answers(step))
    if added:
        raise UnusableAnswer(
            f"the teacher wrote the final answer #### {min(added)} into {about}, which does not state it"
        )
    said = "\n".join([step, known])
    for name, parts in (("heading", _headings), ("equation", _equations)):
        leaked = set().union(*(parts(text) for text in later)) & parts(rewritten) - parts(said)
        if leaked:
            raise UnusableAnswer(f"the teacher wrote the {name} {min(leaked)!r} of a later step into {about}")
    for sentence in [sentence for text in later for sentence in _sentences(text)]:
        if _squeezed(sentence) in _squeezed(rewritten) and _squeezed(sentence) not in _squeezed(said):
            raise UnusableAnswer(f"the teacher wrote the sentence {sentence!r} of a later step into {about}")


def _headings(text: str) -> set[str]:
    """Headings by their words, and `step 3` for a line that begins so. `3.` may be the third of any list: not that."""
    headings = {re.sub(r"\W+", " ", line.lower()).strip() for line in _HEADING.findall(text)}
    return {*headings, *(f"step {int(number)}" for number in _LABEL.findall(text))}


def _equations(text: str) -> set[str]:
    """`48 / 2 = $1,024` as `48/2=1024`; calculations with numbers alone."""
    plain = _FRACTION.sub(r"\1/\2", text.translate(_PLAIN).replace("{,}", ","))
    plain = plain.replace("\\times", "*").replace("\\cdot", "*").replace("\\div", "/")
    return {_squeezed(found) for found in _EQUATION.findall(_THOUSANDS.sub("", plain))}


def _sentences(text: str) -> list[str]:
    """The sentences of 20 characters or more, without labels and answer lines."""
    lines = [_LABEL.sub("", line) for line in text.split("\n") if not is_answer_line(line)]
    sentences = [sentence.strip(" \t\r#*_:.") for line in lines for sentence in _SENTENCE_END.split(line)]
    return [sentence for sentence in sentences if len(sentence) >= MIN_SENTENCE]


def _squeezed(text: str) -> str:
    return "".join(text.split())


def processed_trace(processed: Sequence[str], gold: str) -> str:
    """Eq. (10): C~ = [s~_1, ..., s~_m'] as one text that ends in `#### a*`, as the verifier reads it (ambiguity A19).

    Raises:
        UnusableAnswer: a step states another final answer than the gold one, wherever in a line.
    """
    text = "".join(processed).strip()
    answer_line = f"#### {gold_number(gold)}"
    for answer in stated_answers(text):
        if answer != gold_number(gold):
            raise UnusableAnswer(f"the trace states #### {answer}, but the gold answer is {gold}")
    lines = text.split("\n")
    if sum(map(is_answer_line, lines)) == 1 and lines[-1] == answer_line:
        return "\n".join(lines)
    body = "\n".join(line for line in lines if not is_answer_line(line)).rstrip()
    return f"{body}\n\n{answer_line}".lstrip()


def bridge_trace(
    problem: Problem,
    trace: str,
    teacher: Teacher,
    scorer: StepScorer,
    thresholds: Thresholds,
    without: Collection[Action] = (),
    scores_after: ScoresAfter = "original",
) -> BridgedTrace:
    """Algorithm 1, lines 5-33, for one hard problem: steps are processed in order, each in sight of the processed ones.

    J_i and D_i are measured after the trace's own steps (Eq. 6, line 10), or after the `processed` ones of line 9,
    which are what Expand and Localize see in either case (ambiguity A14). In place of an operation in `without` a step
    is kept as it is, and adds no local sample (Table 2, ambiguity A55).

    Raises:
        UnusableAnswer: a judge's score is not one of the five, a rewritten step is empty or changes the final answer.
        ValueError: the trace has no steps.
    """
    originals = split_steps(trace)
    if not trace.strip():
        raise ValueError(f"the trace of problem {problem.id} is empty; distil it again")
    own_nlls = scorer.step_nlls(problem, originals) if scores_after == "original" else None
    processed: list[str] = []  # line 6: C~
    bridged: list[BridgedStep] = []
    for index, step in enumerate(originals):
        context = previous_context(processed)  # line 9
        if own_nlls is not None:  # P_i of Eq. 6
            before, difficulty = previous_context(originals[:index]), own_nlls[index]
        else:  # of line 9
            written = ["".join(processed)] if processed else []
            before, difficulty = context, scorer.step_nlls(problem, [*written, step])[-1]
        scores = StepScores(  # line 10
            importance=importance_score(problem, trace, originals, index, teacher),
            jumpiness=jumpiness_score(problem, before, step, teacher),
            difficulty=difficulty,
        )
        action, adds_local = choose_action(scores, thresholds)  # lines 11-29
        if action in without:
            action, adds_local = Action.KEEP, False
        rewritten = apply_action(action, problem, context, step, teacher, originals[index + 1 :])
        if rewritten is not None:  # lines 30-32
            processed.append(rewritten)
        bridged.append(BridgedStep(step, context, scores, action, rewritten, adds_local))
    return BridgedTrace(problem.id, processed_trace(processed, problem.gold), tuple(bridged))


def full_example(problem: Problem, text: str, kind: ExampleKind, prompts: Prompts) -> SFTExample:
    """q -> a whole trace that ends in `#### a*`."""
    return SFTExample(problem.id, kind, (*student_messages(prompts, problem), Message("assistant", text)))


def bridge_examples(
    problem: Problem, bridged: BridgedTrace, prompts: Prompts, local_samples: LocalSamples = "continuation"
) -> list[SFTExample]:
    """Eq. (11) for one problem (Algorithm 1, lines 34-35): (q, C~, a*), and each local sample (q, P_i, s~_i)."""
    examples = [full_example(problem, bridged.text, ExampleKind.BRIDGE, prompts)]
    written = ""  # C~ before the step, blank lines included
    for step, text in zip(bridged.steps, _texts_in_trace(bridged), strict=True):
        if step.is_local and local_samples == "continuation":
            examples.append(_continuation(problem, bridged.text, written, text, prompts))
        elif step.is_local:
            examples.append(_own_turn(problem, step, prompts))
        written += text
    return examples


def _texts_in_trace(bridged: BridgedTrace) -> list[str]:
    """What C~ has of each step; nothing of a dropped one. An answer line stands where C~ has it (ambiguity A19)."""
    texts = [step.rewritten or "" for step in bridged.steps]
    if "".join(texts).strip() == bridged.text:
        return texts
    last = max((at for at, text in enumerate(texts) if text), default=0)
    has_answer = any(map(is_answer_line, texts[last].split("\n")))
    texts = ["\n".join(line for line in text.split("\n") if not is_answer_line(line)) for text in texts]
    before = "".join(texts[:last])
    if has_answer and bridged.text.startswith(before):
        texts[last] = bridged.text[len(before) :]
    return texts


def _continuation(problem: Problem, whole: str, written: str, step: str, prompts: Prompts) -> SFTExample:
    """(q, P_i, s~_i) in the layout of Eq. 8: s~_i is what the assistant writes next, after its own words so far.

    Without the end of the turn, unless C~ ends with this step (ambiguity A20).
    """
    is_last = (written + step).strip() == whole
    said = (written + step).rstrip() if is_last else written + step
    messages = (*student_messages(prompts, problem), Message("assistant", said))
    return SFTExample(problem.id, ExampleKind.LOCAL, messages, supervised_from=len(written), ends_turn=is_last)


def _own_turn(problem: Problem, step: BridgedStep, prompts: Prompts) -> SFTExample:
    """(q, P_i) -> s~_i as a chat of its own, whose prompt asks for the next step alone (ambiguity A20)."""
    assert step.rewritten is not None
    messages = next_step_messages(prompts, problem, step.context)
    return SFTExample(problem.id, ExampleKind.LOCAL, (*messages, Message("assistant", step.rewritten.strip())))


def bridge_set(
    problems: Sequence[Problem],
    bridged: Sequence[BridgedTrace],
    prompts: Prompts,
    local_samples: LocalSamples = "continuation",
) -> list[SFTExample]:
    """Eq. (11): D_bridge over all hard problems that have a bridged trace, local samples included (Appendix C.1)."""
    by_id = {problem.id: problem for problem in problems}
    return [
        example
        for trace in bridged
        for example in bridge_examples(by_id[trace.problem_id], trace, prompts, local_samples)
    ]


def medium_set(problems: Sequence[Problem], traces: Sequence[Trace], prompts: Prompts) -> list[SFTExample]:
    """D_medium of Eq. 12: the teacher's traces of medium problems, not bridged."""
    by_id = {problem.id: problem for problem in problems}
    return [full_example(by_id[trace.problem_id], trace.text, ExampleKind.MEDIUM, prompts) for trace in traces]


def acquisition_set(medium: Sequence[SFTExample], bridge: Sequence[SFTExample]) -> list[SFTExample]:
    """Eq. (12): D_acq = D_medium union D_bridge (disjoint: a problem is medium or hard)."""
    return [*medium, *bridge]


def training_order(
    examples: Sequence[SFTExample], iteration: int, later_sft: LaterSFT = "union"
) -> list[tuple[str, list[SFTExample]]]:
    """Eq. (13): the initial SFT goes D_medium -> D_bridge, in two phases; a later one is one union (Eqs. 20, 21).

    `phases`: a later one too goes in order, with what was recycled last (ambiguity A29).
    """
    if iteration > 1 and later_sft == "union":
        return [("union", list(examples))]
    phases = {
        "1_medium": (ExampleKind.MEDIUM,),
        "2_bridge": (ExampleKind.BRIDGE, ExampleKind.LOCAL),
        "3_recycled": (ExampleKind.DIAGNOSTIC, ExampleKind.REPAIR, ExampleKind.NEW),
    }
    if iteration == 1:
        recycled = phases.pop("3_recycled")
        assert not any(e.kind in recycled for e in examples), "nothing is recycled before the first iteration"
    return [(name, [e for e in examples if e.kind in kinds]) for name, kinds in phases.items()]
