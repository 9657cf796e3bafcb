"""Files: whole or not at all, and JSONL that survives being killed.

A stage appends finished items to `NAME.partial` and sorts them into `NAME` when all are there. A restart skips what is
there.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from reference.records import from_json, to_json

Record = TypeVar("Record")
# What makes a checkpoint folder the model it is: weights, configuration, tokenizer, chat template.
CHECKPOINT_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_json(path: Path) -> dict:
    """Raises ValueError where the file holds no JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete its folder, or take another --out") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is damaged (no JSON object); delete its folder, or take another --out")
    return values


def write_records(path: Path, records: Iterable) -> None:
    """One record a line, in the order given."""
    write_whole(path, to_lines(records))


def to_lines(records: Iterable) -> str:
    """JSONL as text."""
    return "".join(to_json(record) + "\n" for record in records)


def read_records(path: Path, record_type: type[Record]) -> list[Record]:
    """Raises ValueError where a line is not such a record."""
    with open(path, encoding="utf-8") as file:
        return [from_json(record_type, line) for line in file]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; of a checkpoint folder, of its files by name. Raises ValueError where nothing is."""
    if path.is_dir():
        digest = hashlib.sha256()
        for part in sorted(part for part in path.iterdir() if part.suffix in CHECKPOINT_FILES):
            digest.update(f"{part.name} {file_hash(part)}\n".encode())
        return digest.hexdigest()
    if not path.exists():
        raise ValueError(f"{path} is gone; --redo the stage that made it, or take another --out")
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
            file.write(to_lines(new))
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
