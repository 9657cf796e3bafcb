"""The vectors are the oracle's, our equations agree with them, and a wrong implementation is found out."""

import ast
import json
import math
import re
from pathlib import Path

import pytest

from reference.conformance import oracle
from reference.conformance.__main__ import main
from reference.conformance.adapters import ours
from reference.conformance.checking import FOLDER, TOLERANCE, check, described
from reference.conformance.make_vectors import write

FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
README = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
BY_FUNCTION = {vector["function"]: vector for vector in FILES.values()}


def test_our_equations_agree_with_every_vector():
    results = check(vars(ours))
    assert len(results) == len(FILES) == 13 and all(one.agrees for one in results), described(results)
    assert all(one.difference < 1e-13 for one in results)


def test_the_committed_vectors_are_what_the_generator_writes(tmp_path):
    write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in FOLDER.iterdir()
    }


def test_every_number_has_all_its_digits():
    for path in FOLDER.iterdir():
        content = path.read_text(encoding="utf-8")
        for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", re.sub(r'"(?:[^"\\]|\\.)*"', "", content)):
            assert repr(float(number)) == number, (path.name, number)


def changed(inputs, name, row, column, by):
    moved = [list(values) for values in inputs[name]]
    moved[row][column] += by
    return {**inputs, name: moved}


@pytest.mark.parametrize(
    ("function", "value", "with_respect_to"),
    [
        ("sft_loss", "loss", "logprobs"),
        ("grpo_loss", "loss", "logprobs"),
        ("clipped_term", "values", "ratio"),
        ("low_variance_kl", "values", "logprobs"),
    ],
)
def test_the_oracles_gradients_are_finite_differences(function, value, with_respect_to):
    compute, step = vars(oracle)[function], 1e-6
    for case in BY_FUNCTION[function]["cases"]:
        for row, gradients in enumerate(case["expected"]["gradient"]):
            for column, gradient in enumerate(gradients):
                above, below = (
                    compute(**changed(case["inputs"], with_respect_to, row, column, by))[value] for by in (step, -step)
                )
                if value == "values":
                    above, below = above[row][column], below[row][column]
                assert (above - below) / (2 * step) == pytest.approx(gradient, rel=1e-6, abs=1e-8)


def test_the_actions_are_those_of_all_27_places():
    """Every score below, at and above its threshold; at it is not above it (ambiguity A17)."""
    leaves = {}
    for case in BY_FUNCTION["choose_action"]["cases"]:
        scores = tuple(case["inputs"][name] > 0.5 for name in ("importance", "jumpiness", "difficulty"))
        leaves.setdefault(scores, set()).add((case["expected"]["action"], case["expected"]["local"]))
    assert leaves == {
        (False, False, False): {("compress", False)},
        (False, False, True): {("drop", False)},
        (False, True, False): {("drop", False)},
        (False, True, True): {("drop", False)},
        (True, False, False): {("keep", False)},
        (True, False, True): {("localize", True)},
        (True, True, False): {("expand", False)},
        (True, True, True): {("expand", True)},
    }


def token_mean(logprobs, mask):
    """What verl and TRL do by default: a long response outvotes a short one."""
    total = sum(map(sum, mask))
    kept = [x for row, row_mask in zip(logprobs, mask, strict=True) for x, m in zip(row, row_mask, strict=True) if m]
    return {"loss": -sum(kept) / total, "gradient": [[-m / total for m in row_mask] for row_mask in mask]}


def test_an_implementation_with_a_token_mean_differs():
    (found,) = [one for one in check({"sft_loss": token_mean}) if one.offered]
    assert not found.agrees and 0.001 < found.difference < 1 and found.file == "eq_21_sft_loss"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda num_samples, num_correct, k: {}, "pass_at_k should be a number near 0, got None"),
        (lambda num_samples, num_correct, k: 0.5, "expected a dictionary, got float"),
        (lambda num_samples, num_correct, k: {"pass_at_k": math.nan}, "should be a number near 0, got nan"),
        (lambda num_samples, num_correct, k: {"pass_at_k": True}, "should be a number near 0, got True"),
    ],
)
def test_what_is_no_number_differs(broken, says):
    (found,) = [one for one in check({"pass_at_k": broken}) if one.offered]
    assert not found.agrees and says in found.wrong and "differ" in described([found])


def test_a_list_of_another_length_and_a_refusal_differ():
    def refusing(rewards, eps):
        raise NotImplementedError("groups of eight only")

    (refused,) = [one for one in check({"group_advantages": refusing}) if one.offered]
    assert refused.wrong == "case 0: not offered for such inputs: groups of eight only"
    (short,) = [one for one in check({"group_advantages": lambda rewards, eps: {"advantages": [[]]}}) if one.offered]
    assert short.wrong.startswith("case 0: advantages should be a list of 9, got [[]]")


def test_the_tolerance_is_where_it_is_said_to_be():
    def off_by(difference):
        return {"mean_nll": lambda logprobs: {"difficulty": -sum(logprobs) / len(logprobs) + difference}}

    for difference, agrees in ((0.1 * TOLERANCE, True), (10 * TOLERANCE, False)):
        (found,) = [one for one in check(off_by(difference)) if one.offered]
        assert found.agrees is agrees


def test_the_command_takes_a_module_or_a_file(tmp_path, capsys, monkeypatch):
    assert main(["reference.conformance.adapters.ours"]) == 0
    assert capsys.readouterr().out.count(" agree ") == len(FILES)
    adapter = tmp_path / "my_adapter.py"
    adapter.write_text("def mean_nll(logprobs):\n    return {'difficulty': 1.0}\n")
    assert main([str(adapter)]) == 1
    printed = capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["./my_adapter.py"]) == 1
    assert printed.count(" differ ") == 1 and len(re.findall(r"\d  -$", printed, re.M)) == len(FILES) - 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "usage: "),
        (["no.such.module"], "cannot import no.such.module"),
        (["..x"], "..x is no module and no Python file; usage: "),
        (["nowhere.py"], "there is no file nowhere.py"),
        (["json"], "json offers none of the functions of the vectors"),
    ],
)
def test_a_mistake_is_a_sentence(arguments, says, capsys):
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_the_readme_lists_every_file_with_its_function_and_its_names():
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| `(\w+)\(([^)]*)\)` -> ([^|]*) \|$", README, re.M)
    found = {
        file: (function, inputs.split(", "), re.findall(r"`(\w+)`", outputs))
        for file, function, inputs, outputs in rows
    }
    assert found == {
        name: (vector["function"], [*vector["cases"][0]["inputs"]], [*vector["cases"][0]["expected"]])
        for name, vector in FILES.items()
    }


def test_the_oracle_imports_nothing_but_the_standard_library():
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert found == ["import math"]
