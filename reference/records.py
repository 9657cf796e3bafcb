"""Every record that crosses a stage boundary. Frozen; JSON in and out, one record a line.

A record never changes meaning on its way: a reward stays a reward, an accuracy stays an accuracy.
"""

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar

import cattrs

Record = TypeVar("Record")

# The readings that a setting chooses between, the default first (`config.ReadingsConfig` says what they are).
ScoresAfter = Literal["original", "processed"]
LocalSamples = Literal["continuation", "own_turn"]
LaterSFT = Literal["union", "phases"]
SFTMean = Literal["responses", "tokens"]


class OfProblem(Protocol):
    """Any record about one problem."""

    @property
    def problem_id(self) -> str:
        """The problem's id."""


def _exactly(value: object, kind: type) -> object:
    """A value of just this type: a record is read as it was written, nothing is converted on the way."""
    if kind is float and type(value) is int:
        return float(value)  # JSON knows one kind of number
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, got {value!r}")
    return value


_converter = cattrs.Converter(forbid_extra_keys=True)
for _kind in (str, int, float, bool):
    _converter.register_structure_hook(_kind, _exactly)


class AnswerKind(StrEnum):
    """What a gold answer is, and so how a response is judged (ambiguity A48).

    An exact decimal; a decimal that was rounded or computed in floating point; a LaTeX expression; an option's letter.
    """

    NUMBER = "number"
    ROUNDED = "rounded"
    LATEX = "latex"
    LETTER = "letter"


@dataclass(frozen=True)
class Problem:
    """A question q with its gold answer a*. `solution` is the data set's own worked solution, if it has one."""

    id: str
    question: str
    gold: str
    solution: str = ""
    kind: AnswerKind = AnswerKind.NUMBER


@dataclass(frozen=True)
class Completion:
    """One response o_i as it was sampled: the token ids are the truth, the text is for reading.

    `finished` is true when the model ended its turn itself; the end-of-turn id is then the last of `token_ids`.
    False means that the token limit cut it off. `logprobs`, where they were asked for, are the sampler's own, in nats.
    """

    token_ids: tuple[int, ...]
    text: str
    finished: bool
    logprobs: tuple[float, ...] | None = None

    def known_logprobs(self) -> tuple[float, ...]:
        """The log-probabilities of a response that was sampled with them."""
        assert self.logprobs is not None, "sampled without log-probabilities (Sampling.with_logprobs)"
        return self.logprobs


@dataclass(frozen=True)
class RolloutGroup:
    """The G responses to one problem with their rewards, in sample order."""

    problem_id: str
    responses: tuple[Completion, ...]
    rewards: tuple[float, ...]


class DifficultyGroup(StrEnum):
    """Section 3.1's partition of the training set."""

    SIMPLE = "simple"
    MEDIUM = "medium"
    HARD = "hard"


@dataclass(frozen=True)
class Graded:
    """A problem's difficulty for the base model. `accuracy` is rho(q) of Eq. 3 (rho of Eq. 24 is `ratio`)."""

    problem_id: str
    num_samples: int
    num_correct: int
    num_truncated: int
    accuracy: float
    group: DifficultyGroup


@dataclass(frozen=True)
class Trace:
    """A teacher's reasoning trace C, and its length in the student's tokens."""

    problem_id: str
    text: str
    num_tokens: int
    num_steps: int


class Action(StrEnum):
    """The five Bridge operations."""

    KEEP = "keep"
    EXPAND = "expand"
    COMPRESS = "compress"
    DROP = "drop"
    LOCALIZE = "localize"


@dataclass(frozen=True)
class StepScores:
    """I_i and J_i in {0, 0.25, 0.5, 0.75, 1}; D_i in nats per token."""

    importance: float
    jumpiness: float
    difficulty: float


@dataclass(frozen=True)
class Thresholds:
    """tau_I, tau_J (Appendix C.1: both 0.5) and tau_D in nats per token (Table 8: measured per base model)."""

    importance: float
    jumpiness: float
    difficulty: float


