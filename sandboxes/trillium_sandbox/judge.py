"""Function mode: the judge runs the tests, the candidate answers its calls from elsewhere.

Two locked-down processes. The candidate's never sees a test, an expected value or the record pipe;
the judge's compares plain data that came out of the codec and writes one record per test. The tests
may be hostile too: they can spoil one another's verdicts, never those of another candidate. A judge
takes one; where more come with the same tests, one that runs no test itself forks for each of them,
unless the tests only assert and so cannot leave anything behind: then it takes all itself.
"""

from __future__ import annotations

import _socket
import gc
import os
import resource
import struct
import sys
import time

from trillium_sandbox import namespaces
from trillium_sandbox.channel import ConnectionLost
from trillium_sandbox.child import Jail, finish, lock_down, lock_fork, new_module, report
from trillium_sandbox.descriptors import drop_excess
from trillium_sandbox.opcodes import OpcodeCount
from trillium_sandbox.peer import Peer
from trillium_sandbox.scope import Names, Reading, Tests, origins_of, uses_of
from trillium_sandbox.settings import Settings
from trillium_sandbox.wire import LEANT, RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from trillium_sandbox.child import Numbers

CALLS, TALLY = 3, 4
"""The candidate's descriptors: the judge's calls, and its opcode count when it is asked for."""

COURT, RECORDS = 3, 4
"""The judge's descriptors: what the zygote hands it, and what it reports."""

_CPU_S = 86400
"""The kernel's CPU limit for a judge: it serves many candidates, and the clock bounds each test."""

_SIGKILL = 9
_MEMORY_STEP_KB = 1 << 14
"""By how much a judge of many may grow, at most, before another one takes its place."""

_N_FORKS = 2
"""The fork that judges, and the one that waits for the next candidate."""

_FRAMES_PER_CALL = 6
"""Frames of ours between a program's own frames and those of a call across."""


class _NotLoaded(Exception):
    pass


def run_judge(jail: Jail, numbers: Numbers, tests: bytes, *, stays: bool) -> None:
    """Judge a candidate in this process; or, as one that `stays`, one after another."""
    known = Tests(tests)
    court = _socket.socket(fileno=COURT)
    _, memory_bytes, disk_bytes, n_processes, output_bytes = numbers
    own = _CPU_S, memory_bytes, disk_bytes, n_processes + _N_FORKS * stays, output_bytes
    lock_down(jail, own, namespaces.JUDGE_ID, may_fork=stays)
    if stays:
        _judge_in_forks(jail, court, known)
    _make_ready()
    first, calls = _meet_candidate(court)
    _judge_candidate(known, _meet(calls), first)
    os.close(calls)
    os.write(COURT, b"d")


def _judge_in_forks(jail: Jail, court: _socket.socket, tests: Tests) -> NoReturn:
    """Judge one candidate after another, each in a fork that has already waited for it.

    One fork judges while the next one waits: it holds nothing that a test could use or change.
    """
    judge, has_proved = os.getpid(), False
    n_forks = 0
    while True:
        if has_proved:  # not before a fork has lived through it: a text may crash the compiler
            tests.read_all()
            if n_forks == 0 and tests.only_assert:
                _judge_in_turn(jail, court, tests)
        while n_forks < (_N_FORKS if has_proved else 1):
            n_forks += 1
            if os.fork() == 0:
                try:
                    lock_fork(jail, judge)
                    _make_ready()
                    first, calls = _meet_candidate(court)
                    court.close()
                    has_judged = _judge_candidate(tests, _meet(calls), first)
                    os._exit(0 if has_judged else 1)
                finally:
                    os._exit(70)
        _, status = os.wait()
        n_forks -= 1
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == _SIGKILL:
            os.kill(judge, _SIGKILL)  # the machine's doing: the zygote sees it by the judge
        has_proved = has_proved or status == 0
        os.write(COURT, b"d")


def _judge_in_turn(jail: Jail, court: _socket.socket, tests: Tests) -> NoReturn:
    """Judge one candidate after another in this process, which forks no more.

    It ends, without a word, after a candidate of which anything could stay: an object that is not
    plain, beside the entry point, a module that came with it, memory.
    """
    if jail.filter is not None:
        jail.filter.install(os.getpid())
    _make_ready()
    before = _state()
    while True:
        first, calls = _meet_candidate(court)
        peer = _meet(calls)
        try:
            _judge_candidate(tests, peer, first, is_fresh=False)
        except MemoryError:
            os.kill(os.getpid(), _SIGKILL)
        os.close(calls)
        has_met_more = peer.has_built or peer.handles.n_met > 1
        del peer
        gc.collect()
        if has_met_more or _state() != before:
            os._exit(0)
        os.write(COURT, b"d")


