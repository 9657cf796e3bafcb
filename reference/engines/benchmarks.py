"""Training problems and benchmarks: records of six data sets, each in its own formats, as `Problem`s.

A reader knows the records as they are in the original files and on the Hugging Face hub, and asserts the size of the
data set where there is one that everybody agrees on. MAWPS has none: its published test sets have 238 to 2373 problems,
and the paper's own column mixes three (ambiguity A1).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from reference.engines.hub_datasets import download_text, load_hub_records
from reference.engines.logiqa_text import LETTERS, read_logiqa_text
from reference.paper.answers import FLOAT_DECIMALS, ROUNDED_DECIMALS, extract_answer, gold_number
from reference.records import AnswerKind, Problem

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
FILES = (".jsonl", ".json", ".txt")  # what ends so is a path, there or not, and no data set of the hub


@dataclass(frozen=True)
class Parsed:
    """What a record says: question, gold answer, what kind of answer it is, and the worked solution if there is one."""

    question: str
    gold: str
    kind: AnswerKind = AnswerKind.NUMBER
    solution: str = ""


def parse_gsm8k(record: Mapping) -> Parsed:
    """`question`, and `answer` whose last line is `#### N`: GSM8K, GSM8K-Platinum and your own files.

    Raises:
        ValueError: the answer has no such line.
    """
    answer = record["answer"]
    gold = extract_answer(answer)
    if gold is None:
        raise ValueError("its `answer` does not end in `#### NUMBER`")
    return Parsed(record["question"], gold, solution=answer)


def parse_mawps(record: Mapping) -> Parsed:
    """The formats in which MAWPS goes round. Golds are binary floats as printed, such as 1.8333333333333335."""
    if "sQuestion" in record:
        (gold,) = record["lSolutions"]
        return _numeric(record["sQuestion"], gold)
    if "original_text" in record:
        return _numeric(record["original_text"], record["ans"])
    if "input" in record:
        return _numeric(record["input"], record["target"])
    answer = record["answer"]
    return _numeric(record["question"], extract_answer(answer) if "####" in str(answer) else answer)


def parse_svamp(record: Mapping) -> Parsed:
    """`Body`, `Question` and `Answer`, which is a float: 145.0."""
    body = record["Body"].strip()
    return _numeric(
        f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {record['Question'].strip()}", record["Answer"]
    )


def parse_math500(record: Mapping) -> Parsed:
    """`problem` and `answer`, which is LaTeX."""
    return Parsed(record["problem"], record["answer"], AnswerKind.LATEX, record.get("solution", ""))


def parse_logiqa(record: Mapping) -> Parsed:
    """`context`, `question`, four `options` in the order of their letters, and the number of the right one.

    Raises ValueError for copies with `correct_option`: they have the options in printed order (`logiqa_text`).
    """
    if "correct_option" in record:
        raise ValueError("this copy of LogiQA has wrong answers and cut options; take its own Test.txt")
    if record["answer"] not in range(len(LETTERS)):
        raise ValueError("its `answer` is not the number of an option, from 0")
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, record["options"], strict=True)]
    question = "\n".join([record["context"], record["question"], *options])
    return Parsed(question, LETTERS[record["answer"]], AnswerKind.LETTER)


def _numeric(question: str, gold: object) -> Parsed:
    value = Decimal(str(gold))
    if len(format(value, "f").partition(".")[2]) > FLOAT_DECIMALS:
        value = round(value, FLOAT_DECIMALS)  # 0.30000000000000004 was meant to be 0.3
    number = gold_number(format(value, "f"))
    decimals = len(number.partition(".")[2])
    return Parsed(question, number, AnswerKind.ROUNDED if decimals >= ROUNDED_DECIMALS else AnswerKind.NUMBER)


@dataclass(frozen=True)
class DataSet:
    """A benchmark's record format, the sizes it is known to have, where the hub has it and how many problems there.

    One that the hub has not, or not rightly, comes from the `address` of a text file.
    """

    parse: Callable[[Mapping], Parsed]
    sizes: tuple[int, ...] = ()
    hub_id: str = ""
    hub_size: int = 0
    configuration: str | None = None
    address: str = ""


# Sizes: GSM8K's training and test set; SVAMP's test split and the whole (Table 7 has 1320 for GSM8K, ambiguity A5).
DATA_SETS = {
    "gsm8k": DataSet(parse_gsm8k, (7473, 1319), "openai/gsm8k", 1319, "main"),
    "gsm8k_platinum": DataSet(parse_gsm8k, (1209,), "madrylab/gsm8k-platinum", 1209, "main"),
    "mawps": DataSet(parse_mawps, (), "garrethlee/MAWPS", 355),
    "svamp": DataSet(parse_svamp, (300, 1000), "ChilleD/SVAMP", 300),
    "math500": DataSet(parse_math500, (500,), "HuggingFaceH4/MATH-500", 500),
    "logiqa": DataSet(
        parse_logiqa,
        (651,),
        hub_size=651,
        address="https://raw.githubusercontent.com/lgw863/LogiQA-dataset/"
        "ff6c4cbca47627b3ac2da94a29fa28204a167b41/Test.txt",
    ),
}
OWN_FORMAT = DataSet(parse_gsm8k)


def read_problems(name: str, source: str, split: str, limit: int | None = None) -> list[Problem]:
    """The first `limit` problems of a file or a hub data set; ids are `name-00000`, `name-00001`, ...

    `name` is one of DATA_SETS, or your own for data in GSM8K's format. An empty `source` is that name's own.

    Raises:
        ValueError: nothing there, a record that is not such a problem, or another number of records than there are.
    """
    data_set = DATA_SETS.get(name, OWN_FORMAT)
    source = source or data_set.hub_id or data_set.address
    if not source:
        raise ValueError(f"there is no benchmark {name!r}; give NAME=PATH, or one of {', '.join(DATA_SETS)}")
    records, places = _read(source, data_set, split)
    expected = (data_set.hub_size,) if source == data_set.hub_id and split == "test" else data_set.sizes
    if expected and len(records) not in expected:
        sizes = " or ".join(map(str, expected))
        raise ValueError(
            f"{source} has {len(records)} problems, {name} has {sizes}; complete it, or give it a name of your own"
        )
    chosen = zip(records[:limit], places[:limit], strict=True)
    return [_problem(data_set, record, f"{name}-{at:05d}", place) for at, (record, place) in enumerate(chosen)]


def _read(source: str, data_set: DataSet, split: str) -> tuple[Sequence[Mapping], list[str]]:
    """All records of a source, and what to call each in a message."""
    is_file = Path(source).exists() or source.endswith(FILES)
    records: Sequence[Mapping]
    if data_set.parse is parse_logiqa and source.endswith(".txt"):
        text = download_text(source) if source == data_set.address else _text(Path(source))
        records = read_logiqa_text(text, source)
    elif not is_file and HUB_ID.fullmatch(source):
        records = load_hub_records(source, data_set.configuration if source == data_set.hub_id else None, split)
    else:
        return _read_jsonl(Path(source))
    return records, [f"{source}, record {at}" for at in range(len(records))]


def _read_jsonl(path: Path) -> tuple[list[Mapping], list[str]]:
    lines = _text(path).rstrip("\n").split("\n")
    if lines == [""]:
        raise ValueError(f"{path} holds no problems; give a JSONL file with at least one")
    places = [f"{path}, line {at}" for at in range(1, len(lines) + 1)]
    return [_record(line, place) for line, place in zip(lines, places, strict=True)], places


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the problems in {path} ({error}); give a JSONL file in UTF-8") from error


def _record(line: str, place: str) -> Mapping:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: expected a JSON object, got {line[:60]!r}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected a JSON object, got {line[:60]!r}")
    return record


def _problem(data_set: DataSet, record: Mapping, problem_id: str, place: str) -> Problem:
    try:
        parsed = data_set.parse(record)
        texts = (parsed.question, parsed.gold, parsed.solution)
        if not all(isinstance(text, str) for text in texts) or not parsed.question.strip() or not parsed.gold.strip():
            raise ValueError("a question and an answer are texts")
    except KeyError as error:
        raise ValueError(f"{place}: there is no field {error} among {sorted(record)}") from error
    except (ValueError, TypeError, ArithmeticError, IndexError, AttributeError) as error:
        raise ValueError(f"{place}: no problem of this data set ({error}): {str(dict(record))[:80]}") from error
    if not all(_is_text(text) for text in texts):
        raise ValueError(f"{place}: half of a surrogate pair is no text; write the sign itself or both halves")
    return Problem(problem_id, parsed.question, parsed.gold, parsed.solution, parsed.kind)


def _is_text(value: str) -> bool:
    """JSON can spell half of a surrogate pair, which no UTF-8 file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_training(problems: Sequence[Problem]) -> None:
    """Eq. 2's reward compares decimals. Raises ValueError for problems with other answers."""
    others = [problem for problem in problems if problem.kind is not AnswerKind.NUMBER]
    if others:
        raise ValueError(
            f"{len(others)} training problems have an answer that is no exact decimal, the first is {others[0].id} "
            f"with {others[0].gold!r}; train on problems with numbers (Eq. 2)"
        )


def check_no_overlap(training: Sequence[Problem], benchmarks: Mapping[str, Sequence[Problem]]) -> None:
    """No test question may be trained on, whatever its case, spaces and punctuation. Raises ValueError."""
    trained = {_folded(problem.question): problem.id for problem in training}
    for name, problems in benchmarks.items():
        known = [problem for problem in problems if _folded(problem.question) in trained]
        if known:
            raise ValueError(
                f"{len(known)} questions of the benchmark {name} are in the training data, the first is {known[0].id} "
                f"= {trained[_folded(known[0].question)]}; take them out of one of the two"
            )


def _folded(question: str) -> str:
    return "".join(sign for sign in question.casefold() if sign.isalnum())
