"""Write the vectors: inputs drawn or chosen here, expected outputs by `oracle.py`, answers typed by hand.

python -m reference.conformance.make_vectors [FOLDER]
"""

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from reference.conformance import oracle

VERSION = 1
FOLDER = Path(__file__).parent / f"v{VERSION}"

ANSWERS = (
    ("#### 72", "72"),
    ("He has 8 bags of 9.\n#### 72\n", "72"),
    ("#### 72.", "72"),
    ("#### 72.0", "72"),
    ("#### $72", "72"),
    ("####72", "72"),
    ("#### **72**", "72"),
    ("#### $\\boxed{72}$", "72"),
    ("#### 72 dollars", "72"),
    ("#### 1,234", "1234"),
    ("#### $1,234.50", "1234.5"),
    ("#### -3", "-3"),
    ("#### -0", "0"),
    ("#### .5", "0.5"),
    ("#### 71\nNo, wait.\n#### 72", "72"),
    ("#### 72 = 8 * 9", "72"),
    ("#### 3/4", None),
    ("#### 10:30", None),
    ("#### 1e3", None),
    ("The answer is 72.", None),
    ("#### seventy-two", None),
    ("####", None),
    ("", None),
)
ACTION_SCORES = (0.25, 0.5, 0.75)  # below, at and above a threshold of 0.5


def vectors() -> list[dict]:
    """Every file's content, in the order of the paper."""
    draw = random.Random(VERSION)
    return [
        _answers(),
        _of("3_2_algorithm_1", "Algorithm 1, lines 11 to 29", "choose_action", _leaves()),
        _of("eq_08_step_difficulty", "Eq. 8", "mean_nll", [{"logprobs": _logprobs(draw, n)} for n in (1, 2, 7, 40)]),
        _of("eq_21_sft_loss", "Eq. 21", "sft_loss", [_sft(draw, rows) for rows in ((5,), (1, 9), (7, 3, 12, 1))]),
        _of("eq_23_group_advantages", "Eq. 23", "group_advantages", _groups(draw)),
        _of("eq_24_policy_ratio", "Eq. 24", "policy_ratio", [_two(draw, "old_logprobs", s) for s in (0.0, 0.1, 2.0)]),
        _of("eq_25_clipped_term", "Eq. 25", "clipped_term", _clips(draw)),
        _of(
            "eq_26_low_variance_kl", "Eq. 26", "low_variance_kl", [_two(draw, "ref_logprobs", s) for s in (0, 0.1, 3.0)]
        ),
        _of("eq_28_grpo_loss", "Eqs. 27 and 28", "grpo_loss", _losses(draw)),
        _of("eq_30_33_near_miss_score", "Eqs. 30 to 33", "near_miss_score", _near_misses()),
        _of("eq_34_near_miss", "Eq. 34", "select_near_miss", _choices()),
        _of("pass_at_k", "pass@k (Chen et al. 2021)", "pass_at_k", _passes()),
        _of("table_5_cosine_schedule", "Table 5, cosine schedule", "cosine_schedule", _schedules()),
    ]


def _of(file_name: str, source: str, function: str, inputs: Sequence[dict]) -> dict:
    """One file: what each case's inputs give by the oracle's function of that name."""
    compute = vars(oracle)[function]
    cases = [{"inputs": one, "expected": compute(**one)} for one in inputs]
    return {"file": file_name, "version": VERSION, "source": source, "function": function, "cases": cases}


def _answers() -> dict:
    cases = [{"inputs": {"text": text}, "expected": {"answer": answer}} for text, answer in ANSWERS]
    return {
        "file": "eq_02_extract_answer",
        "version": VERSION,
        "source": "Eq. 2, Ans(o) as a plain decimal (ambiguity A48)",
        "function": "extract_answer",
        "cases": cases,
    }


def _logprobs(draw: random.Random, count: int) -> list[float]:
    return [-draw.expovariate(0.7) for _ in range(count)]


def _rows(draw: random.Random, lengths: Sequence[int]) -> list[list[float]]:
    """Right-padded: behind a row's length the numbers are there and must not matter."""
    return [_logprobs(draw, max(lengths)) for _ in lengths]


def _mask(lengths: Sequence[int]) -> list[list[int]]:
    return [[1] * length + [0] * (max(lengths) - length) for length in lengths]


def _sft(draw: random.Random, lengths: Sequence[int]) -> dict:
    return {"logprobs": _rows(draw, lengths), "mask": _mask(lengths)}


