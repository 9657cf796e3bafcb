"""A run's folder: which stages are done, with which settings and inputs, and what may be done again.

A stage is done when its `receipt.json` says so. Whatever is thrown away is first renamed, whole, so that a run that is
killed at any moment finds a folder it can go on from.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from reference.engines.artifacts import (
    ProblemRecord,
    RecordLog,
    StepLog,
    file_hash,
    read_json,
    to_lines,
    write_whole,
)
from reference.engines.distributed import Process
from reference.interfaces import Share

RECEIPT = "receipt.json"
ELSEWHERE = "elsewhere.json"
FORGOTTEN = ".forgotten"
STATE = "state.pt"
NOT_OUTPUTS = (RECEIPT, STATE)


class NothingMoreToDo(Exception):
    """All stages that `--stages` asked for are done."""


class StageFolder:
    """One stage's folder. `is_done` means that its receipt says so; `counts` are then those it ended with.

    The main process alone reads and writes the receipt; the others are told.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        settings: Mapping[str, object],
        say: Callable[[str], None],
        process: Process,
        tracked_as: str = "",
    ):
        self.path = path
        self.name = name
        self.tracked_as = tracked_as or name
        self.process = process
        self.state_path = path / STATE
        self._say = say
        self._started = time.monotonic()
        self._receipt_path = path / RECEIPT
        self._receipt: dict[str, Any] = {"stage": name, "done": False, "settings": dict(settings), "inputs": {}}
        self.is_done = False
        self.counts: dict[str, object] = {}

    def begin(self, inputs: Mapping[str, Path | str]) -> None:
        """Take up the stage: see whether it is done, and that what it was begun with is what it is asked for now.

        Raises:
            ValueError: an input or a setting has changed since the stage began; an output is damaged or gone.
        """
        self.is_done, self.counts = self.process.on_main(lambda: self._begin(inputs))
        if self.is_done:
            self._say(f"{self.name:<27} kept from before ({_counted(self.counts)})")

    def take_from(self, original: Path, inputs: Mapping[str, Path | str]) -> bool:
        """Whether the stage is done in the folder `original`, with these settings and inputs; it is then that one."""
        return self.process.on_main(lambda: self._is_same(original / RECEIPT, inputs)) and self._move(original, inputs)

    def _is_same(self, receipt_path: Path, inputs: Mapping[str, Path | str]) -> bool:
        if not receipt_path.exists():
            return False
        receipt = read_receipt(receipt_path)
        same_settings = receipt["settings"] == self._receipt["settings"]
        return bool(receipt["done"]) and same_settings and receipt["inputs"] == _digests(inputs)

    def _move(self, original: Path, inputs: Mapping[str, Path | str]) -> bool:
        self.path, self.state_path, self._receipt_path = original, original / STATE, original / RECEIPT
        self.is_done, self.counts = self.process.on_main(lambda: self._begin(inputs))
        return self.is_done

    def _begin(self, inputs: Mapping[str, Path | str]) -> tuple[bool, dict[str, object]]:
        self._receipt["inputs"] = _digests(inputs)
        if not self._receipt_path.exists():
            write_whole(self._receipt_path, _pretty(self._receipt))
            return False, {}
        before = read_receipt(self._receipt_path)
        for name, digest in self._receipt["inputs"].items():
            if before["inputs"].get(name) != digest:
                raise ValueError(
                    f"stage {self.name} was begun with another {name} than is there now; "
                    f"run it again with --redo {self.name}, or take another --out"
                )
        for name in sorted({*before["settings"], *self._receipt["settings"]}):
            was, now = before["settings"].get(name), self._receipt["settings"].get(name)
            if was != now:
                raise ValueError(
                    f"stage {self.name} was begun with {name} = {was!r}, and is now asked for {now!r}; "
                    f"run it again with --redo {self.name}, or take another --out"
                )
        if not before["done"]:
            return False, {}
        self._check_outputs(before["outputs"])
        return True, before["counts"]

    def _check_outputs(self, outputs: Mapping[str, str]) -> None:
        for name, digest in outputs.items():
            path = self.path / name
            if not path.exists() or file_hash(path) != digest:
                raise ValueError(f"{path} is not as stage {self.name} left it; make it again with --redo {self.name}")

    def log(
        self, file_name: str, record_type: type[ProblemRecord], share: Share | None = None
    ) -> RecordLog[ProblemRecord]:
        """The growing output `file_name` of this stage; its items are shared out by `share`, or one to a process."""
        return RecordLog(self.path / file_name, record_type, self.process, share or self.process.share)

    def steps(self, file_name: str, num_steps: int) -> StepLog:
        """The metrics of a training stage, from the row behind the first `num_steps` on."""
        return StepLog(self.path / file_name, num_steps, self.process, self.tracked_as)

    def write(self, file_name: str, text: str) -> None:
        """An output that comes whole."""
        self.process.on_main(lambda: write_whole(self.path / file_name, text))

    def warn(self, text: str) -> None:
        """A line for the reader, while the stage goes on."""
        self._say(f"{self.name:<27} {text}")

    def finish(self, counts: Mapping[str, object], note: str = "") -> None:
        """Write the receipt and say the stage's line, with a note where there is something to say."""
        seconds = round(time.monotonic() - self._started, 1)
        self.counts = dict(counts)
        self.process.on_main(lambda: self._write_receipt(seconds))
        self.is_done = True
        self._say(f"{self.name:<27} {_counted(counts)} · {seconds:.1f} s{note and ' · ' + note}")

    def _write_receipt(self, seconds: float) -> None:
        for leftover in self.path.glob("*.unfinished"):  # of a file that a kill or a full disk kept from being written
            leftover.unlink()
        outputs = {path.name: file_hash(path) for path in sorted(self.path.iterdir()) if path.name not in NOT_OUTPUTS}
        ending = {"done": True, "outputs": outputs, "counts": self.counts, "seconds": seconds}
        write_whole(self._receipt_path, _pretty({**self._receipt, **ending}))

    def forget_state(self) -> None:
        """A finished training stage needs its optimizer no more."""
        self.process.on_main(lambda: self.state_path.unlink(missing_ok=True))


