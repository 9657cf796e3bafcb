"""Each kind of answer by its own verifier."""

import pytest

from reference.engines.judge import Judge, Judged
from reference.records import AnswerKind, Problem


def verdict(kind, gold, response):
    problem = Problem("p", "q", gold, kind=kind)
    return Judge([problem]).judge(problem, response)


@pytest.mark.parametrize(
    ("kind", "gold", "response", "correct", "has_answer"),
    [
        (AnswerKind.NUMBER, "5", "#### 5.0", True, True),
        (AnswerKind.NUMBER, "5", "#### 6", False, True),
        (AnswerKind.NUMBER, "5", "5", False, False),
        (AnswerKind.ROUNDED, "1.8333333333333335", "#### 1.83", True, True),
        (AnswerKind.ROUNDED, "1.8333333333333335", "#### 1.8", False, True),
        (AnswerKind.ROUNDED, "1.8333333333333335", "1.83", False, False),
        (AnswerKind.LETTER, "B", "#### (b)", True, True),
        (AnswerKind.LETTER, "B", "#### C", False, True),
        (AnswerKind.LETTER, "B", "The answer is B", False, False),
        (AnswerKind.LETTER, "B", "#### Both", False, False),
    ],
)
def test_verdicts(kind, gold, response, correct, has_answer):
    assert verdict(kind, gold, response) == Judged(correct, has_answer)


def test_latex_is_compared_by_its_value():
    pytest.importorskip("math_verify", reason="LaTeX answers need math-verify: pip install '.[math]'")
    problem = Problem("p", "q", "\\frac{1}{2}", kind=AnswerKind.LATEX)
    judge = Judge([problem])
    for response in ("#### \\frac{1}{2}", "#### $\\dfrac12$", "#### \\boxed{0.5}", "so\n#### \\(\\frac{2}{4}\\)"):
        assert judge.judge(problem, response) == Judged(True, True), response
    assert judge.judge(problem, "#### \\frac{1}{3}") == Judged(False, True)
    assert judge.judge(problem, "#### \\frac{") == Judged(False, True)
    assert judge.judge(problem, "\\frac{1}{2}") == Judged(False, False)
    assert judge.judge(problem, "#### ") == Judged(False, False)
    assert judge.num_timeouts == 0


def test_without_math_verify_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("reference.engines.math_verifier.find_spec", lambda name: None)
    Judge([Problem("p", "q", "5")])  # only who needs it is told
    with pytest.raises(ValueError, match=r"pip install '.\[math\]'"):
        Judge([Problem("p", "q", "x", kind=AnswerKind.LATEX)])
