"""The process that forks one child per program: small, sequential, one per core.

Started as a fresh interpreter, so its size does not depend on who uses the sandbox: every resident
page is a page to map for each child. It never reads a program: the child that waits for the next
request reads it from the socket itself, and outputs go to the supervisor as sealed files, so no
program finds another's source, tests or output in the memory it inherits.

Where requests bring the same tests again, their judge stays, at most a second without one. While a
program runs, whatever else is alive of any request is the judge of its own tests, and the work
folder holds nothing of requests with other tests: before it begins, a judge of others is ended and
the folder looked at. The pipe on which that is agreed is never held by a program.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import os
import select
import struct
import time

from trillium_sandbox import landlock, namespaces
from trillium_sandbox.bench import Bench, has_ended
from trillium_sandbox.box import Box
from trillium_sandbox.child import Jail, lock_down, new_output, new_tally, run_script
from trillium_sandbox.codec import encode
from trillium_sandbox.descriptors import hold, prepare_streams, read_exactly, standard_input
from trillium_sandbox.judge import run_candidate, run_judge
from trillium_sandbox.opcodes import COUNT
from trillium_sandbox.startup import build_jail, clear_low_descriptors
from trillium_sandbox.turnstile import Turnstile
from trillium_sandbox.wire import ALONE, BEGIN, DONE, HUNG_UP, NO_JUDGE, RECORD, REQUEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Callable
    from typing import NoReturn

    _Result = tuple[float, int, int, bytes, bytes]
    """CPU seconds, wait status, peak resident bytes, what stopped it, records."""

_EMPTY = (1, 256 << 20, 1 << 20, 16, 65536)
_SIGKILL = 9
_IDLE_MS = 1000
"""How long a judge may wait for its next candidate; for its first one, until that comes."""


def main(arguments: list[str]) -> None:
    """Lock this process down to a level and serve until the supervisor hangs up.

    Arguments: level, request socket, reply socket, work folder (levels 0 and 1), disk bytes.
    """
    level, requests, replies = (int(word) for word in arguments[:3])
    requests, replies = clear_low_descriptors(requests, replies)
    channel = _socket.socket(fileno=replies)
    try:
        jail = build_jail(level, arguments[3], int(arguments[4]))
        zygote = Zygote(jail, requests, channel)
        baseline = zygote.measure_empty()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        channel.send(encode(("failed", reason or str(error))))
        return
    channel.send(encode(("ready", baseline, landlock.version(), jail.first_id is not None)))
    prepare_streams()
    gc.collect()
    gc.freeze()
    gc.disable()
    zygote.serve()


class Zygote:
    """Fork, wait, measure, answer; one request at a time."""

    def __init__(self, jail: Jail, requests: int, replies: _socket.socket) -> None:
        """Serve requests from one socket and answer on the other."""
        self.jail = jail
        self.requests = requests
        self.replies = replies
        self.null = os.open("/dev/null", os.O_RDWR)
        self.calls = _socket.socketpair()
        self.bench = Bench(replies)
        self.outputs = [new_output(jail.output_bytes) for _ in range(3)]
        self.tally = new_tally()
        self.box = Box(jail)
        self.turnstile = Turnstile()

    def serve(self) -> None:
        """Run requests until the supervisor hangs up."""
        while self._serve_one():
            pass

    def measure_empty(self) -> int:
        """Return the peak resident bytes of a child that does nothing."""
        child = os.fork()
        if child == 0:
            _guarded(self._empty_child)
        _, status, usage = os.wait4(child, 0)
        if status:
            raise OSError(f"a child could not be locked down (status {status})")
        return usage.ru_maxrss * 1024

    def _serve_one(self) -> bool:
        if self.jail.crowd is not None:
            self.jail.crowd.look()
        child = os.fork()
        if child == 0:
            _guarded(self._next_child)
        watch = os.pidfd_open(child)
        record = self._await_begin(watch)
        if len(record) != BEGIN.size:
            self.bench.dismiss()
            os.kill(child, _SIGKILL)
            os.close(watch)
            os.waitpid(child, 0)
            return False
        (letter, wall_s, cpu_s, ticket, disk_bytes, output_bytes, n_tests, first, counts) = (
            BEGIN.unpack(record)
        )
        if letter == b"T":
            self.bench.seat(child, watch)
            return True
        if letter == b"S":
            os.close(watch)
            os.waitpid(child, 0)
            self._set_sizes(disk_bytes, output_bytes)
            return True
        started = time.monotonic()
        if letter == b"F":
            result = self._run_pair(child, watch, wall_s, cpu_s, n_tests - first, first)
        else:
            result = self._run_alone(child, watch, wall_s, cpu_s)
        os.close(watch)
        elapsed = time.monotonic() - started
        self._answer(ticket, elapsed, result, self._count_opcodes() if counts else 0)
        self._renew_outputs(3 if letter == b"F" else 2)
        self._clean_box()
        return True

    def _set_sizes(self, disk_bytes: int, output_bytes: int) -> None:
        self._clear_court()
        if self.jail.level == 2:
            namespaces.resize_box(disk_bytes)  # a container's is as large as it was made
        self.jail.disk_bytes = disk_bytes
        self.jail.output_bytes = output_bytes
        self._renew_outputs(3)

    def _renew_outputs(self, count: int) -> None:
        for at in range(count):
            os.close(self.outputs[at])
            self.outputs[at] = new_output(self.jail.output_bytes)

    def _await_begin(self, watch: int) -> bytes:
        """Return what the waiting child announces, once it is alone where it must be."""
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        poll.register(self.turnstile.announced, select.POLLIN)
        is_idle = self.bench.is_taken and self.bench.has_served
        if is_idle and not poll.poll(_IDLE_MS):
            self._clear_court()
        poll.poll()
        record = self.turnstile.hear()
        if record == ALONE:
            self._clear_court()
            self.turnstile.open()
            poll.poll()
            record = self.turnstile.hear()
        return record

    def _clear_court(self) -> None:
        """End the judge, and what it may have left in the folder since its last candidate."""
        self.bench.dismiss()
        self._clean_box()

    def _clean_box(self) -> None:
        if not self.box.is_empty():
            self.bench.dismiss()  # nobody may change the folder while it is emptied
            self.box.empty()

    def _run_alone(self, child: int, watch: int, wall_s: float, cpu_s: float) -> _Result:
        stopped = b"-"
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        poll.register(self.replies, 0)
        deadline = time.monotonic() + wall_s
        clock = ~child << 3 | 2  # the CPU clock of another process, as clock_getcpuclockid has it
        while stopped == b"-":
            now = time.monotonic()
            used = time.clock_gettime(clock)
            if now >= deadline:
                stopped = b"w"
            elif used >= cpu_s:
                stopped = b"c"
            elif poll.poll(min(deadline - now, cpu_s - used) * 1000 + 1):
                break
        # Also when the supervisor is gone: a child that has ended does not mind.
        os.kill(child, _SIGKILL)
        _, status, usage = os.wait4(child, 0)
        self._sweep(child)
        return _account(status, usage, stopped, b"")

    def _run_pair(
        self, candidate: int, watch: int, wall_s: float, cpu_s: float, n_left: int, first: int
    ) -> _Result:
        stopped, records = NO_JUDGE, b""
        has_judge = self.bench.hand_over(first, self.calls[0].fileno(), self.outputs[2])
        for end in self.calls:
            end.close()
        self.calls = _socket.socketpair()
        if has_judge:
            stopped, records = self.bench.await_verdicts(candidate, wall_s, cpu_s, n_left)
        if stopped == b"-" and b"x" in records[:: RECORD.size] and not has_ended(watch):
            stopped = HUNG_UP
        os.kill(candidate, _SIGKILL)
        _, status, usage = os.wait4(candidate, 0)
        self._sweep(candidate)
        return _account(status, usage, stopped, records)

    def _sweep(self, child: int) -> None:
        if self.jail.level == 0:  # from level 1 on, no child has children
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, _SIGKILL)

    def _count_opcodes(self) -> int:
        (n_opcodes,) = COUNT.unpack(os.pread(self.tally, COUNT.size, 0))
        os.close(self.tally)
        self.tally = new_tally()
        return int(n_opcodes)

    def _answer(self, ticket: int, elapsed: float, result: _Result, n_opcodes: int) -> None:
        # The offset says how much was written; a program can move it, not past the sealed size.
        sizes = [
            min(os.lseek(output, 0, os.SEEK_CUR), os.fstat(output).st_size)
            for output in self.outputs
        ]
        message = DONE.pack(b"D", ticket, elapsed, *result[:4], n_opcodes, *sizes) + result[4]
        used = [output for output, size in zip(self.outputs, sizes, strict=True) if size]
        files = struct.pack(f"{len(used)}i", *used)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)] if used else []
        self.replies.sendmsg([message], rights)

    def _empty_child(self) -> None:
        lock_down(self.jail, _EMPTY, namespaces.CANDIDATE_ID)
        os._exit(0)

    def _next_child(self) -> None:
        header = read_exactly(self.requests, REQUEST.size)
        if header is None:
            os._exit(0)
        letter, ticket, wall_s, cpu_s, *rest = REQUEST.unpack(header)
        numbers, n_tests, first, counts = tuple(rest[:5]), rest[5], rest[6], rest[9]
        text = read_exactly(self.requests, rest[7]) or b""
        more = read_exactly(self.requests, rest[8]) or b""
        if self.bench.is_taken and letter in b"PT":
            self.turnstile.ask_to_be_alone()
            self.box.enter()
        begin = BEGIN.pack(
            letter, wall_s, cpu_s, ticket, numbers[2], numbers[4], n_tests, first, counts
        )
        tally = self.tally if counts else self.null
        if letter == b"P":
            hold(
                standard_input(more, self.null),
                *self.outputs[:2],
                tally,
                self.turnstile.announce,
            )
            lock_down(self.jail, numbers, namespaces.CANDIDATE_ID)
            os.write(4, begin)
            os.closerange(4 if counts else 3, 5)
            os._exit(run_script(text, 3 if counts else None))
        if letter == b"T":
            os.setsid()  # before it forks: all of them are its group (bench.py)
        os.write(self.turnstile.announce, begin)
        os.umask(0)  # the two of a pair have users of their own and share the work folder
        if letter == b"F":
            hold(self.null, *self.outputs[:2], self.calls[1].fileno(), tally)
            run_candidate(self.jail, numbers, text, more.decode() or None, counts=counts)
        elif letter == b"T":
            court = self.bench.court[1].fileno()
            hold(self.null, self.null, self.null, court, self.bench.records_write)
            run_judge(self.jail, numbers, text, stays=bool(more))
        os._exit(0)


def _guarded(body: Callable[[], None]) -> NoReturn:
    """Run a child's part; whatever goes wrong before it is locked down ends it without a record."""
    try:
        body()
    finally:
        os._exit(70)


def _account(status: int, usage: resource.struct_rusage, stopped: bytes, records: bytes) -> _Result:
    cpu_s = usage.ru_utime + usage.ru_stime
    return cpu_s, status, usage.ru_maxrss * 1024, stopped, records
