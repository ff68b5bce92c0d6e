"""Function mode: the judge runs the tests, the candidate answers its calls from elsewhere.

Two locked-down processes. The candidate's never sees a test, an expected value or the record pipe;
the judge's compares plain data that came out of the codec and writes one record per test. The tests
may be hostile too: they can spoil one another's verdicts, never those of other tests. A judge takes
one candidate after another, as long as they come with the same tests.
"""

from __future__ import annotations

import _socket
import builtins
import os
import struct
import sys
import time
from types import CodeType

from trillium_sandbox import namespaces
from trillium_sandbox.child import Jail, finish, lock_down, new_module, report
from trillium_sandbox.decode import decode
from trillium_sandbox.opcodes import OpcodeCount
from trillium_sandbox.peer import ConnectionLost, Peer
from trillium_sandbox.wire import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trillium_sandbox.child import Numbers

CALLS, TALLY = 3, 4
"""The candidate's descriptors: the judge's calls, and its opcode count when it is asked for."""

COURT, RECORDS = 3, 4
"""The judge's descriptors: what the zygote hands it, and what it reports."""

_CPU_S = 86400
"""The kernel's CPU limit for a judge: it serves many candidates, and the clock bounds each test."""

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


class _NotLoaded(Exception):
    pass


class _Names(dict[str, object]):
    """A test's global names: its own first, then Python's, then the candidate's."""

    def __init__(self, peer: Peer, entry_point: str | None, candidate: object) -> None:
        super().__init__(__name__="tests", __builtins__=builtins)
        self.peer = peer
        self.entry_point = entry_point
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
            self.peer.leant = True
        self[name] = value
        return value


def run_judge(jail: Jail, numbers: Numbers, tests: bytes) -> None:
    """Judge one candidate after another in this process. `tests`: (entry point, tests) in codec."""
    entry_point: str | None
    texts: tuple[str, ...]
    entry_point, texts = decode(tests)  # type: ignore[misc]
    court = _socket.socket(fileno=COURT)
    lock_down(jail, (_CPU_S, *numbers[1:]), namespaces.JUDGE_ID)
    codes: list[CodeType | SyntaxError | None] = [None] * len(texts)
    n_judged = 0
    while True:
        message, rights, _, _ = court.recvmsg(4, _socket.CMSG_SPACE(8))
        if not message:
            os._exit(0)
        calls, said = struct.unpack("2i", rights[0][2])
        os.dup2(said, 2)
        os.close(said)
        peer = Peer(calls)
        try:
            candidate = _await_loading(peer)
            for number in range(struct.unpack("<I", message)[0], len(texts)):
                names = _Names(peer, entry_point, candidate)
                _record(_judge_one(names, texts[number], codes, number, n_judged))
        except _NotLoaded:
            _record(b"l")
        except ConnectionLost:
            _record(b"x")
        os.close(calls)
        os.write(COURT, b"d")
        n_judged += 1
        if len(sys._current_frames()) > 1:
            os._exit(0)  # a test has left a thread behind


def run_candidate(
    jail: Jail, numbers: Numbers, source: bytes, entry_point: str | None, *, counts: bool
) -> None:
    """Load a candidate in this process, answer the judge's calls, and end it."""
    peer = Peer(CALLS, names={})
    lock_down(jail, numbers, namespaces.CANDIDATE_ID)
    peer.send("locked", 0)
    module = new_module("candidate")
    try:
        code = compile(source, "candidate.py", "exec", dont_inherit=True)
        if counts:
            peer.counted = OpcodeCount(TALLY)
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
    except (ValueError, RecursionError, OverflowError) as error:
        return SyntaxError(str(error))


def _await_loading(peer: Peer) -> object:
    """Wait for the candidate and return its entry point."""
    peer.receive()
    _record(b"s")
    word, candidate = peer.receive()
    if word != "ready":
        raise _NotLoaded
    _record(b"r")
    return candidate


def _judge_one(
    names: _Names,
    text: str,
    codes: list[CodeType | SyntaxError | None],
    number: int,
    n_judged: int,
) -> bytes:
    letter = b"e"
    try:
        # Kept for the candidates that follow: what this one does to memory must not be.
        code = codes[number] = codes[number] or _compile(text, number)
        if not isinstance(code, CodeType):
            raise code
        exec(code, names)
        letter = b"p" if names.peer.leant else b"P"
    except AssertionError as error:
        _explain(number, error)
        letter = b"f"
    except MemoryError as error:
        letter = b"m"
        if n_judged and error is not names.peer.raised:
            _record(b"a")
            os._exit(0)
    except BaseException as error:
        if not names.peer.is_lost:
            _explain(number, error)
    if names.peer.is_lost:
        raise ConnectionLost
    return letter


def _record(letter: bytes) -> None:
    os.write(RECORDS, RECORD.pack(letter, time.monotonic()))


def _explain(number: int, error: BaseException) -> None:
    try:
        print(f"test {number}: {type(error).__name__}: {error}"[:500], file=sys.stderr, flush=True)
    except BaseException:
        return
