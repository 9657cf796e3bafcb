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

from reference.engines.distributed import Process
from reference.interfaces import Share
from reference.records import OfProblem, from_json, to_json

Record = TypeVar("Record")
ProblemRecord = TypeVar("ProblemRecord", bound=OfProblem)
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
    """Raises ValueError where a line is not such a record, with the file's name."""
    with open(path, encoding="utf-8") as file:
        try:
            return [from_json(record_type, line) for line in file]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


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


class RecordLog(Generic[ProblemRecord]):
    """A stage's output while it grows: finished items by problem id, on disk as soon as they are added.

    Each process appends the items of its share to a file of its own; what earlier processes left behind, however many
    they were, is taken up by all.
    """

    def __init__(self, path: Path, record_type: type[ProblemRecord], process: Process, share: Share):
        self.path = path
        self.record_type = record_type
        self.process = process
        self.share = share
        self.partial = path.with_name(f"{path.name}.{share.index}.partial" if share.index else f"{path.name}.partial")
        # All processes begin with what the main one sees: a shared disk may show them different things for a while.
        self.records: dict[str, ProblemRecord] = process.on_main(self._left_behind)
        self._added: dict[str, ProblemRecord] = {}

    def _partials(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}*.partial"))

    def _left_behind(self) -> dict[str, ProblemRecord]:
        """What earlier processes finished; half a line behind the last newline, where one was killed, is cut off.

        Raises:
            ValueError: a whole line is no such record.
        """
        records: dict[str, ProblemRecord] = {}
        if self.path.exists():  # finished before its stage was
            records = {record.problem_id: record for record in read_records(self.path, self.record_type)}
        for partial in self._partials():
            content = partial.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                with open(partial, "r+b") as file:
                    file.truncate(whole)
            lines = content[:whole].split(b"\n")[:-1]  # splitlines() would cut at other signs too
            for number, line in enumerate(lines, start=1):
                try:
                    record = from_json(self.record_type, line.decode("utf-8"))
                except ValueError as error:
                    raise ValueError(
                        f"{partial} is damaged in line {number} ({error}); delete that line, its item is done again"
                    ) from error
                records[record.problem_id] = record
        return records

    def __contains__(self, problem_id: str) -> bool:
        return problem_id in self.records

    def add(self, records: Iterable[ProblemRecord]) -> None:
        """Append what is not there yet."""
        new = {record.problem_id: record for record in records if record.problem_id not in self.records}
        if self.share.writes:
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            with open(self.partial, "a", encoding="utf-8") as file:
                file.write(to_lines(new.values()))
        self._added.update(new)
        self.records.update(new)

    def finish(self) -> list[ProblemRecord]:
        """All records of all processes, sorted by problem id; the partial files become the final one."""
        for others in reversed(self.process.gather(self._added)):  # all have what was left behind
            self.records.update(others)
        records = [self.records[problem_id] for problem_id in sorted(self.records)]
        self.process.on_main(lambda: write_records(self.path, records))
        self.partial.unlink(missing_ok=True)
        self.process.on_main(self._remove_partials)
        return records

    def _remove_partials(self) -> None:
        """Those of earlier launches, of whatever size."""
        for partial in self._partials():
            partial.unlink(missing_ok=True)


class StepLog:
    """A training stage's metrics: one row a step, on disk as far as the state that the stage can go on from.

    All processes have the same rows; the main one writes them.
    """

    def __init__(self, path: Path, num_steps: int, process: Process, tracked_as: str = ""):
        """Take up the first `num_steps` rows; later ones belong to steps that will be done again.

        New rows go to the run's tracker too, under names that begin with `tracked_as`.
        """
        self.tracked_as = tracked_as or path.stem
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.process = process
        self.rows: list[dict] = process.on_main(lambda: self._read(num_steps)) if num_steps else []

    def _read(self, num_steps: int) -> list[dict]:
        with open(self.partial if self.partial.exists() else self.path, encoding="utf-8") as file:
            return [json.loads(next(file)) for _ in range(num_steps)]

    def add(self, row: Mapping[str, float]) -> None:
        """One more step, in memory. A row has the number of its `step`."""
        self.rows.append(dict(row))
        numbers = {name: value for name, value in row.items() if name != "step"}
        self.process.track(self.tracked_as, numbers, int(row["step"]))

    def flush(self) -> None:
        """Put all rows on disk; call it before the state is saved."""
        self.process.on_main(lambda: write_whole(self.partial, self._text()))

    def finish(self) -> list[dict]:
        """All rows; the partial file becomes the final one."""
        self.process.on_main(self._put_in_place)
        return self.rows

    def _put_in_place(self) -> None:
        write_whole(self.path, self._text())
        self.partial.unlink(missing_ok=True)

    def _text(self) -> str:
        return "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
