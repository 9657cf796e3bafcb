"""The teacher T as a chat model behind an OpenAI-compatible endpoint.

Each verb asks with Appendix D's prompt, checks the answer, and asks again where it is of no use. Every answer is
recorded before it is read, and an identical call is answered from the record: a run that was interrupted goes on
without paying twice, and what it makes does not depend on which answer came first.
"""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from reference.engines.chat_endpoint import ChatEndpoint, RefusedCall
from reference.engines.chat_protocol import REFUSALS, Answer
from reference.engines.recorded_calls import Call, RecordedCalls, Usage
from reference.interfaces import UnusableAnswer
from reference.paper import prompts as words
from reference.paper.answers import extract_answer, is_correct
from reference.paper.bridge import JUDGE_SCORES, check_rewritten, processed_trace
from reference.paper.recycling import DIAGNOSIS_KEYS, parse_diagnosis
from reference.records import Message, Problem

Value = TypeVar("Value")

TEMPLATE_TOKENS = 64  # at most: what a chat template adds to a call's messages
_SCORE = re.compile(r"([01](?:\.[0-9]{1,2})?)\.?")
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```", re.DOTALL | re.IGNORECASE)
_SCHEMA = {
    "type": "object",
    "properties": {key: {"type": "string"} for key in DIAGNOSIS_KEYS},
    "required": list(DIAGNOSIS_KEYS),
    "additionalProperties": False,
}
# How a diagnosis is held to its form, the strictest first; an endpoint that does not know one is asked with the next.
JSON_FORMATS = (
    {"type": "json_schema", "json_schema": {"name": "diagnosis", "strict": True, "schema": _SCHEMA}},
    {"type": "json_object"},
    None,
)


@dataclass(frozen=True)
class ChatSettings:
    """An endpoint and how it is asked. Fields as in TeacherConfig; `timeout` is in seconds."""

    base_url: str
    model: str
    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 4096
    attempts: int = 3
    concurrency: int = 32
    timeout: float = 120.0
    retries: int = 6
    max_calls: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class Question:
    """What is asked. `variant` tells traces of one problem apart; `attempt` counts the answers that were of no use."""

    verb: str
    problem_id: str
    messages: tuple[Message, ...]
    variant: int = 0
    attempt: int = 0
    as_json: bool = False


class ChatTeacher:
    """Implements `interfaces.Teacher`. Threads may ask together; one event loop in the background makes all calls.

    A verb raises UnusableAnswer when `attempts` answers were of no use, BudgetSpent when the next call could exceed
    the budget, ValueError when the endpoint cannot be asked like this, and ConnectionError when a call has failed
    `retries` + 1 times. After each of these the run can go on where it stopped.
    """

    def __init__(self, settings: ChatSettings, prompts: words.Prompts, folder: Path, writer: int = 0, writers: int = 1):
        """Answers are kept in `folder`: those of this process, one of `writers`, in `calls-<writer>.jsonl`.

        The folder is not touched before the first call.

        Raises:
            ValueError: no key in OPENAI_API_KEY, an address that is none.
        """
        self.settings = settings
        self.concurrency = settings.concurrency
        self._prompts = prompts
        self._endpoint = ChatEndpoint(settings.base_url, settings.timeout, settings.retries)
        self._recording = (folder, writer, writers, settings.max_calls, settings.max_tokens)
        self._recorded: RecordedCalls | None = None
        self._strictest = len(JSON_FORMATS)  # the strictest form that was answered so far
        self._in_flight: dict[str, asyncio.Task[Call]] = {}
        self._is_closed = False
        self._gate = threading.Lock()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._released = asyncio.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="teacher", daemon=True)
        self._thread.start()

    def solve(self, problem: Problem, attempt: int = 0) -> str:
        """Eq. 4: a trace that ends in the gold answer and states no other."""

        def check(text: str) -> None:
            if not is_correct(text, problem.gold):
                raise UnusableAnswer(f"the trace answers {extract_answer(text)}, the gold answer is {problem.gold}")
            processed_trace([text], problem.gold)

        messages = words.solve_messages(self._prompts, problem)
        return self._text(Question("solve", problem.id, messages, variant=attempt), check)

    def importance(self, problem: Problem, trace: str, trace_without_step: str, step: str) -> float:
        """Eq. 5."""
        messages = words.importance_messages(self._prompts, problem, trace, trace_without_step, step)
        return self._asked(Question("importance", problem.id, messages), read_score)

    def jumpiness(self, problem: Problem, context: str, step: str) -> float:
        """Eq. 7."""
        messages = words.jumpiness_messages(self._prompts, problem, context, step)
        return self._asked(Question("jumpiness", problem.id, messages), read_score)

    def expand(self, problem: Problem, context: str, step: str, later: Sequence[str]) -> str:
        """Algorithm 1, line 21."""
        question = Question("expand", problem.id, words.expand_messages(self._prompts, problem, context, step))
        known = f"{problem.question}\n{context}"
        return self._text(question, lambda text: check_rewritten(step, text, later, known))

    def compress(self, step: str) -> str:
        """Algorithm 1, line 15."""
        question = Question("compress", "", words.compress_messages(self._prompts, step))
        return self._text(question, lambda text: check_rewritten(step, text))

    def localize(self, problem: Problem, context: str, step: str, later: Sequence[str]) -> str:
        """Algorithm 1, line 26."""
        question = Question("localize", problem.id, words.localize_messages(self._prompts, problem, context, step))
        known = f"{problem.question}\n{context}"
        return self._text(question, lambda text: check_rewritten(step, text, later, known))

    def diagnose(self, problem: Problem, response: str) -> str:
        """Eq. 16: JSON text that `parse_diagnosis` accepts, without a fence that encloses it (ambiguity A44)."""

        def read(text: str) -> str:
            fenced = _FENCED.fullmatch(text.strip())
            diagnosis = fenced[1] if fenced else text
            parse_diagnosis(diagnosis, problem.gold)
            return diagnosis

        messages = words.recycling_messages(self._prompts, problem, response)
        return self._asked(Question("diagnose", problem.id, messages, as_json=True), read)

    def usage(self) -> Usage:
        """Calls, replays and tokens of this process so far."""
        counted = self._recorded.usage() if self._recorded else Usage()
        return replace(counted, resent=self._endpoint.resent)

    def _records(self) -> RecordedCalls:
        """Opened by the first call, all of which are made in one thread. Raises ValueError for a damaged recording."""
        if self._recorded is None:
            self._recorded = RecordedCalls(*self._recording)
        return self._recorded

    def close(self) -> None:
        """End what is still in flight, and the background thread; a thread that asks from now on is told so."""
        with self._gate:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._recorded:
            self._recorded.close()

    async def _end(self) -> None:
        calls = list(self._in_flight.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._endpoint.close()

    def _text(self, question: Question, check: Callable[[str], None]) -> str:
        def read(text: str) -> str:
            check(text)
            return text

        return self._asked(question, read)

    def _asked(self, question: Question, read: Callable[[str], Value]) -> Value:
        """The first answer that can be read. Raises UnusableAnswer with the last reason why none can."""
        for attempt in range(self.settings.attempts):
            call = self._submitted(replace(question, attempt=attempt)).result()
            try:
                _check_whole(call, self.settings.max_new_tokens)
                return read(call.content)
            except UnusableAnswer as error:
                reason = str(error)
        raise UnusableAnswer(
            f"{question.verb}: none of {self.settings.attempts} answers is of use, the last one since {reason}"
        )

    def _submitted(self, question: Question) -> Future[Call]:
        with self._gate:  # behind the last coroutine that `close` hands over, the loop would never come to another
            if self._is_closed:
                raise ConnectionError("the teacher is closed and asks nothing more")
            return asyncio.run_coroutine_threadsafe(self._called(question), self._loop)

    async def _called(self, question: Question) -> Call:
        """The recorded answer if there is one; else the endpoint's, once for all who ask the same at a time."""
        keys = [self._key(question, form) for form in (JSON_FORMATS if question.as_json else (None,))]
        for key in keys:  # the form in which it was answered then may be another than the first that is tried now
            recorded = self._records().find(key)
            if recorded is not None:
                return recorded
        if keys[0] in self._in_flight:
            call = await asyncio.shield(self._in_flight[keys[0]])
            self._records().count_replayed()
            return call
        task = asyncio.create_task(self._answered(question))
        self._in_flight[keys[0]] = task
        task.add_done_callback(lambda _: self._in_flight.pop(keys[0]))
        return await asyncio.shield(task)

    async def _answered(self, question: Question) -> Call:
        """Ask the endpoint when a slot and the budget are free, and record the answer."""
        settings = self.settings
        size = sum(len(message.content.encode("utf-8", "replace")) for message in question.messages)
        at_most = size + TEMPLATE_TOKENS + settings.max_new_tokens  # no token is shorter than a byte
        async with self._slots:
            await self._reserve(at_most)
            try:
                answer, form = await self._answer(question)
                if settings.max_tokens is not None and None in (answer.tokens_read, answer.tokens_written):
                    raise ValueError(
                        f"the teacher at {settings.base_url} does not say how many tokens a call takes, so that "
                        "--teacher.max-tokens cannot be kept; give --teacher.max-calls instead"
                    )
                call = Call(
                    self._key(question, form),
                    question.verb,
                    question.problem_id,
                    question.attempt,
                    answer.content,
                    answer.finish_reason,
                    answer.tokens_read or 0,
                    answer.tokens_written or 0,
                )
                self._records().add(call)
                return call
            finally:
                async with self._released:
                    self._records().release(at_most)
                    self._released.notify_all()

    async def _reserve(self, at_most: int) -> None:
        async with self._released:
            while not self._records().reserve(at_most):
                await self._released.wait()

    async def _answer(self, question: Question) -> tuple[Answer, Mapping | None]:
        """The endpoint's answer in the strictest form that it takes for this question, and that form."""
        if not question.as_json:
            return await self._endpoint.answer(self._body(question, None)), None
        # A form that was once answered is known here: what is refused in it later is refused for the question's sake.
        first = 0 if self._strictest == len(JSON_FORMATS) else self._strictest
        for at, form in enumerate(JSON_FORMATS[first:], start=first):
            try:
                answer = await self._endpoint.answer(self._body(question, form))
            except RefusedCall:
                if form is None:
                    raise
                continue  # it may be the form that is refused
            self._strictest = min(self._strictest, at)
            return answer, form
        raise AssertionError("the last form is none at all")

    def _body(self, question: Question, form: Mapping | None) -> dict[str, object]:
        body = {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in question.messages],
            "temperature": self.settings.temperature,
            "top_p": self.settings.top_p,
            "max_tokens": self.settings.max_new_tokens,
        }
        return body if form is None else {**body, "response_format": form}

    def _key(self, question: Question, form: Mapping | None) -> str:
        """What makes a call the call it is: all that is sent, and which answer to it is wanted."""
        asked = [self._body(question, form), question.variant, question.attempt]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def read_score(text: str) -> float:
    """One of the five scores, as `0.5`, `0.50` or `1.0`, blanks around it and a full stop behind it allowed.

    Raises:
        UnusableAnswer: anything else, a score within a sentence included.
    """
    match = _SCORE.fullmatch(text.strip())
    if match is None or float(match[1]) not in JUDGE_SCORES:
        raise UnusableAnswer(
            f"a score is one of {', '.join(f'{score:g}' for score in JUDGE_SCORES)}, got {text[:80]!r}"
        )
    return float(match[1])


def _check_whole(call: Call, max_new_tokens: int) -> None:
    """Raises UnusableAnswer where the model was cut off, was kept from speaking or said nothing."""
    if call.finish_reason == "length":
        raise UnusableAnswer(f"it was cut off after {max_new_tokens} tokens (--teacher.max-new-tokens)")
    if call.finish_reason in REFUSALS:
        raise UnusableAnswer(f"the endpoint refuses to speak of it ({call.finish_reason})")
    if not call.content.strip():
        raise UnusableAnswer("it is empty")
