"""An OpenAI-compatible endpoint: one call in, one answer out, sent again where it failed. The only file with openai.

openai's own way of sending again is switched off: it does not keep to every `Retry-After` and cannot be seen.
"""

import asyncio
import os
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from reference.engines.chat_protocol import (
    MOST_PATIENCE,
    REFUSALS,
    Answer,
    FailedCall,
    error_code,
    error_text,
    read_answer,
    seconds_to_wait,
    without_key,
)

try:
    import openai
except ImportError as error:
    raise ValueError(f"the chat teacher needs the package openai ({error}); pip install '.[teacher]'") from error

KEY_VARIABLE = "OPENAI_API_KEY"
# Seconds between the starts of two calls. Calls that start as one also end as one, and then wait for each other's
# handling here (1.4 ms): 32 calls of 100 ms at a time kept the endpoint 0.89 busy without a gap, 0.94 with one.
START_GAP = 0.002
SENT_AGAIN = (408, 409, 425, 429)  # and every status from 500 on


class RefusedCall(ValueError):
    """The endpoint does not take a call like this one (400 or 422)."""


class ChatEndpoint:
    """One address, one key. All methods but the constructor belong to one event loop."""

    def __init__(self, base_url: str, timeout: float, retries: int):
        """`timeout` is in seconds, for a call as a whole; a failed one is sent again at most `retries` times.

        Raises:
            ValueError: no key in OPENAI_API_KEY, or an address that is none.
        """
        _check_address(base_url)
        self.base_url = base_url
        self.resent = 0
        self._next_start = 0.0
        self._key = _key_from_environment()
        self._timeout = timeout
        self._retries = retries
        self._jitter = random.Random()  # waiting is no part of the run's randomness
        self._client = openai.AsyncOpenAI(api_key=self._key, base_url=base_url, timeout=timeout, max_retries=0)

    async def answer(self, body: Mapping[str, object]) -> Answer:
        """The answer to a call, which may be a refusal to speak of this item; the key is taken out where it is echoed.

        Raises:
            RefusedCall: the endpoint cannot read the call.
            ValueError: it cannot be asked at all, with what to change.
            ConnectionError: the call failed each time.
        """
        resends = 0
        while True:
            try:
                return await self._sent(body)
            except FailedCall as failure:
                reason = without_key(str(failure), self._key)[:200]
                wait = seconds_to_wait(failure.retry_after, resends, self._jitter.random(), datetime.now(UTC))
            if wait > MOST_PATIENCE:
                reason += f", and it asks to be left alone for {wait:.0f} seconds"
            if resends == self._retries or wait > MOST_PATIENCE:
                raise ConnectionError(
                    f"the teacher at {self.base_url} gave no answer to a call that was sent {resends + 1} times; "
                    f"the last time: {reason}"
                )
            resends += 1
            self.resent += 1
            await asyncio.sleep(wait)

    async def _sent(self, body: Mapping[str, object]) -> Answer:
        """Send a call once. Raises FailedCall where it may be sent again, and otherwise as `answer`."""
        await self._turn()
        try:
            async with asyncio.timeout(self._timeout):  # the client's own is for each read
                text = await self._client.post("/chat/completions", body=dict(body), cast_to=str)
        except TimeoutError:
            raise FailedCall(f"no answer in {self._timeout:g} seconds (--teacher.timeout)") from None
        except openai.APIConnectionError as error:
            raise FailedCall(f"{error} {error.__cause__ or ''}".strip()) from None
        except openai.APIStatusError as error:
            return self._answer_of_error(error)
        answer = read_answer(without_key(text, self._key))
        return replace(answer, content=without_key(answer.content, self._key))  # it may have been escaped in the text

    async def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        start = max(now, self._next_start)
        self._next_start = start + START_GAP
        if start > now:
            await asyncio.sleep(start - now)

    def _answer_of_error(self, error: openai.APIStatusError) -> Answer:
        """An empty answer where the endpoint refuses to speak of this item; raises whatever the status means else."""
        status, said = error.status_code, without_key(error_text(error.body), self._key)[:200]
        code = error_code(error.body)
        if status in SENT_AGAIN or status >= 500:
            raise FailedCall(f"{status}: {said}", error.response.headers.get("retry-after")) from None
        if status == 400 and code in REFUSALS:
            return Answer("", code, 0, 0)
        where = f"the teacher at {self.base_url}"
        if status in (401, 403):
            raise ValueError(f"{where} does not accept the key in {KEY_VARIABLE} ({status}: {said})") from None
        if status == 404:
            raise ValueError(
                f"{where} has no such model or address ({status}: {said}); check --teacher.model and --teacher.base-url"
            ) from None
        kind = RefusedCall if status in (400, 422) else ValueError
        raise kind(
            f"{where} refuses the call ({status}: {said}); check the settings that begin with --teacher"
        ) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _check_address(base_url: str) -> None:
    """Raises ValueError for what is no address, and for one with a password, which it does not repeat."""
    if "@" in base_url:
        raise ValueError(
            "--teacher.base-url must have no name or password (NAME:PASSWORD@) in it: the run's files keep it; "
            f"the key belongs in {KEY_VARIABLE}"
        )
    try:
        parts = urlsplit(base_url)
        has_host = bool(parts.hostname) and base_url.isprintable() and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        has_host = False
    if not has_host or not base_url.startswith(("http://", "https://")) or "/chat/completions" in base_url:
        raise ValueError(
            "--teacher.base-url must begin with http:// or https:// and end before /chat/completions, "
            f"as http://localhost:8000/v1 does, got {base_url!r}"
        )


def _key_from_environment() -> str:
    """The key, without the newline that a file may have left behind it. Raises ValueError, never with the key in it."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise ValueError(
            f"the chat teacher needs a key: set {KEY_VARIABLE}, to any word for a server of your own that wants none"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError(f"the key in {KEY_VARIABLE} has a space or a sign in it that no key has; set it anew")
    return key
