"""Files: a run's folder, its stages' receipts, and JSONL that survives being killed.

A stage appends finished items to `NAME.partial`, sorts them into `NAME` when all are there, and is done when its
`receipt.json` says so. A restart skips what is there. Folders and files appear whole, by rename.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from reference.records import from_json, to_json

Record = TypeVar("Record")
RECEIPT = "receipt.json"


class NothingMoreToDo(Exception):
    """All stages that `--stages` asked for are done."""


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def write_records(path: Path, records: Iterable) -> None:
    """One record a line, in the order given."""
    write_whole(path, "".join(to_json(record) + "\n" for record in records))


def read_records(path: Path, record_type: type[Record]) -> list[Record]:
    """Raises ValueError where a line is not such a record."""
    with open(path, encoding="utf-8") as file:
        return [from_json(record_type, line) for line in file]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; of a checkpoint folder, of its weights."""
    if path.is_dir():
        digest = hashlib.sha256()
        for part in sorted(path.glob("*.safetensors")):
            digest.update(file_hash(part).encode())
        return digest.hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RecordLog(Generic[Record]):
    """A stage's output while it grows: finished items by problem id, on disk as soon as they are added."""

    def __init__(self, path: Path, record_type: type[Record]):
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.record_type = record_type
        self.records: dict[str, Record] = {}
        if path.exists():  # finished before its stage was
            self.records = {record.problem_id: record for record in read_records(path, record_type)}
        if self.partial.exists():
            self._read_partial()

    def _read_partial(self) -> None:
        """Take every whole line; what a kill cut off behind the last newline is thrown away."""
        content = self.partial.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with open(self.partial, "r+b") as file:
                file.truncate(len(whole))
        for line in whole.decode("utf-8").split("\n")[:-1]:  # splitlines() would cut at other signs too
            record = from_json(self.record_type, line)
            self.records[record.problem_id] = record

    def __contains__(self, problem_id: str) -> bool:
        return problem_id in self.records

    def add(self, records: Iterable[Record]) -> None:
        """Append what is not there yet."""
        new = [record for record in records if record.problem_id not in self.records]
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        with open(self.partial, "a", encoding="utf-8") as file:
            file.write("".join(to_json(record) + "\n" for record in new))
        self.records.update({record.problem_id: record for record in new})

    def finish(self) -> list[Record]:
        """All records, sorted by problem id; the partial file becomes the final one."""
        ordered = [self.records[problem_id] for problem_id in sorted(self.records)]
        write_records(self.path, ordered)
        self.partial.unlink(missing_ok=True)
        return ordered


class StepLog:
    """A training stage's metrics: one row a step, on disk as far as the state that the stage can go on from."""

    def __init__(self, path: Path, num_steps: int):
        """Take up the first `num_steps` rows; later ones belong to steps that will be done again."""
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.rows: list[dict] = []
        if num_steps:
            with open(self.partial if self.partial.exists() else path, encoding="utf-8") as file:
                self.rows = [json.loads(next(file)) for _ in range(num_steps)]

    def add(self, row: Mapping[str, object]) -> None:
        """One more step, in memory."""
        self.rows.append(dict(row))

    def flush(self) -> None:
        """Put all rows on disk; call it before the state is saved."""
        write_whole(self.partial, self._text())

    def finish(self) -> list[dict]:
        """All rows; the partial file becomes the final one."""
        write_whole(self.path, self._text())
        self.partial.unlink(missing_ok=True)
        return self.rows

    def _text(self) -> str:
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)


class StageFolder:
    """One stage's folder. `is_done` means that its receipt is there and its outputs can be read."""

    def __init__(self, path: Path, name: str, settings: Mapping[str, object], say: Callable[[str], None]):
        self.path = path
        self.name = name
        self._say = say
        self._started = time.monotonic()
        self._receipt_path = path / RECEIPT
        self._receipt = {"stage": name, "done": False, "settings": dict(settings), "inputs": {}}
        self.is_done = False

    def begin(self, inputs: Mapping[str, Path]) -> None:
        """Take up the stage: see whether it is done, and that what it was begun with is what it is asked for now.

        Raises:
            ValueError: an input has changed since the stage began.
        """
        self._receipt["inputs"] = {name: file_hash(path) for name, path in sorted(inputs.items())}
        if not self._receipt_path.exists():
            write_whole(self._receipt_path, _pretty(self._receipt))
            return
        before = json.loads(self._receipt_path.read_text())
        for name, digest in self._receipt["inputs"].items():
            if before["inputs"].get(name) != digest:
                raise ValueError(
                    f"stage {self.name} was begun with another {name} than is there now; "
                    f"run it again with --redo {self.name}, or take another --out"
                )
        self.is_done = before["done"]
        if self.is_done:
            self._say(f"{self.name:<26} kept from before ({_counted(before['counts'])})")

    def log(self, file_name: str, record_type: type[Record]) -> RecordLog[Record]:
        """The growing output `file_name` of this stage."""
        return RecordLog(self.path / file_name, record_type)

    def finish(self, counts: Mapping[str, object], note: str = "") -> None:
        """Write the receipt and say the stage's line, with a note where there is something to say."""
        seconds = round(time.monotonic() - self._started, 1)
        write_whole(
            self._receipt_path, _pretty({**self._receipt, "done": True, "counts": dict(counts), "seconds": seconds})
        )
        self.is_done = True
        self._say(f"{self.name:<26} {_counted(counts)} · {seconds:.1f} s{note and ' · ' + note}")


