"""docs/peers.md is true where it speaks of us, and every test that it names is there; tests/oracle/ has the others."""

import ast
import math
import re
from pathlib import Path

import pytest

from reference.conformance.adapters import ours
from reference.conformance.checking import FOLDER
from tests.oracle.peers_page import BATCH, MEASURED, PAGE, REWARDS, SFT_BATCH, TESTS, VECTORS, as_shown, rows_of

ROOT = Path(__file__).parents[1]

# Every row of a table of measurements but those of answers, schedule and pass@8, which are in the tests below.
LOSS = ours.grpo_loss(**BATCH)["loss"]
OURS = {
    "advantage of the right response": ours.group_advantages(REWARDS, 1e-6)["advantages"][0][0],
    "the term at ratio 7.389056, A = -1": ours.clipped_term([[math.exp(2)]], [-1.0], 0.2)["values"][0][0],
    "its derivative by the ratio": ours.clipped_term([[math.exp(2)]], [-1.0], 0.2)["gradient"][0][0],
    "the term": ours.low_variance_kl([[-4.0]], [[-0.5]])["values"][0][0],
    r"its derivative by $\log\pi_\theta$": ours.low_variance_kl([[-4.0]], [[-0.5]])["gradient"][0][0],
    "at the defaults, coefficient 0.001": LOSS,
    "with Eq. 27's mean": LOSS,
    "and no second clip, no ratio on the KL term": LOSS,
    "loss of the batch, all of its tokens supervised": ours.sft_loss(**SFT_BATCH)["loss"],
}
BY_THEMSELVES = tuple(f"measured: {one}" for one in ("a response", "step", "of 13", "pass@8", "responses in"))


def test_our_numbers_on_the_page_are_ours():
    expected = {name: as_shown(value) for name, value in OURS.items()}
    expected["advantage of a lone response, reward 1"] = "refused"
    found = {name: cells["ours"] for (table, name), cells in MEASURED.items() if not table.startswith(BY_THEMSELVES)}
    assert found == expected


def test_a_lone_response_is_refused():
    with pytest.raises(ValueError, match="G >= 2"):
        ours.group_advantages([[1.0]], 1e-6)


def test_our_answers_schedule_and_passes_are_ours():
    answers = {text: cells["ours"] for text, cells in rows_of(": a response ends in").items()}
    assert len(answers) == 12 and answers == {text: ours.extract_answer(text)["answer"] or "none" for text in answers}
    steps = {step: cells["ours"] for step, cells in rows_of(": step").items()}
    assert len(steps) == 4
    assert steps == {step: as_shown(ours.cosine_schedule(int(step), 10, 0.2, 0.1)["scale"]) for step in steps}
    of_13 = {step: cells["ours"] for step, cells in rows_of(": of 13 steps").items()}
    assert len(of_13) == 3
    assert of_13 == {step: as_shown(ours.cosine_schedule(int(step), 13, 0.2, 0.1)["scale"]) for step in of_13}
    passes = {count: cells["ours"] for count, cells in rows_of(": pass@8").items()}
    assert len(passes) == 5
    assert passes == {count: as_shown(ours.pass_at_k(64, int(count), 8)["pass_at_k"]) for count in passes}


def test_our_loss_is_the_same_for_every_cut():
    cells = rows_of(": responses in a micro-batch")["ours"]
    assert {cells[size] for size in "124"} == {as_shown(LOSS)}


def test_the_batch_has_what_the_page_says_of_it():
    tokens = [
        (new, old, ref)
        for rows in zip(BATCH["logprobs"], BATCH["old_logprobs"], BATCH["ref_logprobs"], BATCH["mask"], strict=True)
        for new, old, ref, is_token in zip(*rows, strict=True)
        if is_token
    ]
    assert len(tokens) == 11
    assert f"the ninth token's ratio is {math.exp(tokens[8][0] - tokens[8][1]):.1f} with a negative" in PAGE
    assert f"the last token's $\\delta$ is {tokens[-1][2] - tokens[-1][0]:.1f}." in " ".join(PAGE.split())
    assert BATCH["advantages"][2] < 0


def test_every_test_on_the_page_is_there():
    named = set(TESTS.findall(PAGE))
    files = len(re.findall(r"`tests/oracle/\w+\.py`", PAGE))
    assert PAGE.count("tests/oracle/") == len(TESTS.findall(PAGE)) + files and len(named) > 20
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path} has no {name}"


def test_every_measured_row_names_its_test():
    for (_, row), cells in MEASURED.items():
        assert TESTS.fullmatch(cells["test"]), row


def test_the_vectors_on_the_page_are_vectors():
    assert set(VECTORS) < {path.stem for path in FOLDER.glob("*.json")}


def test_the_versions_on_the_page_are_the_tested_ones():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert "verl==0.9.1" in pinned and "trl==1.16.0" in pinned
    assert "What verl 0.9.1, TRL 1.16.0 and seven" in PAGE


def test_every_function_of_the_preset_is_there():
    named = re.findall(r"`(reference/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) == 7
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path} has no {name}"
