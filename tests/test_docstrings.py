"""Every public name says what it is; the paper's functions say shapes or units where tensors go in."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "reference").rglob("*.py"))
PAPER = sorted((ROOT / "reference" / "paper").glob("*.py"))
# `[B, T]`, `[..., V]`, `[N]`: letters of the file's legend between brackets.
SHAPE = re.compile(r"\[(?:\.\.\.|[A-Z])(?:, [A-Z])*\]")


def public(nodes):
    """The public functions and classes among a file's statements."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in nodes if isinstance(node, kinds) and not node.name.startswith("_")]


def takes_tensors(function):
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any("Tensor" in ast.unparse(one.annotation) for one in arguments if one.annotation)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "reference").as_posix())
def test_every_public_name_has_a_docstring(path):
    tree = ast.parse(path.read_text("utf-8"))
    silent = [node.name for node in public(tree.body) if not ast.get_docstring(node)]
    for node in public(tree.body):
        if isinstance(node, ast.ClassDef):
            silent += [f"{node.name}.{method.name}" for method in public(node.body) if not ast.get_docstring(method)]
    assert not silent, f"without a docstring: {silent}"


def tensor_functions(path):
    """The public functions of a file that take tensors, each with its docstring."""
    functions = [node for node in public(ast.parse(path.read_text("utf-8")).body) if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_docstring(node) or "" for node in functions if takes_tensors(node)}


def test_every_function_of_the_paper_that_takes_tensors_says_their_shapes():
    """A shape stands in its docstring, or in that of another such function whose name it quotes."""
    found = [(path.name, name, said) for path in PAPER for name, said in tensor_functions(path).items()]
    with_shapes = {name for _, name, said in found if SHAPE.search(said)}
    assert len(with_shapes) > 10
    for file, name, said in found:
        quoted = {one.rpartition(".")[2] for one in re.findall(r"`([\w.]+)`", said)}
        assert SHAPE.search(said) or quoted & (with_shapes - {name}), f"{file}::{name} names no shape"


def test_every_file_of_the_paper_with_tensors_says_what_its_letters_and_units_are():
    """`[B, T]` needs a legend, and a log-probability a unit: in the file's own docstring or its functions'."""
    files = [path for path in PAPER if tensor_functions(path)]
    assert len(files) >= 3
    for path in files:
        legend = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        assert re.search(r"^Shapes\b.*: ", legend, re.MULTILINE), f"{path.name} has no legend of its letters"
        assert re.search(r"\bnats\b", "\n".join([legend, *tensor_functions(path).values()])), (
            f"{path.name} names no unit"
        )


def mistakes_raised(function):
    """The lines on which a function raises ValueError, but for those inside of a `try` that catches it."""
    caught = {
        id(node)
        for tried in ast.walk(function)
        if isinstance(tried, ast.Try) and any("ValueError" in ast.unparse(one.type or one) for one in tried.handlers)
        for part in tried.body
        for node in ast.walk(part)
    }
    raised = [
        node for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc and id(node) not in caught
    ]
    return [node.lineno for node in raised if ast.unparse(node.exc).startswith("ValueError(")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "reference").as_posix())
def test_a_function_that_refuses_a_mistake_says_so(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    functions = [node for parent in (tree, *classes) for node in parent.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if not function.name.startswith("_") and mistakes_raised(function):
            assert "Raises" in (ast.get_docstring(function) or ""), f"{function.name} does not say that it raises"