class RunFolder:
    """`runs/<name>`: what it was begun with, which stages are there, which are wanted.

    Nothing is written before `take_up`.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, object],
        plan: Sequence[str],
        *,
        wanted: Sequence[str] = (),
        redo: str | None = None,
        free: Sequence[str] = (),
        say: Callable[[str], None] = print,
        process: Process | None = None,
    ):
        """`free` settings change no result and may change while the run goes on.

        Raises:
            ValueError: a stage that does not exist; a setting that a kept stage has read otherwise.
        """
        self.process = process or Process()
        self.free = set(free)
        self.path = path
        self.original: RunFolder | None = None
        self.shared_with: list[Path] = []  # other variants of that run, whose stages a variant may take
        self._folders: dict[str, Path] = {}
        self.problems_path = path / "problems.jsonl"
        self.benchmarks_path = path / "benchmarks.jsonl"
        self.prompts_path = path / "prompts.json"
        self.settings = json.loads(json.dumps(settings))  # as they come back from a file
        self.plan = list(plan)
        self.say = say if self.process.is_main else _silent
        self._check_names(wanted, redo)
        self.wanted = [name for name in self.plan if _selected(name, wanted)] if wanted else self.plan
        self.forgotten = self._to_forget(redo)
        self._check_settings()

    def _check_names(self, wanted: Sequence[str], redo: str | None) -> None:
        for pattern in [*wanted, *([redo] if redo else [])]:
            if not any(_selected(name, [pattern]) for name in self.plan):
                raise ValueError(f"there is no stage {pattern!r}; the stages of this run are {', '.join(self.plan)}")

    def _to_forget(self, redo: str | None) -> list[str]:
        """What `--redo` throws away: the stage and all after it; evaluations alone, since nothing comes of them."""
        chosen = [name for name in self.plan if redo and _selected(name, [redo])]
        if all(name.startswith("eval/") for name in chosen):
            return chosen
        return self.plan[self.plan.index(chosen[0]) :]

    def _check_settings(self) -> None:
        """A run goes on with the settings it was begun with; `--redo` frees those that no kept stage has read."""
        path = self.path / "config.json"
        if not path.exists():
            return
        before = read_json(path)
        bound = {*before, *self.settings} - self.free
        if self.forgotten:
            bound = {name for receipt in self._kept_receipts() for name in receipt["settings"]}
        for name in sorted(bound):
            if before.get(name) != self.settings.get(name):
                raise ValueError(
                    f"{self.path} was begun with {name} = {before.get(name)!r}, and is now asked for "
                    f"{self.settings.get(name)!r}: take another --out, or --redo the first stage that shall use it"
                )

    def _kept_receipts(self) -> Iterator[dict]:
        for name in self.plan:
            path = self.path / name / RECEIPT
            if name not in self.forgotten and path.exists():
                yield read_receipt(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """No other process works in this folder meanwhile. The system frees the lock of a process that was killed.

        Raises:
            ValueError: another process is at work here.
        """
        lock = FileLock(self.path / ".lock")
        self.process.on_main(lambda: self._acquire(lock))
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, lock: FileLock) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ValueError(f"another process is at work in {self.path}; wait for it or take another --out") from error

    def take_up(self, problems: Iterable, benchmarks: Iterable, prompts: object) -> None:
        """Throw away what `--redo` named, and put the run's own copies of settings and input records in the folder.

        Raises:
            ValueError: a kept stage has read other records than these; nothing is thrown away then.
        """
        copies = {
            self.problems_path: to_lines(problems),
            self.benchmarks_path: to_lines(benchmarks),
            self.prompts_path: to_lines([prompts]),
        }
        self.process.on_main(lambda: self._take_up(copies))

    def _take_up(self, copies: Mapping[Path, str]) -> None:
        for path, text in copies.items():
            self._check_copy(path, text)
        self._forget()
        write_whole(self.path / "config.json", _pretty(self.settings))
        for path, text in copies.items():
            write_whole(path, text)

    def _check_copy(self, path: Path, text: str) -> None:
        if not path.exists() or path.read_text(encoding="utf-8") == text:
            return
        digest = file_hash(path)
        if not self.forgotten or any(digest in receipt["inputs"].values() for receipt in self._kept_receipts()):
            raise ValueError(
                f"{path} holds other records than this run is now given; take another --out, or --redo the first stage "
                "that shall use them"
            )

    def _forget(self) -> None:
        """The last stage first, each by rename: whatever a kill leaves is a run up to some stage."""
        for leftover in list(self.path.rglob(f"*{FORGOTTEN}")):
            shutil.rmtree(leftover)
        for name in reversed(self.forgotten):
            folder = self.path / name
            if folder.exists():
                shutil.rmtree(folder.rename(folder.with_name(folder.name + FORGOTTEN)))
        if self.forgotten:
            (self.path / "eval" / "results.jsonl").unlink(missing_ok=True)  # its lines come back with the stages

    def variant(
        self,
        label: str,
        settings: Mapping[str, object],
        plan: Sequence[str],
        wanted: Sequence[str] = (),
        shares: Sequence[str] = (),
    ) -> "RunFolder":
        """This run with other settings or another plan, in `variants/<label>`.

        It has the same records. A stage that comes out as it did here, or in one of the variants it `shares` stages
        with, is not done again: the same settings and inputs give the same stage, and it is the one that lies there.
        """
        made = RunFolder(
            self.path / "variants" / label,
            settings,
            plan,
            wanted=wanted,
            free=tuple(self.free),
            say=lambda line: self.say(f"{label}: {line}"),
            process=self.process,
        )
        made.original = self
        made.shared_with = [self.path / "variants" / other for other in reversed(shares)]
        made.problems_path, made.benchmarks_path = self.problems_path, self.benchmarks_path
        made.prompts_path = self.prompts_path
        return made

    def keep_settings(self) -> None:
        """Write down what the run, or the variant, is bound to."""
        self.process.on_main(lambda: write_whole(self.path / "config.json", _pretty(self.settings)))

    def keep_elsewhere(self) -> None:
        """Write down which stages a variant that is done has from elsewhere, and from where: `elsewhere.json`."""
        found = {name: os.path.relpath(path, self.path) for name, path in self._folders.items()}
        self.process.on_main(lambda: write_whole(self.path / ELSEWHERE, _pretty(found)))

    def folder(self, name: str) -> Path:
        """Where a stage lies that was taken up before: here, or in the run that this one is a variant of."""
        return self._folders.get(name, self.path / name)

    def original_counts(self, name: str) -> dict[str, Any]:
        """What a stage of the run that this is a variant of has counted. Raises ValueError if it is not done."""
        original = self.original
        assert original is not None, f"{self.path} is a variant of no run"
        if not original.is_done(name):
            raise ValueError(f"{self.path} needs {name} of the run in {original.path}, which is not done yet")
        return self.process.on_main(lambda: read_receipt(original.path / name / RECEIPT)["counts"])

    def stage(self, name: str, reads: Sequence[str], inputs: Mapping[str, Path | str]) -> StageFolder:
        """Take up a stage. `reads`: the settings, or sections of settings, that it depends on.

        `inputs`: by name, a file or checkpoint folder, or a text of which the receipt keeps a hash.

        Raises:
            NothingMoreToDo: this stage and all after it were not asked for.
            ValueError: it was not asked for, is not done, and a stage that was asked for comes after it.
        """
        assert name in self.plan, f"{name} is not in the plan {self.plan}"
        settings = {key: self.settings[key] for key in self._read(reads) if key not in self.free}
        tracked_as = f"{self.path.name}/{name}" if self.original else name
        stage = StageFolder(self.path / name, name, settings, self.say, self.process, tracked_as)
        if self.original and any(stage.take_from(folder, inputs) for folder in self._elsewhere(name)):
            self._folders[name] = stage.path
            return stage
        if name not in self.wanted and not self.is_done(name):
            later = [other for other in self.wanted if self.plan.index(other) > self.plan.index(name)]
            if not later:
                raise NothingMoreToDo
            raise ValueError(f"stage {later[0]} needs {name}, which is not done yet; add it to --stages")
        stage.begin(inputs)
        return stage

    def _read(self, reads: Sequence[str]) -> list[str]:
        """The settings that these names mean: `seed`, `grpo.lr`, or `grpo` for all of grpo.*."""
        for name in reads:
            assert any(_is_part_of(key, name) for key in self.settings), f"there is no setting {name}"
        return [key for key in self.settings if any(_is_part_of(key, name) for name in reads)]

    def _elsewhere(self, name: str) -> list[Path]:
        """Where a variant's stage may lie if it is not its own."""
        original = [self.original.folder(name)] if self.original else []
        return [*(variant / name for variant in self.shared_with), *original]

    def wants(self, name: str) -> bool:
        """Whether an optional stage (an evaluation) was asked for or is there already."""
        return name in self.wanted or (name in self.plan and self.is_done(name))

    def is_done(self, name: str) -> bool:
        """Whether the stage's receipt says so."""
        return self.process.on_main(lambda: is_done(self.folder(name)))

    def kept(self, name: str) -> Path | None:
        """A finished stage's folder, before `take_up`: here, or where a variant would take it from; else None."""
        if self.is_done(name) and name not in self.forgotten:
            return self.folder(name)
        found = [folder for folder in self._elsewhere(name) if self.process.on_main(partial(is_done, folder))]
        return found[0] if found else None

    def is_left(self, name: str) -> bool:
        """Whether a stage is still to be run, before `take_up`: asked for, and not done or about to be forgotten."""
        return name in self.wanted and (name in self.forgotten or not self.is_done(name))


