"""Problems from files in GSM8K's format: JSONL with `question` and `answer`, whose last line is `#### N`."""

import json
from pathlib import Path

from reference.paper.answers import extract_answer
from reference.records import Problem


def read_gsm8k(path: Path, name: str, limit: int | None = None) -> list[Problem]:
    """The first `limit` problems of a file, in its order; ids are `name-00000`, `name-00001`, ...

    Raises:
        ValueError: no such file, no problem in it, or a line that is not such a record, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the problems in {path} ({error}); give a JSONL file in UTF-8") from error
    if lines == [""]:
        raise ValueError(f"{path} holds no problems; give a JSONL file with at least one")
    return [_problem(line, f"{name}-{at:05d}", f"{path}, line {at + 1}") for at, line in enumerate(lines[:limit])]


def _problem(line: str, problem_id: str, where: str) -> Problem:
    try:
        values = json.loads(line)
        question, answer = values["question"], values["answer"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"{where}: expected a JSON object with `question` and `answer`, got {line[:60]!r}") from error
    gold = extract_answer(answer) if isinstance(answer, str) else None
    if gold is None or not isinstance(question, str) or not question.strip():
        raise ValueError(f"{where}: expected a question and an answer that ends in `#### NUMBER`, got {line[:60]!r}")
    if not (_is_text(question) and _is_text(answer)):
        raise ValueError(f"{where}: half of a surrogate pair is no text; write the sign itself or both halves")
    return Problem(problem_id, question, gold, answer)


def _is_text(value: str) -> bool:
    """JSON can spell half of a surrogate pair, which no UTF-8 file can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
