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

    def __init__(self, peer: Peer, entry_point: str | None, candidate: object) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self.peer = peer
        self.entry_point = entry_point
        self.leant = False
        if entry_point is not None:
            self[entry_point] = self["candidate"] = candidate

    def __missing__(self, name: str) -> object:
        # A candidate may not replace what a test takes from Python: it would judge itself.
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


def run_judge(jail: Jail, numbers: Numbers, source: bytes, tests: bytes, user: int) -> None:
    """Judge a candidate in this process and end it. `tests` is (entry point, tests) in codec."""
    peer = Peer(CALLS, on_lost=lambda: _end(b"x"))
    entry_point: str | None
    texts: tuple[str, ...]
    entry_point, texts = decode(tests)  # type: ignore[misc]
    peer.send(source, entry_point, numbers)
    lock_down(jail, numbers, user)
    codes = [_compile(test, number) for number, test in enumerate(texts)]
    candidate = _await_loading(peer)
    for number, code in enumerate(codes):
        letter = _judge_one(_Names(peer, entry_point, candidate), code, number)
        os.write(RECORDS, RECORD.pack(letter, time.monotonic(), 0.0))
    _end(b"d")


def run_candidate(jail: Jail, user: int) -> None:
    """Load a candidate in this process, answer the judge's calls, and end it."""
    peer = Peer(CALLS, names={})
    source, entry_point, numbers = peer.receive()
    seal(1, numbers[4])  # type: ignore[index]
    seal(2, numbers[4])  # type: ignore[index]
    lock_down(jail, numbers, user)  # type: ignore[arg-type]
    peer.send("locked", 0)
    module = new_module("candidate")
    try:
        code = compile(source, "candidate.py", "exec", dont_inherit=True)  # type: ignore[call-overload]
        exec(code, module.__dict__)
        if entry_point is not None and entry_point not in module.__dict__:
            raise NameError(f"the candidate does not define {entry_point}")
        sys.stdout.flush()
    except BaseException as error:
        status = finish(report(error))
        peer.send("failed", status)
        os._exit(status)
    peer.names = module.__dict__
    try:
        peer.send("ready", None if entry_point is None else module.__dict__[entry_point])
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


def _await_loading(peer: Peer) -> object:
    """Wait for the candidate and return its entry point."""
    peer.receive()
    os.write(RECORDS, RECORD.pack(b"s", time.monotonic(), 0.0))
    word, candidate = peer.receive()
    if word != "ready":
        _end(b"l")
    os.write(RECORDS, RECORD.pack(b"r", time.monotonic(), 0.0))
    return candidate


def _judge_one(names: _Names, code: CodeType | SyntaxError, number: int) -> bytes:
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
