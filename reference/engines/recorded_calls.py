"""A teacher's answered calls: on disk as soon as they are answered, never made twice, and counted against a budget.

`calls-<writer>.jsonl` has one answer a line, in the order in which they came. Each process writes a file of its own and
reads all, so that a run that goes on, in however many processes, pays for nothing again.
"""

import threading
from dataclasses import dataclass
from pathlib import Path

from reference.records import from_json, to_json


class BudgetSpent(ValueError):
    """The next call could exceed the budget. What was answered is recorded, and the run can go on from it."""


@dataclass(frozen=True)
class Call:
    """One answered call. `key` says what was asked; `content` is the answer as it came, of use or not."""

    key: str
    verb: str
    problem_id: str
    attempt: int
    content: str
    finish_reason: str
    tokens_read: int
    tokens_written: int


@dataclass(frozen=True)
class Usage:
    """What this process has done.

    `calls` were answered by the endpoint, `replayed` ones by an earlier answer; `resent` counts what was sent again.
    """

    calls: int = 0
    replayed: int = 0
    tokens_read: int = 0
    tokens_written: int = 0
    resent: int = 0


class RecordedCalls:
    """The answers in a folder, and what is left of the budget. Threads may use it together.

    `max_calls` and `max_tokens` count whatever is in the folder. What is left of them when a process starts is divided
    among the `writers` that start with it; each call in flight counts as made, with all the tokens it might take.
    """

    def __init__(
        self,
        folder: Path,
        writer: int = 0,
        writers: int = 1,
        max_calls: int | None = None,
        max_tokens: int | None = None,
    ):
        """Raises ValueError for a damaged recording."""
        folder.mkdir(parents=True, exist_ok=True)
        self._limits = (max_calls, max_tokens)
        self._writers = writers
        self._lock = threading.Lock()
        self._answers: dict[str, Call] = {}
        self._spent_calls = self._spent_tokens = 0
        self._reserved_calls = self._reserved_tokens = 0
        self._usage = Usage()
        own = folder / f"calls-{writer}.jsonl"
        # Two processes may both have asked what two problems have in common: each goes on with its own answer.
        for path in sorted(folder.glob("calls-*.jsonl"), key=lambda path: (path == own, path.name)):
            for call in _whole_lines(path, mend=path == own):
                self._answers[call.key] = call
                self._spent_calls += 1
                self._spent_tokens += call.tokens_read + call.tokens_written
        self._max_calls = _share(max_calls, self._spent_calls, writers)
        self._max_tokens = _share(max_tokens, self._spent_tokens, writers)
        self._file = open(own, "a", encoding="utf-8")  # noqa: SIM115  # until `close`

    def find(self, key: str) -> Call | None:
        """The answer to a call that was made before; it is counted as replayed."""
        with self._lock:
            call = self._answers.get(key)
            if call is not None:
                self._count(replayed=1)
            return call

    def reserve(self, max_tokens: int) -> bool:
        """Set a call aside that takes at most so many tokens; False: not before a call in flight has ended.

        Raises:
            BudgetSpent: not even then.
        """
        with self._lock:
            calls, tokens = self._spent_calls + 1, self._spent_tokens + max_tokens
            if self._max_calls is not None and calls > self._max_calls:
                raise BudgetSpent(self._sentence(f"has answered {self._spent_calls} calls", "max-calls"))
            if self._max_tokens is not None and tokens > self._max_tokens:
                taken = f"has taken {self._spent_tokens} tokens and the next call may take {max_tokens}"
                raise BudgetSpent(self._sentence(taken, "max-tokens"))
            if self._max_calls is not None and calls + self._reserved_calls > self._max_calls:
                return False
            if self._max_tokens is not None and tokens + self._reserved_tokens > self._max_tokens:
                return False
            self._reserved_calls += 1
            self._reserved_tokens += max_tokens
            return True

    def _sentence(self, taken: str, option: str) -> str:
        limit = self._limits[0] if option == "max-calls" else self._limits[1]
        shared = f", shared by {self._writers} processes" if self._writers > 1 else ""
        return (
            f"the teacher {taken}, and --teacher.{option} is {limit}{shared}; all answers are kept, and the run "
            f"goes on with the same command and a larger --teacher.{option}"
        )

    def release(self, max_tokens: int) -> None:
        """Undo `reserve`, once the call has been added or has failed."""
        with self._lock:
            self._reserved_calls -= 1
            self._reserved_tokens -= max_tokens

    def add(self, call: Call) -> None:
        """Write an answer down, before anything is done with it.

        The line is with the operating system when this returns, so that it outlives the process; waiting for the disk
        as well would take longer than many a call.
        """
        with self._lock:
            self._file.write(to_json(call) + "\n")
            self._file.flush()
            self._answers[call.key] = call
            self._spent_calls += 1
            self._spent_tokens += call.tokens_read + call.tokens_written
            self._count(calls=1, tokens_read=call.tokens_read, tokens_written=call.tokens_written)

    def count_replayed(self) -> None:
        """One more call was answered by another one's answer."""
        with self._lock:
            self._count(replayed=1)

    def _count(self, calls: int = 0, replayed: int = 0, tokens_read: int = 0, tokens_written: int = 0) -> None:
        usage = self._usage
        self._usage = Usage(
            usage.calls + calls,
            usage.replayed + replayed,
            usage.tokens_read + tokens_read,
            usage.tokens_written + tokens_written,
        )

    def usage(self) -> Usage:
        """What was counted so far."""
        return self._usage

    def close(self) -> None:
        """Close the recording."""
        self._file.close()


def _share(limit: int | None, spent: int, writers: int) -> int | None:
    """What one of the writers may bring the total to if the others did nothing."""
    return None if limit is None else spent + max(0, limit - spent) // writers


def _whole_lines(path: Path, mend: bool) -> list[Call]:
    """The recorded calls, without what a kill left behind the last newline; to mend is to take that out of the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if mend and len(whole) < len(content):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
    try:
        return [from_json(Call, line) for line in whole.decode("utf-8").split("\n")[:-1]]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); mend or delete that line, its answer is asked again") from error