def is_done(stage_folder: Path) -> bool:
    """Whether a stage is finished: its receipt says so."""
    path = stage_folder / RECEIPT
    return path.exists() and bool(read_receipt(path)["done"])


def read_receipt(path: Path) -> dict:
    """A stage's receipt. Raises ValueError where it is none."""
    receipt = read_json(path)
    needed = {"done", "settings", "inputs", *(("outputs", "counts") if receipt.get("done") else ())}
    if missing := sorted(needed - receipt.keys()):
        raise ValueError(f"{path} is damaged (no {missing[0]!r}); delete its folder, or take another --out")
    return receipt


def _digests(inputs: Mapping[str, Path | str]) -> dict[str, str]:
    """SHA-256 of each input, by name."""
    return {
        name: file_hash(given) if isinstance(given, Path) else hashlib.sha256(given.encode()).hexdigest()
        for name, given in sorted(inputs.items())
    }


def _selected(name: str, patterns: Sequence[str]) -> bool:
    """`iter1` selects `iter1` and all of `iter1/...`."""
    return any(name == pattern.rstrip("/") or name.startswith(pattern.rstrip("/") + "/") for pattern in patterns)


def _is_part_of(setting: str, name: str) -> bool:
    return setting == name or setting.startswith(f"{name}.")


def _pretty(values: Mapping[str, object]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _counted(counts: Mapping[str, object]) -> str:
    return ", ".join(f"{value} {name}" for name, value in counts.items())


def _silent(line: str) -> None:
    """What the processes other than the main one have to say, the main one says too."""
