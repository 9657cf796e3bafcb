"""Whether two LaTeX answers are the same, by `math-verify`, in a process of its own that may be stopped.

Computer algebra can take forever on a few characters (`9^{9^{9^9}}`): an answer that is not decided in time is wrong,
and counted. The only file that imports math_verify.
"""

import json
import select
import subprocess
import sys
from importlib.util import find_spec

SERVE = "from reference.engines.math_verifier import serve; serve()"
START_SECONDS = 60.0  # until the process has imported its library


class MathVerifier:
    """Compares answers, one at a time."""

    def __init__(self, seconds: float = 5.0):
        """Raises ValueError where `math-verify` is not installed."""
        if find_spec("math_verify") is None:
            raise ValueError("LaTeX answers are compared by `math-verify`: pip install '.[math]'")
        self.seconds = seconds
        self.num_timeouts = 0
        self._process: subprocess.Popen | None = None

    def equal(self, answer: str, gold: str) -> bool:
        """Whether the answer is the gold one, mathematically; not where that takes too long or ends the process."""
        if self._process is None:
            self._process = _start()
        self._process.stdin.write(json.dumps([answer, gold]) + "\n")
        self._process.stdin.flush()
        verdict = _line(self._process, self.seconds)
        if verdict:
            return verdict == "1\n"
        self.num_timeouts += 1
        self.close()
        return False

    def close(self) -> None:
        """Stop the process; the next comparison starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if _line(process, START_SECONDS) != "ready\n":
        process.kill()
        raise ValueError(
            f"math-verify's process did not start within {START_SECONDS:.0f} seconds; is it installed whole?"
        )
    return process


def _line(process: subprocess.Popen, seconds: float) -> str:
    """What the process says next; nothing where it takes too long or has ended."""
    readable, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if readable else ""


def serve() -> None:
    """The process's own loop: a line `[answer, gold]` in, a line 1 or 0 out."""
    import resource

    from math_verify import parse, verify

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # bytes: a huge power ends this process, not the run
    print("ready", flush=True)
    for line in sys.stdin:
        answer, gold = json.loads(line)
        # Our caller keeps the time, for parsing and comparing together.
        same = verify(
            parse(f"${gold}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None), timeout_seconds=None
        )
        print(int(same), flush=True)
