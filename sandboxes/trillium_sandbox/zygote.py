"""The process that forks one child per program: small, sequential, one per core.

Started as a fresh interpreter, so its size does not depend on who uses the sandbox: every resident
page is a page to map for each child. It never reads a program: the child that waits for the next
request reads it from the socket itself, and outputs go to the supervisor as sealed files, so no
program finds another's source, tests or output in the memory it inherits.
"""

from __future__ import annotations

import _sitebuiltins
import _socket
import builtins
import fcntl
import gc
import os
import resource
import select
import struct
import sys
import time

from trillium_sandbox import landlock, linux, namespaces
from trillium_sandbox.child import Jail, lock_down, prepare, run_script, seal
from trillium_sandbox.codec import encode
from trillium_sandbox.judge import run_candidate, run_judge
from trillium_sandbox.wire import BEGIN, RECORD, REQUEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# fmt: off
_PRELOADED = (
    "bisect", "collections", "functools", "heapq", "itertools", "math", "operator", "re", "typing",
)
# fmt: on
_EMPTY = (1, 256 << 20, 1 << 20, 16, 65536)
_FIRST_FREE = 10
_SIGKILL = 9
_RECORD_BYTES = 1 << 17
"""Room for the records of the largest request, so that the judge never waits for the zygote."""

_LOCK_S = 30.0
"""How long a pair may take to lock itself down; no limit of the request counts before."""


