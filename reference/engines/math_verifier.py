"""Whether two LaTeX answers are the same, by `math-verify`, in a process of its own that may be stopped.

Computer algebra can take forever on a few characters (`9^{9^{9^9}}`): an answer that is not decided in time is wrong,
and counted. The time is the process's own on the CPU, so that a busy machine judges no more strictly than an idle one;
and the process keeps it itself, so that it ends even where the run was killed in the meantime.

The only file that imports math_verify. It is also the program of that process, which is why it imports nothing of ours.
"""

import json
import select
import signal
import subprocess
import sys
from importlib.util import find_spec

READY = "ready\n"
PATIENCE = 300.0  # seconds on the clock, for a process that neither answers nor calculates
MEMORY = 4 << 30  # bytes: a huge power ends the process, not the machine


class MathVerifier:
    """Compares answers, one at a time."""

    def __init__(self, seconds: float = 5.0):
        """Starts the process, which may take `seconds` of the CPU for each answer.

        Raises:
            ValueError: `math-verify` is not installed, or does not work.
        """
        if find_spec("math_verify") is None:
            raise ValueError("LaTeX answers are compared by `math-verify`: pip install '.[math]'")
        self.num_timeouts = 0
        self._seconds = seconds
        self._process = _start(seconds)

    def equal(self, answer: str, gold: str) -> bool:
        """Whether the answer is the gold one, mathematically; not where that takes too long or ends the process."""
        if self._process.poll() is not None:
            self._process = _start(self._seconds)
        verdict = _ask(self._process, json.dumps([answer, gold]) + "\n")
        if verdict:
            return verdict == "1\n"
        self.num_timeouts += 1
        self.close()
        return False

    def close(self) -> None:
        """Stop the process; the next comparison starts another."""
        self._process.kill()
        self._process.communicate()


def _start(seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    said = _line(process)
    if said != READY:
        process.kill()
        process.communicate()
        raise ValueError(f"math-verify does not work ({said.strip() or 'it did not start'}): pip install '.[math]'")
    return process


def _ask(process: subprocess.Popen, line: str) -> str:
    """The answer to a line; nothing where it takes too long or the process has ended."""
    assert process.stdin is not None  # a pipe, as `_start` wants it
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return _line(process)


def _line(process: subprocess.Popen) -> str:
    assert process.stdout is not None  # a pipe too
    readable, _, _ = select.select([process.stdout], [], [], PATIENCE)
    return process.stdout.readline() if readable else ""


def serve(seconds: float) -> None:
    """The process's own loop: a line `[answer, gold]` in, a line 1 or 0 out."""
    import resource

    try:
        from math_verify import parse, verify
    except ImportError as error:  # such as a version of antlr that it does not know
        print(error, flush=True)
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(READY, end="", flush=True)
    for line in sys.stdin:
        answer, gold = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # anew; nobody handles its signal, which ends us
        same = verify(
            parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None
        )
        print(int(same), flush=True)


if __name__ == "__main__":
    serve(float(sys.argv[1]))
