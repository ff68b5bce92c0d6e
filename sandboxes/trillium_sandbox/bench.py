"""The zygote's side of judging: the seat that one judge at a time takes.

A judge is a locked-down child with one set of tests. It is handed a candidate, or, where it stays,
one after another, for each of which it may fork. It is dismissed when it misbehaves, idles, or when
other tests come; it and its forks are a process group, which ends as one.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
import select
import struct
import time

from trillium_sandbox.wire import JUDGE_KILLED, LEANT, RECORD

_SIGKILL = 9
_RECORD_BYTES = 1 << 17
"""Room for the records of the largest request, so that the judge never waits for the zygote."""

_LOCK_S = 30.0
"""How long a pair may take to lock itself down; no limit of the request counts before."""

_ANSWER_MS = 100
"""How long a judge may take to notice that a candidate was stopped, else it was stuck itself; and a
process that has hung up to end, else it did not die."""


class Bench:
    """Hold at most one judge, and the pipe on which it records its verdicts."""

    def __init__(self, replies: _socket.socket) -> None:
        """Prepare the pipe and the next judge's socket; `replies` tells when nobody listens."""
        self.replies = replies
        self.records_read, self.records_write = os.pipe()
        os.set_blocking(self.records_read, False)
        fcntl.fcntl(self.records_write, fcntl.F_SETPIPE_SZ, _RECORD_BYTES)
        self.court = _socket.socketpair()
        self.has_served = False
        """Whether the judge has had a candidate; before that it has run no test."""
        self._pid = 0
        self._watch = -1
        self._judge: _socket.socket | None = None

    @property
    def is_taken(self) -> bool:
        """Return whether there is a judge."""
        return self._judge is not None

    def seat(self, pid: int, watch: int) -> None:
        """Take a child that holds `court[1]`, and leads its group, as the judge; `watch` it."""
        self.dismiss()
        self._pid, self._watch, self._judge = pid, watch, self.court[0]
        self.has_served = False
        self.court[1].close()
        self.court = _socket.socketpair()

    def dismiss(self) -> None:
        """End the judge, if there is one, and forget what it has recorded."""
        if self._judge is None:
            return
        os.killpg(self._pid, _SIGKILL)
        with contextlib.suppress(ChildProcessError):  # until there is none
            while True:
                os.waitpid(-self._pid, 0)
        os.close(self._watch)
        self._judge.close()
        self._judge = None
        self.read_records()

    def hand_over(self, first: int, calls: int, said: int) -> bool:
        """Give the judge its line to a candidate and a file for what it has to say.

        `first` is the test to begin with. Returns whether there was a judge to take it.
        """
        if self._judge is None:
            return False
        if _hear(self._judge):
            self.dismiss()  # it speaks out of turn
            return False
        self.has_served = True
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("2i", calls, said))]
        try:
            self._judge.sendmsg([struct.pack("<I", first)], rights)
        except OSError:
            self.dismiss()
            return False
        return True

    def await_verdicts(
        self, candidate: int, wall_s: float, cpu_s: float, n_left: int
    ) -> tuple[bytes, bytes]:
        """Wait until the judge is done, or a limit reached; return what stopped it and the records.

        `wall_s` bounds loading the candidate and then each of the `n_left` tests, `cpu_s` the
        candidate's process.
        """
        judge = self._judge
        assert judge is not None
        stopped, records = b"-", b""
        poll = select.poll()
        poll.register(judge, select.POLLIN)
        poll.register(self._watch, select.POLLIN)
        poll.register(self.replies, 0)
        now = time.monotonic()
        # A test may have taken over the judge and write what it likes: no record counts that is
        # dated in the future, and no number of them buys more time than all tests have together.
        locked_by = now + _LOCK_S
        last = locked_by + (n_left + 1) * wall_s
        clock = ~candidate << 3 | 2  # see zygote.py
        wake = now + min(wall_s, cpu_s)
        while not poll.poll(max(0.0, wake - now) * 1000 + 1):
            now = time.monotonic()
            records = (records + self.read_records())[:_RECORD_BYTES]
            times = [at for at in _beginnings(records) if at <= now]
            due = min(max(times) + wall_s if times else locked_by, last)
            used = time.clock_gettime(clock)
            if now >= due or (times and used >= cpu_s):
                stopped = b"w" if now >= due else b"c"
                os.kill(candidate, _SIGKILL)
                poll.poll(_ANSWER_MS)
                break
            wake = min(due, now + wall_s, now + cpu_s - used)
        records = _whole((records + self.read_records())[:_RECORD_BYTES])
        if not _is_orderly(judge, records, n_left):
            if stopped == b"-" and self._was_killed():
                stopped = JUDGE_KILLED
            self.dismiss()
        return stopped, records

    def _was_killed(self) -> bool:
        if not has_ended(self._watch):
            return False
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is not None and (ended.si_code, ended.si_status) == (os.CLD_KILLED, _SIGKILL)

    def read_records(self) -> bytes:
        """Return what children have written to the pipe since the last time."""
        try:
            return os.read(self.records_read, _RECORD_BYTES)
        except BlockingIOError:
            return b""


def has_ended(watch: int) -> bool:
    """Return whether a process that has hung up ends, after a moment if need be."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(_ANSWER_MS))


def _is_orderly(judge: _socket.socket, records: bytes, n_left: int) -> bool:
    """Return whether the judge said once that it is done, after the verdicts that it owed."""
    letters = [letter for letter, _ in RECORD.iter_unpack(records) if letter != LEANT]
    ended = bool(letters) and letters[-1] in (b"x", b"l")
    return _hear(judge) == b"d" and (ended or len(letters) == n_left + 2)


def _beginnings(records: bytes) -> list[float]:
    """Return the times at which the judge says that it began to wait or to test."""
    return [at for letter, at in RECORD.iter_unpack(_whole(records)) if letter != LEANT]


def _hear(judge: _socket.socket) -> bytes:
    try:
        return judge.recv(2, _socket.MSG_DONTWAIT)
    except OSError:
        return b""


def _whole(records: bytes) -> bytes:
    return records[: len(records) // RECORD.size * RECORD.size]
