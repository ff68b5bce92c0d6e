"""Function mode: the judge runs the tests, the candidate answers its calls from elsewhere.

Two locked-down processes. The candidate's never sees a test, an expected value or the record pipe;
the judge's compares plain data that came out of the codec and writes one record per test. The tests
may be hostile too: they can spoil the verdicts of their own request, nothing else.
"""

from __future__ import annotations

import builtins
import os
import sys
import time

from trillium_sandbox.child import Jail, finish, lock_down, new_module, report, seal
from trillium_sandbox.codec import decode
from trillium_sandbox.peer import ConnectionLost, Peer
from trillium_sandbox.wire import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    from trillium_sandbox.child import Numbers

CALLS, RECORDS = 3, 4
"""Descriptors: calls to the other process (both), and records to the zygote (judge only)."""

_LOCK_S = 30.0
"""How long the candidate's process may take to lock itself down, before any limit counts."""

# fmt: off
_MODULES = frozenset({
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools",
    "heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string",
    "typing",
})
# fmt: on
_FROM_MODULES = {
    "Counter": "collections",
    "OrderedDict": "collections",
    "defaultdict": "collections",
    "deque": "collections",
    "Decimal": "decimal",
    "Fraction": "fractions",
    "isclose": "math",
    "sqrt": "math",
}


class _Names(dict[str, object]):
    """A test's global names: its own first, then Python's, then the candidate's."""

    def __init__(self, peer: Peer, entry_point: str | None) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self.peer = peer
        self.entry_point = entry_point
        self.leant = False

    def __missing__(self, name: str) -> object:
        if name == "candidate" and self.entry_point is not None:
            name = self.entry_point
        # A candidate may not replace what a test takes from Python: it would judge itself.
        if name != self.entry_point:
            if hasattr(builtins, name):
                raise KeyError(name)
            if name in _MODULES:
                return __import__(name)
            if name in _FROM_MODULES:
                return getattr(__import__(_FROM_MODULES[name]), name)
        try:
            value = self.peer.ask("name", name)
        except NameError:
            raise KeyError(name) from None
        if self.entry_point is None:
            self.entry_point = name
        elif name != self.entry_point:
            self.leant = True
        self[name] = value
        return value


def run_judge(
    jail: Jail, wall_s: float, numbers: Numbers, source: bytes, tests: bytes, user: int
) -> None:
    """Judge a candidate in this process and end it. `tests` is (entry point, tests) in codec."""
    peer = Peer(CALLS, on_timeout=lambda: _end(b"t"), on_lost=lambda: _end(b"x"))
    peer.send(source, numbers)
    lock_down(jail, numbers, user)
    entry_point: str | None
    texts: tuple[str, ...]
    entry_point, texts = decode(tests)  # type: ignore[misc]
    codes = [_compile(test, number) for number, test in enumerate(texts)]
    _await_loading(peer, wall_s)
    for number, code in enumerate(codes):
        peer.deadline = time.monotonic() + wall_s
        letter = _judge_one(peer, code, entry_point, number)
        os.write(RECORDS, RECORD.pack(letter, time.monotonic(), 0.0))
    _end(b"d")


def run_candidate(jail: Jail, user: int) -> None:
    """Load a candidate in this process, answer the judge's calls, and end it."""
    peer = Peer(CALLS, names={})
    source, numbers = peer.receive()
    seal(1, numbers[4])  # type: ignore[index]
    seal(2, numbers[4])  # type: ignore[index]
    lock_down(jail, numbers, user)  # type: ignore[arg-type]
    peer.send("locked", 0)
    module = new_module("candidate")
    try:
        code = compile(source, "candidate.py", "exec", dont_inherit=True)  # type: ignore[call-overload]
        exec(code, module.__dict__)
        sys.stdout.flush()
    except BaseException as error:
        status = finish(report(error))
        peer.send("failed", status)
        os._exit(status)
    peer.names = module.__dict__
    try:
        peer.send("ready", 0)
        peer.serve_forever()
    except ConnectionLost:
        os._exit(finish(0))


def _compile(test: str, number: int) -> CodeType | SyntaxError:
    try:
        return compile(test, f"test_{number}.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return SyntaxError(str(error))


def _await_loading(peer: Peer, wall_s: float) -> None:
    peer.deadline = time.monotonic() + _LOCK_S
    peer.receive()
    now = time.monotonic()
    os.write(RECORDS, RECORD.pack(b"s", now, 0.0))
    peer.deadline = now + wall_s
    if peer.receive()[0] != "ready":
        _end(b"l")
    os.write(RECORDS, RECORD.pack(b"r", time.monotonic(), 0.0))


def _judge_one(
    peer: Peer, code: CodeType | SyntaxError, entry_point: str | None, number: int
) -> bytes:
    names = _Names(peer, entry_point)
    try:
        if isinstance(code, SyntaxError):
            raise code
        exec(code, names)
    except AssertionError as error:
        _explain(number, error)
        return b"f"
    except MemoryError:
        return b"m"
    except BaseException as error:
        _explain(number, error)
        return b"e"
    return b"p" if names.leant else b"P"


def _explain(number: int, error: BaseException) -> None:
    try:
        print(f"test {number}: {type(error).__name__}: {error}"[:500], file=sys.stderr, flush=True)
    except BaseException:
        return


def _end(letter: bytes) -> None:
    os.write(RECORDS, RECORD.pack(letter, time.monotonic(), 0.0))
    os._exit(0)