@dataclass(frozen=True)
class BridgedStep:
    """One pass of Algorithm 1's inner loop. `rewritten` is None when the step was dropped.

    `context`: the processed steps before it (line 9), which Expand, Localize and the local sample have.
    """

    original: str
    context: str
    scores: StepScores
    action: Action
    rewritten: str | None
    is_local: bool


@dataclass(frozen=True)
class BridgedTrace:
    """C~ as one text, and every step on the way to it."""

    problem_id: str
    text: str
    steps: tuple[BridgedStep, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Eq. 17, in the paper's order: f_err, c_err, w_err, k_miss, h_fix, s_next, c_new."""

    first_error: str
    error_type: str
    why_wrong: str
    missing_knowledge: str
    minimal_fix: str
    correct_next_step: str
    short_correct_reasoning: str


@dataclass(frozen=True)
class Diagnosed:
    """A failed problem, its near miss o^- (Eq. 34) with the score it won by, and the teacher's diagnosis of it."""

    problem_id: str
    response: str
    near_miss_score: float
    diagnosis: Diagnosis


@dataclass(frozen=True)
class Rejected:
    """An item that a stage had to leave out, and why. Never replaced by a guess."""

    problem_id: str
    reason: str


class ExampleKind(StrEnum):
    """Where an SFT example comes from: Eqs. 11-13 and 18; TRACE is a teacher's trace of any group (Appendix A.1)."""

    TRACE = "trace"
    MEDIUM = "medium"
    BRIDGE = "bridge"
    LOCAL = "local"
    DIAGNOSTIC = "diagnostic"
    REPAIR = "repair"
    NEW = "new"


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class SFTExample:
    """One supervised sample (Table 5: field `messages`); the last message is the assistant's.

    y of Eq. 21 is that message from character `supervised_from` on; what precedes it there is part of x, the
    assistant's own words so far (a local sample, ambiguity A20). `ends_turn`: y ends with the token that ends the turn.
    """

    problem_id: str
    kind: ExampleKind
    messages: tuple[Message, ...]
    supervised_from: int = 0
    ends_turn: bool = True

    @property
    def target(self) -> str:
        """y as text."""
        return self.messages[-1].content[self.supervised_from :]


@dataclass(frozen=True)
class Evaluated:
    """One test problem with its greedy response."""

    problem_id: str
    response: str
    correct: bool
    has_answer: bool


@dataclass(frozen=True)
class Sampled:
    """One test problem for pass@k: of its n samples, c are correct."""

    problem_id: str
    num_samples: int
    num_correct: int


@dataclass(frozen=True)
class Evaluation:
    """One line of eval/results.jsonl. `pass_at_8` is None where only greedy decoding was done."""

    stage: str
    benchmark: str
    num_problems: int
    num_correct: int
    accuracy: float
    format_rate: float
    pass_at_8: float | None = None


for _names in (AnswerKind, DifficultyGroup, Action, ExampleKind):
    _converter.register_structure_hook(_names, lambda value, names: names(value))


def to_json(record: Any) -> str:
    """One line of JSON, without a newline; what is None by default and still None is left out."""
    optional = {field.name for field in fields(record) if field.default is None}
    values = {name: value for name, value in asdict(record).items() if value is not None or name not in optional}
    return json.dumps(values, ensure_ascii=False, allow_nan=False)


def from_json(record_type: type[Record], line: str) -> Record:
    """The inverse of `to_json`.

    Raises:
        ValueError: the line is not JSON, or not this record: an unknown, a missing or a mistyped field.
    """
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")
        return _converter.structure(values, record_type)
    except (ValueError, cattrs.BaseValidationError) as error:
        reason = "; ".join(cattrs.transform_error(error)) if isinstance(error, cattrs.BaseValidationError) else error
        raise ValueError(f"not a {record_type.__name__} record: {reason}, in {line[:80]!r}") from error
