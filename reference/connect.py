"""The one place that names concrete classes: configuration -> problems, benchmarks, student, teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from reference.config import Config, flatten
from reference.engines.benchmarks import read_gsm8k
from reference.engines.chat import Chat
from reference.engines.hf_sampler import HFSampler
from reference.engines.student import Student
from reference.interfaces import Teacher
from reference.offline import word_problems
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper.prompts import Prompts, replace_templates, student_messages
from reference.records import Problem

OFFLINE = "offline"
WORLD_SEED = 0  # the offline world is one and the same for every run; the run's seed is another matter
OFFLINE_PROBLEMS = 320
OFFLINE_TEST_PROBLEMS = 100


@dataclass(frozen=True)
class World:
    """All that the stages need and do not make."""

    problems: list[Problem]
    num_too_long: int
    benchmarks: Mapping[str, list[Problem]]
    student: Student
    teacher: Teacher


def connect(config: Config, device: torch.device, rollout_dtype: torch.dtype) -> World:
    """Build the world that a configuration names.

    Raises:
        ValueError: a file, a model, a template or a combination of settings that cannot work, in one sentence.
    """
    check(config)
    base = BASE_CHECKPOINT if config.model.path == OFFLINE else Path(config.model.path)
    chat = Chat.from_checkpoint(base)
    prompts = load_prompts(config.data.prompts)
    sampler = HFSampler(chat.tokenizer, chat.end_ids, device, rollout_dtype, config.sampler_rows)
    student = Student(base, chat, prompts, sampler, device)
    problems = training_problems(config)
    short = [p for p in problems if len(chat.prompt_ids(student_messages(prompts, p))) <= config.data.max_prompt_tokens]
    if not short:
        raise ValueError(
            f"all {len(problems)} training problems are longer than {config.data.max_prompt_tokens} tokens; "
            "raise --data.max-prompt-tokens"
        )
    return World(short, len(problems) - len(short), benchmarks(config), student, SymbolicTeacher(config.seed))


def check(config: Config) -> None:
    """Settings that cannot be, or contradict each other, found before anything is loaded. Raises ValueError."""
    for name, value in flatten(config).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, int) and name not in ("seed", "evaluation.pass_samples") and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
        if name.endswith(("temperature", ".lr")) and not value > 0:
            raise ValueError(f"{option} must be above 0, got {value}")
        if name.endswith("top_p") and not 0 < value <= 1:
            raise ValueError(f"{option} must be above 0 and at most 1, got {value}")
    if config.grpo.num_rollouts < 2:
        raise ValueError(
            f"--grpo.num-rollouts must be at least 2 (Eq. 23 needs a deviation), got {config.grpo.num_rollouts}"
        )
    if config.evaluation.pass_samples < 0 or 0 < config.evaluation.pass_samples < 8:
        raise ValueError(
            f"--evaluation.pass-samples must be 0 (no pass@8) or at least 8, got {config.evaluation.pass_samples}"
        )
    if config.grpo.mini_batch_size > config.grpo.batch_size:
        raise ValueError(
            f"--grpo.mini-batch-size {config.grpo.mini_batch_size} is larger than --grpo.batch-size "
            f"{config.grpo.batch_size}; a mini-batch is a part of the rollout batch"
        )


def training_problems(config: Config) -> list[Problem]:
    """The training set, before any is left out for its length."""
    if config.data.train == OFFLINE:
        return word_problems.generate("train", config.data.limit or OFFLINE_PROBLEMS, WORLD_SEED)
    if not config.data.train:
        raise ValueError("no training problems: give --data.train a JSONL file in GSM8K's format, or `offline`")
    path = Path(config.data.train)
    return read_gsm8k(path, path.stem, config.data.limit)


def benchmarks(config: Config) -> dict[str, list[Problem]]:
    """Name -> problems, the in-domain benchmark first."""
    found: dict[str, list[Problem]] = {}
    for entry in config.data.tests:
        name, is_file, path = entry.partition("=")
        if entry == OFFLINE:
            count = config.data.test_limit or OFFLINE_TEST_PROBLEMS
            splits = ("test", *word_problems.OUT_OF_DISTRIBUTION)
            found |= {split: word_problems.generate(split, count, WORLD_SEED) for split in splits}
        elif is_file:
            found[name] = read_gsm8k(Path(path), name, config.data.test_limit)
        else:
            raise ValueError(f"--data.tests takes NAME=PATH or `offline`, got {entry!r}")
    return found


def load_prompts(folder: str) -> Prompts:
    """Our templates, with those that the folder's NAME.txt files replace."""
    if not folder:
        return Prompts()
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"--data.prompts takes a folder of NAME.txt templates, got {folder!r}")
    return replace_templates(Prompts(), {file.stem: file.read_text(encoding="utf-8") for file in path.glob("*.txt")})