def _groups(draw: random.Random) -> list[dict]:
    binary = [[1.0] * k + [0.0] * (8 - k) for k in range(9)]
    real = [[draw.uniform(-1, 2) for _ in range(4)] for _ in range(3)]
    return [{"rewards": rewards, "eps": eps} for rewards in (binary, real) for eps in (1e-6, 1e-4)]


def _moved(draw: random.Random, rows: Sequence[Sequence[float]], spread: float) -> list[list[float]]:
    return [[x + draw.gauss(0, spread) for x in row] for row in rows]


def _two(draw: random.Random, name: str, spread: float) -> dict:
    rows = _rows(draw, (6, 6))
    return {"logprobs": rows, name: _moved(draw, rows, spread)}


def _clips(draw: random.Random) -> list[dict]:
    corners = [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0, 7.0]
    drawn = [[draw.lognormvariate(0, 0.3) for _ in range(8)] for _ in range(4)]
    return [
        {"ratio": [corners, corners], "advantages": [1.5, -1.5], "clip_eps": 0.2},
        {"ratio": [corners], "advantages": [0.0], "clip_eps": 0.2},
        {"ratio": drawn, "advantages": [0.7, -0.7, 2.0, -1.0], "clip_eps": 0.1},
    ]


def _losses(draw: random.Random) -> list[dict]:
    cases = []
    for lengths, spread, kl_coef in (((3, 3), 0.0, 0.001), ((8, 1, 5, 2), 0.3, 0.001), ((4, 9, 2, 6), 1.0, 0.1)):
        rows = _rows(draw, lengths)
        rewards = [[1.0 if at % 2 else 0.0 for at in range(len(lengths))]]
        (advantages,) = oracle.group_advantages(rewards, 1e-6)["advantages"]
        cases.append(
            {
                "logprobs": rows,
                "old_logprobs": _moved(draw, rows, spread),
                "ref_logprobs": _moved(draw, rows, spread),
                "advantages": advantages,
                "mask": _mask(lengths),
                "clip_eps": 0.2,
                "kl_coef": kl_coef,
            }
        )
    return cases


def _near_misses() -> list[dict]:
    cases = []
    for tokens, steps, has_answer in ((0, 0, False), (121, 3, True), (243, 7, True), (900, 40, False)):
        taus = {"tau_length": 242.98, "tau_steps": 7.36}
        weights = [1.0, 1.0, 1.0] if tokens < 900 else [0.5, 2.0, 0.5]
        cases.append({"num_tokens": tokens, "num_steps": steps, "has_answer": has_answer, **taus, "weights": weights})
    return cases


def _choices() -> list[dict]:
    """A clear winner, one whose format decides, and a tie."""
    taus = {"tau_length": 242.98, "tau_steps": 7.36, "weights": [1.0, 1.0, 1.0]}
    return [
        {"num_tokens": [20, 240, 100], "num_steps": [1, 7, 3], "has_answer": [True, True, True], **taus},
        {"num_tokens": [90, 90], "num_steps": [4, 4], "has_answer": [False, True], **taus},
        {"num_tokens": [300, 400], "num_steps": [9, 8], "has_answer": [True, True], **taus},
    ]


def _leaves() -> list[dict]:
    taus = {"tau_importance": 0.5, "tau_jumpiness": 0.5, "tau_difficulty": 0.5}
    return [
        {"importance": importance, "jumpiness": jumpiness, "difficulty": difficulty, **taus}
        for importance in ACTION_SCORES
        for jumpiness in ACTION_SCORES
        for difficulty in ACTION_SCORES
    ]


def _passes() -> list[dict]:
    known = [(64, c, 8) for c in (0, 1, 2, 8, 16, 32, 56, 57, 64)]
    return [{"num_samples": n, "num_correct": c, "k": k} for n, c, k in [*known, (8, 1, 8), (8, 0, 1), (16, 3, 4)]]


def _schedules() -> list[dict]:
    return [
        {"step": step, "total_steps": total, "warmup_ratio": 0.2, "min_lr_ratio": 0.1}
        for total in (1, 4, 50)
        for step in sorted({1, max(1, total // 5), total // 5 + 1, total // 2 or 1, total})
        if step <= total
    ]


def write(folder: Path) -> None:
    """A file for each equation: JSON whose numbers have every digit of a float64."""
    folder.mkdir(parents=True, exist_ok=True)
    for content in vectors():
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / f"{content['file']}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