def _state() -> tuple[int, int]:
    """Return what a candidate may change in a process whose tests only assert."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // _MEMORY_STEP_KB, len(sys.modules)


def _meet(calls: int) -> Peer:
    return Peer(calls, on_leaning=lambda: _record(LEANT))


def run_candidate(
    jail: Jail, numbers: Numbers, source: bytes, entry_point: str | None, *, counts: bool
) -> None:
    """Load a candidate in this process, answer the judge's calls, and end it."""
    peer = Peer(CALLS, names={})
    lock_down(jail, numbers, namespaces.CANDIDATE_ID)
    peer.send("locked", 0)
    module = new_module("candidate")
    _make_ready()
    peer.settings = Settings()
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
        peer.send("ready", candidate, origins_of(module.__dict__), uses_of(code))
        peer.serve_forever()
    except ConnectionLost:
        os._exit(finish(0))


def _meet_candidate(court: _socket.socket) -> tuple[int, int]:
    """Wait for a candidate; return the test to begin with and the descriptor of its line."""
    message, rights, _, _ = court.recvmsg(4, _socket.CMSG_SPACE(8))
    if not message:
        os._exit(0)
    calls, said = struct.unpack("2i", rights[0][2])
    os.dup2(said, 2)
    os.close(said)
    (first,) = struct.unpack("<I", message)
    return first, calls


def _judge_candidate(tests: Tests, peer: Peer, first: int, *, is_fresh: bool = True) -> bool:
    """Judge one candidate from the test `first` on; return whether it answered to the end.

    A process that is not `is_fresh` ends where it has no memory left, as if the machine had killed
    it: what was judged before may have taken it, so the test is for another judge.
    """
    try:
        candidate, origins, uses = _await_loading(peer)
        for number in range(first, len(tests.texts)):
            names = Names(peer, tests.entry_point, candidate, origins, uses)
            letter = _judge_one(names, tests, number)
            if letter == b"m" and not is_fresh:
                os.kill(os.getpid(), _SIGKILL)
            _record(letter)
    except _NotLoaded:
        _record(b"l")
        return False
    except ConnectionLost:
        _record(b"x")
        return False
    return True


def _await_loading(peer: Peer) -> tuple[object, dict[str, object], frozenset[str] | None]:
    """Wait for the candidate; return its entry point, where its names come from, and its uses."""
    peer.receive()
    _record(b"s")
    word, candidate, *facts = peer.receive()
    if word != "ready":
        raise _NotLoaded
    _record(b"r")
    origins, uses = facts if len(facts) == 2 else ({}, None)
    return (
        candidate,
        origins if type(origins) is dict else {},
        uses if type(uses) is frozenset else None,
    )


def _judge_one(names: Names, tests: Tests, number: int) -> bytes:
    letter = b"e"
    peer = names.peer
    try:
        read = tests.get(number)
        if isinstance(read, SyntaxError):
            raise read
        code, reading = read
        names.bind(reading.early)
        try:
            exec(code, names)
            letter = b"P"
        finally:
            _weigh(names, reading, has_passed=letter == b"P")
    except AssertionError as error:
        _explain(number, error)
        letter = b"f"
    except MemoryError:
        letter = b"m"
    except BaseException as error:
        peer.leant |= _is_of_two_processes(error, names)
        if not peer.is_lost:
            _explain(number, error)
    if peer.is_lost:
        raise ConnectionLost
    return letter


def _weigh(names: Names, reading: Reading, *, has_passed: bool) -> None:
    """Lean where a test, as it went, could go otherwise in one process with the candidate."""
    peer = names.peer
    copies, handles = peer.copies, peer.handles
    has_met_more = handles.n_met > 1 or copies.has_twins  # than the entry point
    peer.leant |= (
        copies.have_parted()
        or reading.is_of_its_process
        or (reading.looks_inside and has_met_more)
        or (reading.looks_behind and peer.has_met_errors)
        or (peer.counts_otherwise and "decimal" in sys.modules)
        or names.have_replaced(in_use=has_passed)
        or (not has_passed and (reading.prepares or handles.has_lent or peer.differs))
    )


def _is_of_two_processes(error: BaseException, names: Names) -> bool:
    """Return whether a test may have erred for not being in one process with the candidate."""
    if isinstance(error, NameError):
        # A candidate may miss a name that the test has, a test's `del` one of the candidate's.
        name = error.name
        return error is names.peer.raised or (type(name) is str and name in names.origins)
    return isinstance(error, PermissionError)  # the two have users of their own


def _make_ready() -> None:
    """Let programs print without end, and recurse as deep as without our own frames."""
    drop_excess()
    depth, frame = _FRAMES_PER_CALL, sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(sys.getrecursionlimit() + depth)


def _record(letter: bytes) -> None:
    os.write(RECORDS, RECORD.pack(letter, time.monotonic()))


def _explain(number: int, error: BaseException) -> None:
    try:
        print(f"test {number}: {type(error).__name__}: {error}"[:500], file=sys.stderr, flush=True)
    except BaseException:
        return