def main(arguments: list[str]) -> None:
    """Lock this process down to a level and serve until the supervisor hangs up.

    Arguments: level, request socket, reply socket, work folder (levels 0 and 1), disk bytes.
    """
    level, requests, replies = (int(word) for word in arguments[:3])
    requests, replies = _clear_low_descriptors(requests, replies)
    channel = _socket.socket(fileno=replies)
    try:
        jail = _prepare(level, arguments[3], int(arguments[4]))
        zygote = Zygote(jail, requests, channel)
        baseline = zygote.measure_empty()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        channel.send(encode(("failed", reason or str(error))))
        return
    channel.send(encode(("ready", baseline, landlock.version(), jail.first_id is not None)))
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
        self.records_read, self.records_write = os.pipe()
        os.set_blocking(self.records_read, False)
        fcntl.fcntl(self.records_write, fcntl.F_SETPIPE_SZ, _RECORD_BYTES)
        self.go_read, self.go_write = os.pipe2(os.O_CLOEXEC)
        self.calls = _socket.socketpair()
        self.outputs = [_new_output() for _ in range(3)]

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
        child = os.fork()
        if child == 0:
            _guarded(self._first_child)
        watch = os.pidfd_open(child)
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        poll.register(self.records_read, select.POLLIN)
        poll.poll()
        record = _read_records(self.records_read)
        if not record:
            os.close(watch)
            os.waitpid(child, 0)
            return False
        letter, wall_s, cpu_s, ticket, disk_bytes, n_tests = BEGIN.unpack(record[: BEGIN.size])
        records = record[BEGIN.size :]
        started = time.monotonic()
        if disk_bytes != self.jail.disk_bytes:
            if self.jail.level >= 2:
                namespaces.resize_box(disk_bytes)
            self.jail.disk_bytes = disk_bytes
            os.write(self.go_write, b"g")
        poll.unregister(self.records_read)
        poll.register(self.replies, 0)
        if letter == b"F":
            result = self._run_pair(child, poll, wall_s, n_tests, records)
        else:
            result = self._run_alone(child, poll, wall_s, cpu_s)
        os.close(watch)
        elapsed = time.monotonic() - started
        self._answer(ticket, elapsed, result)
        self._renew(letter == b"F")
        return True

    def _run_alone(
        self, child: int, poll: select.poll, wall_s: float, cpu_s: float
    ) -> tuple[object, ...]:
        stopped = ""
        deadline = time.monotonic() + wall_s
        clock = ~child << 3 | 2  # the CPU clock of another process, as clock_getcpuclockid has it
        while not stopped:
            now = time.monotonic()
            used = time.clock_gettime(clock)
            if now >= deadline:
                stopped = "wall_s"
            elif used >= cpu_s:
                stopped = "cpu_s"
            elif poll.poll(min(deadline - now, cpu_s - used) * 1000 + 1):
                break
        # Also when the supervisor is gone: a child that has ended does not mind.
        os.kill(child, _SIGKILL)
        _, status, usage = os.wait4(child, 0)
        return _account(status, usage, (0, 0.0), stopped, b"")

    def _run_pair(
        self, judge: int, poll: select.poll, wall_s: float, n_tests: int, records: bytes
    ) -> tuple[object, ...]:
        candidate = os.fork()
        if candidate == 0:
            _guarded(self._candidate)
        for end in self.calls:
            end.close()
        stopped = ""
        now = time.monotonic()
        # A test may have taken over the judge and write what it likes: no record counts that is
        # dated in the future, and no number of them buys more time than all tests have together.
        locked_by = now + _LOCK_S
        last = locked_by + (n_tests + 1) * wall_s
        wake = now + wall_s
        while not poll.poll(max(0.0, wake - now) * 1000 + 1):
            now = time.monotonic()
            records = (records + _read_records(self.records_read))[:_RECORD_BYTES]
            times = [at for _, at, _ in RECORD.iter_unpack(_whole(records)) if at <= now]
            due = min(max(times) + wall_s if times else locked_by, last)
            if now >= due:
                stopped = "wall_s"
                break
            wake = min(due, now + wall_s)
        os.kill(judge, _SIGKILL)
        os.kill(candidate, _SIGKILL)
        _, judge_status, judge_usage = os.wait4(judge, 0)
        _, status, usage = os.wait4(candidate, 0)
        records = (records + _read_records(self.records_read))[:_RECORD_BYTES]
        judge_cpu_s = judge_usage.ru_utime + judge_usage.ru_stime
        return _account(status, usage, (judge_status, judge_cpu_s), stopped, _whole(records))

    def _answer(self, ticket: int, elapsed: float, result: tuple[object, ...]) -> None:
        # The offset says how much was written; a program can move it, not past the sealed size.
        sizes = [
            min(os.lseek(output, 0, os.SEEK_CUR), os.fstat(output).st_size)
            for output in self.outputs
        ]
        message = encode(("done", ticket, elapsed, *result, tuple(sizes)))
        used = [output for output, size in zip(self.outputs, sizes, strict=True) if size]
        files = struct.pack(f"{len(used)}i", *used)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)] if used else []
        self.replies.sendmsg([message], rights)

    def _renew(self, was_pair: bool) -> None:
        """Replace what the last program has touched."""
        for at in (0, 1, 2) if was_pair else (0, 1):
            os.close(self.outputs[at])
            self.outputs[at] = _new_output()
        if was_pair:
            self.calls = _socket.socketpair()
        with os.scandir(self.jail.box) as entries:
            used = next(entries, None) is not None
        if used and self.jail.level >= 2:
            namespaces.replace_box(self.jail.disk_bytes)
            if self.jail.ruleset is not None:
                os.close(self.jail.ruleset)
            self.jail.ruleset = _rules(self.jail)
        elif used:
            _empty_folder(self.jail.box)

    def _empty_child(self) -> None:
        lock_down(self.jail, _EMPTY, namespaces.CANDIDATE_ID)
        os._exit(0)

    def _first_child(self) -> None:
        header = _read_exactly(self.requests, REQUEST.size)
        if header is None:
            os._exit(0)
        ticket, wall_s, cpu_s, *numbers, n_tests, n_source, n_stdin, tests_size = REQUEST.unpack(
            header
        )
        disk_bytes, output_bytes = numbers[2], numbers[4]
        begin = (wall_s, cpu_s, ticket, disk_bytes, n_tests)
        source = _read_exactly(self.requests, n_source) or b""
        stdin = _read_exactly(self.requests, n_stdin) or b""
        if n_tests:
            tests = _read_exactly(self.requests, tests_size) or b""
            self._begin(BEGIN.pack(b"F", *begin), disk_bytes, self.records_write, self.go_read)
            seal(self.outputs[2], output_bytes)
            calls = self.calls[0].fileno()
            _hold(self.null, self.null, self.outputs[2], calls, self.records_write)
            os.umask(0)
            user = namespaces.JUDGE_ID
            run_judge(self.jail, tuple(numbers), source, tests, user)
        for output in self.outputs[:2]:
            seal(output, output_bytes)
        _hold(_stdin(stdin, self.null), *self.outputs[:2], self.go_read, self.records_write)
        os.umask(0o022)
        lock_down(self.jail, tuple(numbers), namespaces.CANDIDATE_ID)
        self._begin(BEGIN.pack(b"P", *begin), disk_bytes, 4, 3)
        os.closerange(3, 5)
        os._exit(run_script(source))

    def _candidate(self) -> None:
        _hold(self.null, *self.outputs[:2], self.calls[1].fileno(), self.null)
        os.umask(0)
        run_candidate(self.jail, namespaces.CANDIDATE_ID)

    def _begin(self, message: bytes, disk_bytes: int, records: int, go: int) -> None:
        """Tell the zygote what starts, and wait where the work folder must change size first."""
        os.write(records, message)
        if disk_bytes != self.jail.disk_bytes:
            os.read(go, 1)


