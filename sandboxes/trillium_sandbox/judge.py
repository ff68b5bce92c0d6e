"""Function mode: the judge runs the tests, the candidate answers its calls from elsewhere.

Two locked-down processes. The candidate's never sees a test, an expected value or the record pipe;
the judge's compares plain data that came out of the codec and writes one record per test. The tests
may be hostile too: they can spoil one another's verdicts, never those of other tests. A judge takes
one candidate after another, as long as they come with the same tests.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import struct
import sys
import time
from types import CodeType

from trillium_sandbox import namespaces
from trillium_sandbox.channel import ConnectionLost
from trillium_sandbox.child import Jail, finish, lock_down, new_module, report
from trillium_sandbox.decode import decode
from trillium_sandbox.opcodes import OpcodeCount
from trillium_sandbox.peer import Peer
from trillium_sandbox.scope import Names, Reading, origins_of, read_test
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

_TIMERS = _signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF

_LEANING = {b"P": b"p", b"f": b"g", b"e": b"d"}


class _NotLoaded(Exception):
    pass


def run_judge(jail: Jail, numbers: Numbers, tests: bytes) -> None:
    """Judge one candidate after another in this process. `tests`: (entry point, tests) in codec."""
    entry_point: str | None
    texts: tuple[str, ...]
    entry_point, texts = decode(tests)  # type: ignore[misc]
    court = _socket.socket(fileno=COURT)
    lock_down(jail, (_CPU_S, *numbers[1:]), namespaces.JUDGE_ID)
    codes: list[tuple[CodeType, Reading] | SyntaxError | None] = [None] * len(texts)
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
            candidate, origins = _await_loading(peer)
            for number in range(struct.unpack("<I", message)[0], len(texts)):
                names = Names(peer, entry_point, candidate, origins)
                _record(_judge_one(names, texts[number], codes, number, n_judged))
        except _NotLoaded:
            _record(b"l")
        except ConnectionLost:
            _record(b"x")
        os.close(calls)
        os.write(COURT, b"d")
        n_judged += 1
        if len(sys._current_frames()) > 1 or any(_signal.getitimer(timer)[0] for timer in _TIMERS):
            os._exit(0)  # a test has left a thread behind, or an alarm that would end the next one


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
        candidate = None if entry_point is None else module.__dict__[entry_point]
        peer.send("ready", candidate, origins_of(module.__dict__))
        peer.serve_forever()
    except ConnectionLost:
        os._exit(finish(0))


def _await_loading(peer: Peer) -> tuple[object, dict[str, object]]:
    """Wait for the candidate and return its entry point and where its names come from."""
    peer.receive()
    _record(b"s")
    word, candidate, *origins = peer.receive()
    if word != "ready":
        raise _NotLoaded
    _record(b"r")
    return candidate, origins[0] if origins and type(origins[0]) is dict else {}


def _judge_one(
    names: Names,
    text: str,
    codes: list[tuple[CodeType, Reading] | SyntaxError | None],
    number: int,
    n_judged: int,
) -> bytes:
    letter = b"e"
    peer = names.peer
    try:
        # Kept for the candidates that follow: what this one does to memory must not be.
        read = codes[number] = codes[number] or read_test(text, number)
        if isinstance(read, SyntaxError):
            raise read
        code, reading = read
        names.bind(reading.early)
        try:
            exec(code, names)
            letter = b"P"
        finally:
            peer.look_back()
            has_met_more = peer.n_met > 1 or peer.has_twins  # than the entry point
            peer.leant |= (
                reading.is_of_its_process
                or (reading.looks_inside and has_met_more)
                or (letter != b"P" and (reading.prepares or peer.has_lent or names.have_replaced()))
            )
    except AssertionError as error:
        _explain(number, error)
        letter = b"f"
    except MemoryError as error:
        letter = b"m"
        if n_judged and error is not peer.raised:
            _record(b"a")
            os._exit(0)
    except BaseException as error:
        # A candidate may miss a name that the test has.
        peer.leant |= isinstance(error, NameError) and error is peer.raised
        if not peer.is_lost:
            _explain(number, error)
    if peer.is_lost:
        raise ConnectionLost
    return _LEANING.get(letter, letter) if peer.leant else letter


def _record(letter: bytes) -> None:
    os.write(RECORDS, RECORD.pack(letter, time.monotonic()))


def _explain(number: int, error: BaseException) -> None:
    try:
        print(f"test {number}: {type(error).__name__}: {error}"[:500], file=sys.stderr, flush=True)
    except BaseException:
        return
