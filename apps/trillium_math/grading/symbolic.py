"""Algebra in a process of its own, which is killed and replaced when it takes too long.

Signals would stop sympy in the main thread only, and not inside its C code; a process can always
be killed. What is not proved in time counts as different, and is counted.
"""

import json
import selectors
import subprocess
import sys
import time
from fractions import Fraction

from trillium.errors import BackendError, ConfigError

from trillium_math.grading.expression import Node

_START_S = 120.0


class LineWorker:
    """A child process that answers one line with one line, or is killed."""

    def __init__(self, module: str) -> None:
        """Remember what to run; it starts with the first question."""
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self.n_killed = 0

    def ask(self, request: object, timeout_s: float) -> object:
        """Return the answer, or None when there was none within `timeout_s`."""
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._read_line(timeout_s)
        except BrokenPipeError:
            line = None
        if line is None:
            self.close()
            self.n_killed += 1
            return None
        answer: object = json.loads(line)
        return answer

    def close(self) -> None:
        """Kill the process; the next question starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process, self._buffer = None, b""

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._read_line(_START_S) != b"ready":
            self.close()
            raise BackendError(
                f"{self._module}: did not start within {_START_S:.0f} s (sympy imports in one); "
                "check that this Python can import sympy, and that memory is free"
            )
        return self._process

    def _read_line(self, timeout_s: float) -> bytes | None:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    return None
                received = self._process.stdout.read1(65536)  # type: ignore[attr-defined]
                if not received:
                    return None
                self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class SympyAlgebra:
    """Ask sympy, at most `timeout_s` per question and `budget_s` per grading."""

    def __init__(self, *, timeout_s: float = 2.0, budget_s: float = 6.0) -> None:
        """Prepare; the process starts when the first question needs it."""
        self._worker = LineWorker("trillium_math.grading.symbolic_worker")
        self._timeout_s = timeout_s
        self._budget_s = self._left_s = budget_s

    @property
    def n_killed(self) -> int:
        """Count the questions whose process had to be killed."""
        return self._worker.n_killed

    def begin(self) -> None:
        """Give the next grading its whole budget."""
        self._left_s = self._budget_s

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def are_equal(self, one: Node, other: Node) -> bool:
        """Say whether sympy proves two formulas equal; constants also by 400 equal digits."""
        return self._ask(["are_equal", one, other])

    def is_rounded(self, exact: Node, decimal: Fraction, unit: Fraction) -> bool:
        """Say whether the decimal is the constant rounded, or cut off, at its last digit `unit`."""
        return self._ask(["is_rounded", exact, str(decimal), str(unit)])

    def are_proportional(self, one: Node, other: Node, *, positive: bool) -> bool:
        """Say whether the quotient of two formulas is a constant, not 0 or positive."""
        return self._ask(["are_proportional", one, other, positive])

    def _ask(self, request: list[object]) -> bool:
        if self._left_s <= 0:
            return False
        _require_sympy()
        started = time.monotonic()
        answer = self._worker.ask(request, min(self._timeout_s, self._left_s))
        self._left_s -= time.monotonic() - started
        return answer is True


def _require_sympy() -> None:
    from importlib.util import find_spec

    if find_spec("sympy") is None:
        raise ConfigError(
            "grading: sympy is not installed (answers with roots or letters need it); "
            "pip install 'trillium[math]'"
        )