def _prepare(level: int, box: str, disk_bytes: int) -> Jail:
    if level >= 1 and not linux.NUMBERS:
        raise OSError(f"no system call table for {linux.MACHINE} (x86_64 or aarch64)")
    for name in _PRELOADED:
        __import__(name)
    # Programs expect what the site module adds; it is not loaded for its size.
    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    _lead_oom_killer()
    memory = _address_space()
    first_id = None
    if level >= 2:
        first_id = namespaces.enter(disk_bytes)
        box = namespaces.BOX
    elif level == 1 and os.geteuid() == 0:
        first_id = namespaces.OUTSIDE_IDS
        os.setgroups([])
        _check_readable(first_id)
        os.chmod(box, 0o777)
    os.environ.update(HOME=box, TMPDIR=box)
    os.chdir("/")
    jail = Jail(level, box, first_id, disk_bytes)
    jail.base_memory = memory
    prepare(jail)
    if level == 1 and landlock.version() == 0:
        raise OSError("Landlock is missing (Linux 5.13 or newer, with it enabled)")
    if level >= 1 and landlock.version():
        jail.ruleset = _rules(jail)
    return jail


def _rules(jail: Jail) -> int:
    readable = (*namespaces.library_paths(), "/dev/urandom", "/dev/zero")
    return landlock.ruleset(readable, (jail.box, "/dev/null"))


def _check_readable(user: int) -> None:
    """Raise OSError where another user could not even import from the standard library."""
    child = os.fork()
    if child == 0:
        os.setresuid(user, user, user)
        os._exit(0 if os.access(os.__file__, os.R_OK) else 1)
    if os.waitpid(child, 0)[1]:
        raise OSError(f"the interpreter in {sys.base_prefix} is not readable by other users")


def _address_space() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[0]) * resource.getpagesize()


def _lead_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        return  # a convenience: the kernel then chooses whom to kill by size alone


def _clear_low_descriptors(*descriptors: int) -> list[int]:
    """Move descriptors out of the way of the numbers that children hand to programs."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, _FIRST_FREE) for number in descriptors]
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(_FIRST_FREE):
        if number != null:
            os.dup2(null, number)
    return moved


def _guarded(body: Callable[[], None]) -> NoReturn:
    """Run a child's part; whatever goes wrong before it is locked down ends it without a record."""
    try:
        body()
    finally:
        os._exit(70)


def _hold(*descriptors: int) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)


def _new_output() -> int:
    return os.memfd_create("output", os.MFD_ALLOW_SEALING)


def _stdin(content: bytes, null: int) -> int:
    if not content:
        return null
    descriptor = os.memfd_create("stdin", 0)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    """Return `size` bytes, None when the stream ends first."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _read_records(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _RECORD_BYTES)
    except BlockingIOError:
        return b""


def _whole(records: bytes) -> bytes:
    return records[: len(records) // RECORD.size * RECORD.size]


def _account(
    status: int,
    usage: resource.struct_rusage,
    judge: tuple[int, float],
    stopped: str,
    records: bytes,
) -> tuple[object, ...]:
    cpu_s = usage.ru_utime + usage.ru_stime
    return status, cpu_s, usage.ru_maxrss * 1024, stopped, records, *judge


def _empty_folder(folder: str) -> None:
    """Empty a folder without recursion and without following links, whatever its modes.

    Folders are dissolved from the top: their entries move up, so no path ever grows long.
    """
    number = 0
    while True:
        with os.scandir(folder) as entries:
            found = list(entries)
        if not found:
            return
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for name in os.listdir(entry.path):
                os.rename(f"{entry.path}/{name}", f"{folder}/.{number}")
                number += 1
            os.rmdir(entry.path)