class RunFolder:
    """`runs/<name>`: which stages are there, which are wanted, and with which settings it was begun."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, object],
        plan: Sequence[str],
        *,
        wanted: Sequence[str] = (),
        redo: str | None = None,
        say: Callable[[str], None] = print,
    ):
        self.path = path
        self.problems_path = path / "problems.jsonl"
        self.benchmarks_path = path / "benchmarks.jsonl"
        self.settings = json.loads(json.dumps(settings))  # as they come back from a file
        self.plan = list(plan)
        self.say = say
        self.wanted = [name for name in self.plan if _selected(name, wanted)] if wanted else self.plan
        self._check_names(wanted, redo)
        self._check_settings(redo)
        if redo:
            self._forget_from(redo)
        write_whole(path / "config.json", _pretty(self.settings))

    def _check_names(self, wanted: Sequence[str], redo: str | None) -> None:
        for pattern in [*wanted, *([redo] if redo else [])]:
            if not any(_selected(name, [pattern]) for name in self.plan):
                raise ValueError(f"there is no stage {pattern!r}; the stages of this run are {', '.join(self.plan)}")

    def _check_settings(self, redo: str | None) -> None:
        """A run goes on with the settings it was begun with; `--redo` frees those that no kept stage has read."""
        path = self.path / "config.json"
        if not path.exists():
            return
        before = json.loads(path.read_text())
        kept = self.plan[: self._first(redo)] if redo else []
        bound = (
            {name for stage in kept for name in self._receipt_settings(stage)} if redo else {*before, *self.settings}
        )
        for name in sorted(bound):
            if before.get(name) != self.settings.get(name):
                raise ValueError(
                    f"{self.path} was begun with {name} = {before.get(name)!r}, and is now asked for "
                    f"{self.settings.get(name)!r}: take another --out, or --redo the first stage that shall use it"
                )

    def _receipt_settings(self, stage: str) -> list[str]:
        path = self.path / stage / RECEIPT
        return list(json.loads(path.read_text())["settings"]) if path.exists() else []

    def _first(self, pattern: str) -> int:
        return next(at for at, name in enumerate(self.plan) if _selected(name, [pattern]))

    def _forget_from(self, redo: str) -> None:
        for name in self.plan[self._first(redo) :]:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def keep(self, file_name: str, records: Iterable) -> Path:
        """Put the run's own copy of its input records into the folder.

        Raises:
            ValueError: the run was begun with other records.
        """
        path, text = self.path / file_name, "".join(to_json(record) + "\n" for record in records)
        if not path.exists():
            write_whole(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ValueError(f"{path} holds other records than this run is now given; take another --out")
        return path

    def stage(self, name: str, reads: Sequence[str], inputs: Mapping[str, Path]) -> StageFolder:
        """Take up a stage. `reads`: the settings, or sections of settings, that it depends on.

        Raises:
            NothingMoreToDo: this stage and all after it were not asked for.
            ValueError: it was not asked for, is not done, and a stage that was asked for comes after it.
        """
        assert name in self.plan, f"{name} is not in the plan {self.plan}"
        settings = {key: value for key, value in self.settings.items() if _selected(key.replace(".", "/"), reads)}
        stage = StageFolder(self.path / name, name, settings, self.say)
        if name not in self.wanted and not self.is_done(name):
            later = [other for other in self.wanted if self.plan.index(other) > self.plan.index(name)]
            if not later:
                raise NothingMoreToDo
            raise ValueError(f"stage {later[0]} needs {name}, which is not done yet; add it to --stages")
        stage.begin(inputs)
        return stage

    def wants(self, name: str) -> bool:
        """Whether an optional stage (an evaluation) was asked for or is there already."""
        return name in self.wanted or self.is_done(name)

    def is_done(self, name: str) -> bool:
        """Whether the stage's receipt says so."""
        path = self.path / name / RECEIPT
        return path.exists() and json.loads(path.read_text())["done"]


def _selected(name: str, patterns: Sequence[str]) -> bool:
    """`iter1` selects `iter1` and all of `iter1/...`."""
    return any(name == pattern or name.startswith(pattern.rstrip("/") + "/") for pattern in patterns)


def _pretty(values: Mapping[str, object]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _counted(counts: Mapping[str, object]) -> str:
    return ", ".join(f"{value} {name}" for name, value in counts.items())
