"""The one place that names concrete classes: configuration -> problems, benchmarks, student, teacher."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reference.config import Config
from reference.engines.benchmarks import (
    DATA_SETS,
    check_no_overlap,
    check_training,
    read_problems,
)
from reference.engines.chat import Chat
from reference.engines.distributed import Process
from reference.engines.hf_sampler import HFSampler
from reference.engines.judge import Judge
from reference.engines.memory import sizes_of
from reference.engines.policy import checkpoint_folder
from reference.engines.student import Student
from reference.engines.vllm_sampler import VLLMSampler, VLLMSettings, check_installed, check_tensor_parallel
from reference.interfaces import Sampler, Teacher
from reference.offline import word_problems
from reference.offline.symbolic_teacher import SymbolicTeacher
from reference.offline.tiny_model import BASE_CHECKPOINT
from reference.paper.prompts import Prompts, replace_templates, student_messages
from reference.records import Problem
from reference.stages.plan import DataSizes

if TYPE_CHECKING:
    from reference.engines.chat_teacher import ChatTeacher

OFFLINE = "offline"
BENCHMARK_NAME = re.compile(r"[\w-]+", re.ASCII)
WORLD_SEED = 0  # the offline world is one and the same for every run; the run's seed is another matter
OFFLINE_PROBLEMS = 320
OFFLINE_TEST_PROBLEMS = 100
GSM8K_TRAIN = 7473
GSM8K_QUESTION_TOKENS = 58  # 234.5 characters on average, at
CHARACTERS_PER_TOKEN = 4  # a rule of thumb for English


@dataclass(frozen=True)
class World:
    """All that the stages need and do not make."""

    problems: list[Problem]
    num_too_long: int
    benchmarks: Mapping[str, list[Problem]]
    student: Student
    teacher: Teacher
    judge: Judge
    chat_teacher: "ChatTeacher | None" = None


def connect(config: Config, process: Process, recordings: Path) -> World:
    """Build the world that a configuration names. A chat teacher keeps its answers in the folder `recordings`.

    Raises:
        ValueError: a file, a model or a template that cannot work, in one sentence.
    """
    base = base_checkpoint(config)
    chat = Chat.from_checkpoint(base)
    prompts = load_prompts(config.data.prompts)
    student = Student(base, chat, prompts, _sampler(config, base, chat, process), process)
    problems = training_problems(config)
    short = [p for p in problems if len(chat.prompt_ids(student_messages(prompts, p))) <= config.data.max_prompt_tokens]
    if not short:
        raise ValueError(
            f"all {len(problems)} training problems are longer than {config.data.max_prompt_tokens} tokens; "
            "raise --data.max-prompt-tokens"
        )
    tests = benchmarks(config)
    check_training(problems)
    check_no_overlap(problems, tests)
    _check_room(config, base, student, short, [problem for test in tests.values() for problem in test])
    judge = Judge(problem for test in tests.values() for problem in test)
    teacher = _chat_teacher(config, prompts, recordings, process) if config.teacher.kind == "chat" else None
    return World(
        short, len(problems) - len(short), tests, student, teacher or SymbolicTeacher(config.seed), judge, teacher
    )


def _sampler(config: Config, base: Path, chat: Chat, process: Process) -> Sampler:
    """The rollout engine that was asked for. Raises ValueError where it cannot serve this model in these processes."""
    if config.sampler == "hf":
        return HFSampler(
            chat.tokenizer, chat.end_ids, process.device, process.rollout_dtype, config.sampler_rows, process.share
        )
    check_installed()
    heads, key_heads, positions = sizes_of(
        base, "num_attention_heads", "num_key_value_heads", "max_position_embeddings"
    )
    group = config.vllm.tensor_parallel
    check_tensor_parallel(heads, key_heads, group, process.size)
    longest = max(config.difficulty.max_new_tokens, config.grpo.max_new_tokens, config.evaluation.max_new_tokens)
    settings = VLLMSettings(
        tensor_parallel=group,
        gpu_memory_utilization=config.vllm.gpu_memory_utilization,
        prefix_caching=config.vllm.prefix_caching,
        enforce_eager=config.vllm.enforce_eager,
        max_length=min(config.data.max_prompt_tokens + longest, positions),
        max_rows=config.sampler_rows,
    )
    return VLLMSampler(chat.tokenizer, chat.end_ids, process.rollout_dtype, settings, process.rank, process.size)


def _chat_teacher(config: Config, prompts: Prompts, recordings: Path, process: Process) -> "ChatTeacher":
    """Imported here: whoever has the symbolic teacher needs no openai."""
    from reference.engines.chat_teacher import ChatSettings, ChatTeacher

    settings = config.teacher
    asked = ChatSettings(
        base_url=settings.base_url,
        model=settings.model,
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        attempts=settings.attempts,
        concurrency=settings.concurrency,
        timeout=settings.timeout,
        retries=settings.retries,
        max_calls=settings.max_calls,
        max_tokens=settings.max_tokens,
    )
    return ChatTeacher(asked, prompts, recordings, writer=process.rank, writers=process.size)


def _check_room(
    config: Config, base: Path, student: Student, training: Sequence[Problem], tests: Sequence[Problem]
) -> None:
    """Longest prompt and response have to fit the model's positions: said now, not in the middle of the run."""
    (positions,) = sizes_of(base, "max_position_embeddings")
    sampled = (
        ("difficulty", training, config.difficulty.max_new_tokens),
        ("grpo", training, config.grpo.max_new_tokens),
        ("evaluation", tests, config.evaluation.max_new_tokens),
    )
    for section, problems, response in sampled:
        lengths = [len(student.prompt_ids(problem)) for problem in problems]
        longest = max((length for length in lengths if length <= config.data.max_prompt_tokens), default=0)
        if longest + response > positions:
            raise ValueError(
                f"a prompt of {longest} tokens and a response of {response} do not fit the model's {positions} "
                f"positions; lower --{section}.max-new-tokens or --data.max-prompt-tokens"
            )


