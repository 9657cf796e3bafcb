"""The process that compares LaTeX: it is right, it keeps its time, and nothing that befalls it ends the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reference.engines.math_verifier import MathVerifier

pytest.importorskip("math_verify", reason="LaTeX answers need math-verify: pip install '.[math]'")
ENDLESS = "9^{9^{9^9}}"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def verifier():
    started = MathVerifier(seconds=1.0)
    yield started
    started.close()


@pytest.mark.parametrize(
    ("answer", "gold", "equal"),
    [
        ("\\dfrac{1}{2}", "\\frac12", True),
        ("0.5", "\\frac12", True),
        ("(3, \\pi/2)", "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("Evelyn", "\\text{Evelyn}", True),
        ("9i+6", "6+9i", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("y^2", "x^2", False),
        ("1.41", "\\sqrt{2}", False),
        ("1, 2, 5", "5", False),  # a list that has it is not it
        ("$3$ or $5$", "5", False),
        ("", "5", False),
        ("\\frac{", "5", False),
        ("line\nbreak \u2028 \ud800", "5", False),
    ],
)
def test_answers_are_compared_by_what_they_mean(verifier, answer, gold, equal):
    assert verifier.equal(answer, gold) is equal
    assert verifier.num_timeouts == 0


def test_an_answer_that_takes_forever_is_wrong_and_counted_and_the_next_is_judged(verifier):
    began = time.monotonic()
    assert not verifier.equal(ENDLESS, "3")
    assert verifier.num_timeouts == 1 and time.monotonic() - began < 60
    assert verifier.equal("4", "4") and not verifier.equal("4", "5")
    assert verifier.num_timeouts == 1


def test_short_answers_do_not_use_up_each_others_time(verifier):
    """The limit is for one answer: together these take several times as long."""
    began = os.times().children_user
    for n in range(600):
        assert verifier.equal(f"\\frac{{{n}}}{{7}}+\\sqrt{{{n}}}", f"\\sqrt{{{n}}}+\\frac{{{2 * n}}}{{14}}")
    verifier.close()
    assert os.times().children_user - began > 1.5 and verifier.num_timeouts == 0


def test_a_process_that_was_killed_between_two_answers_is_started_again(verifier):
    assert verifier.equal("4", "4")
    os.kill(verifier._process.pid, signal.SIGKILL)
    verifier._process.wait()
    assert verifier.equal("5", "5") and verifier.num_timeouts == 0


def test_it_ends_when_the_run_was_killed_in_the_middle_of_an_answer():
    script = (
        "from reference.engines.math_verifier import MathVerifier\n"
        "verifier = MathVerifier(seconds=2.0)\n"
        "print(verifier._process.pid, flush=True)\n"
        f"verifier.equal('{ENDLESS}', '3')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    worker = int(run.stdout.readline())
    run.kill()
    run.communicate()
    deadline = time.monotonic() + 60
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def alive(pid):
    """Whether a process is there and no zombie, which waits for its parent only."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(listed) and not listed.startswith("Z")


def test_a_broken_installation_is_named_at_the_start(tmp_path, monkeypatch):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no antlr of this version')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"does not work \(no antlr of this version\): pip install '.\[math\]'"):
        MathVerifier()


def test_it_works_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise ImportError('a file of the same name')")
    verifier = MathVerifier()
    assert verifier.equal("4", "4")
    verifier.close()
