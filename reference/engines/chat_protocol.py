"""What the replies of an OpenAI-compatible endpoint mean: an answer, a call to be sent again, or the end of the run."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_WAIT = 1.0  # seconds before a call is sent again for the first time, doubled each time
LONGEST_WAIT = 60.0  # where the endpoint names no time itself
MOST_PATIENCE = 600.0  # an endpoint that wants to be left alone for longer stops the run
SECRET_LENGTH = 8  # shorter keys, as in OPENAI_API_KEY=EMPTY for a server of one's own, are no secret
REFUSALS = ("content_filter", "data_inspection_failed", "context_length_exceeded")  # codes that are about one item only
CONTEXT_WORDS = ("context length", "context size", "context window")  # in the message of servers without that code


class FailedCall(Exception):
    """A call that brought no answer and may be sent again, after `retry_after` if the endpoint says so."""

    def __init__(self, reason: str, retry_after: str | None = None):
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Answer:
    """What the model wrote. `finish_reason` is `stop` if it ended by itself; tokens as the endpoint counts them."""

    content: str
    finish_reason: str
    tokens_read: int | None
    tokens_written: int | None


def read_answer(body: str) -> Answer:
    """The first choice of a chat completion.

    Raises:
        FailedCall: the body is no chat completion, but half of one, a web page or an error.
    """
    try:
        reply = json.loads(body)
        choice = reply["choices"][0]
        content, refusal = choice["message"].get("content"), choice["message"].get("refusal")
        usage = reply.get("usage") or {}
        tokens = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        finish_reason = choice.get("finish_reason") or "stop"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise FailedCall(f"a reply that is no chat completion: {body[:80]!r}") from None
    if not isinstance(content, str | None) or not all(isinstance(count, int | None) for count in tokens):
        raise FailedCall(f"a reply that is no chat completion: {body[:80]!r}")
    reason = "content_filter" if refusal and not content else str(finish_reason)
    return Answer(_writable(content or ""), reason, *tokens)


def _writable(text: str) -> str:
    """JSON may escape half of a surrogate pair, which no file in UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def seconds_to_wait(retry_after: str | None, resends: int, chance: float, now: datetime) -> float:
    """How long to wait before a call is sent again for the (resends + 1)-th time.

    As long as `Retry-After` says (seconds, or a date), else 1, 2, 4 ... seconds; `chance`, from 0 to 1, adds up to a
    second to the one and takes up to half of the other, so that calls that failed together do not return together.
    """
    asked = _asked_wait(retry_after, now)
    if asked is not None:
        return asked + chance * min(1.0, FIRST_WAIT)
    return min(LONGEST_WAIT, FIRST_WAIT * 2**resends) * (1 - chance / 2)


def _asked_wait(retry_after: str | None, now: datetime) -> float | None:
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.replace(".", "", 1).isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # neither a number nor a date: as if it were not there
        return None
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def without_key(text: str, key: str) -> str:
    """The text without the key, which an endpoint may echo."""
    return text.replace(key, "[key]") if len(key) >= SECRET_LENGTH else text


def error_text(body: object) -> str:
    """The message in an error's body, or the body itself; the key is still in it, if it was."""
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(message or error or "no message").split())


def error_code(body: object) -> str:
    """The code in an error's body, such as `context_length_exceeded`; empty if it has none.

    That one is also read from the message of a server that has no codes, unless the message blames `max_tokens`, which
    is the same in every call.
    """
    error = body.get("error", body) if isinstance(body, dict) else None
    code = str(error.get("code") or "") if isinstance(error, dict) else ""
    message = error_text(body).lower()
    if code not in REFUSALS and "max_tokens" not in message and any(words in message for words in CONTEXT_WORDS):
        return "context_length_exceeded"
    return code