def base_checkpoint(config: Config) -> Path:
    """The folder of the student's first weights; a hub name is downloaded. Raises ValueError."""
    return BASE_CHECKPOINT if config.model.path == OFFLINE else checkpoint_folder(config.model.path)


def training_problems(config: Config) -> list[Problem]:
    """The training set, before any is left out for its length. Raises ValueError where there is none."""
    if config.data.train == OFFLINE:
        return word_problems.generate("train", config.data.limit or OFFLINE_PROBLEMS, WORLD_SEED)
    if not config.data.train:
        raise ValueError("no training problems: give --data.train a JSONL file in GSM8K's format, or `offline`")
    if config.data.train == DATA_SETS["gsm8k"].hub_id:
        return read_problems("gsm8k", "", "train", config.data.limit)
    return read_problems(Path(config.data.train).stem, config.data.train, "train", config.data.limit)


def benchmarks(config: Config) -> dict[str, list[Problem]]:
    """Name -> problems, the in-domain benchmark first. Raises ValueError for what is no benchmark, or named twice."""
    found: list[tuple[str, list[Problem]]] = []
    for entry in config.data.tests:
        name, is_file, path = entry.partition("=")
        if entry == OFFLINE:
            count = config.data.test_limit or OFFLINE_TEST_PROBLEMS
            splits = ("test", *word_problems.OUT_OF_DISTRIBUTION)
            found += [(split, word_problems.generate(split, count, WORLD_SEED)) for split in splits]
        elif BENCHMARK_NAME.fullmatch(name) and name != "results" and (path or not is_file):  # a file in eval/
            found.append((name, read_problems(name, path, "test", config.data.test_limit)))
        else:
            raise ValueError(
                "--data.tests takes NAME=PATH or NAME, with a NAME of letters, digits, `_` and `-` that is not "
                f"`results`, or `offline`; got {entry!r}"
            )
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise ValueError(f"--data.tests names a benchmark twice: {', '.join(names)}")
    return dict(found)


def data_sizes(config: Config) -> DataSizes:
    """The sizes of the data; of what would come from the hub, those it is known to have."""
    train = config.data.train
    if train == DATA_SETS["gsm8k"].hub_id:
        num_problems, question_tokens = min(config.data.limit or GSM8K_TRAIN, GSM8K_TRAIN), GSM8K_QUESTION_TOKENS
    else:
        problems = training_problems(config)
        num_problems = len(problems)
        question_tokens = sum(len(problem.question) for problem in problems) // (num_problems * CHARACTERS_PER_TOKEN)
    on_hub = [name for name in config.data.tests if name in DATA_SETS]
    tests = benchmarks(replace(config, data=replace(config.data, tests=_without(config.data.tests, on_hub))))
    sizes = {name: len(problems) for name, problems in tests.items()} | {
        name: min(config.data.test_limit or size, size) for name in on_hub for size in [DATA_SETS[name].hub_size]
    }
    in_order = [entry.partition("=")[0] for entry in config.data.tests if entry != OFFLINE]
    return DataSizes(
        num_problems, question_tokens, {name: sizes[name] for name in [*in_order, *sizes] if name in sizes}
    )


def _without(entries: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(entry for entry in entries if entry not in names)


def load_prompts(folder: str) -> Prompts:
    """Our templates, with those that the folder's NAME.txt files replace. Raises ValueError for what is no template."""
    if not folder:
        return Prompts()
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"--data.prompts takes a folder of NAME.txt templates, got {folder!r}")
    texts = {}
    for file in sorted(path.glob("*.txt")):
        try:
            texts[file.stem] = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the template {file} ({error}); give a text file in UTF-8") from error
    return replace_templates(Prompts(), texts)
