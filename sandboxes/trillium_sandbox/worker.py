"""The supervisor's side of one zygote: start it, feed it, read its answers, end it."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from trillium_sandbox.codec import encode
from trillium_sandbox.decode import decode
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.limits import Limits
from trillium_sandbox.verdicts import Request
from trillium_sandbox.wire import DONE, REQUEST

_CREDENTIALS = struct.Struct("3i")
_START_S = 60.0
_GRACE_S = 60.0
_JUDGE_IDLE_S = 0.5
"""A zygote ends a judge that has waited longer; sending the tests again then saves a round."""

_PACKET_BYTES = 1 << 18
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "MALLOC_ARENA_MAX": "1",
    # Each child would look up the functions it calls, on pages of the linker's that none other has.
    "LD_BIND_NOW": "1",
}
# A bare package object, so that the zygote loads its own few modules and not the package's front.
_BOOT = """import sys
package = type(sys)("trillium_sandbox")
package.__path__ = [sys.argv[1]]
sys.modules["trillium_sandbox"] = package
from trillium_sandbox.zygote import main
arguments, sys.argv = sys.argv[2:], ["program.py"]
main(arguments)
"""


@dataclass
class Job:
    """A request on its way: the tests still to run, and how often a worker died under it.

    Nobody waits for a forgotten one any more; while others run before it, it stays in the queue.
    One whose judge was killed needs a judge that nobody had before it.
    """

    ticket: int
    request: Request
    first_test: int = 0
    n_deaths: int = 0
    brought_tests: bool = False
    needs_own_judge: bool = False
    is_forgotten: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a zygote measured for one job, before it is read as a verdict (outcomes.py)."""

    ticket: int
    wall_s: float
    status: int
    cpu_s: float
    peak_bytes: int
    stopped: bytes
    records: bytes
    outputs: tuple[bytes, bytes, bytes]
    sizes: tuple[int, int, int]
    opcode_count: int | None = None


@dataclass
class Worker:
    """One zygote process and the jobs it was sent, the first of which is running."""

    process: subprocess.Popen[bytes]
    requests: socket.socket
    replies: socket.socket
    folder: Path | None
    level: int
    baseline_bytes: int
    landlock: int
    own_users: bool
    zygote: int | None
    jobs: deque[Job] = field(default_factory=deque)
    unsent: bytearray = field(default_factory=bytearray)
    head_since_s: float = 0.0
    tests: tuple[tuple[str | None, tuple[str, ...]], Limits] | None = None
    has_judge: bool = False
    sizes: tuple[int, int] = (0, 0)

    @classmethod
    def start(cls, level: int, disk_bytes: int) -> Worker:
        """Start a zygote at `level`. Raises SandboxError with the kernel call that was refused."""
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"sandbox: needs Linux, this is {sys.platform}; use another backend")
        folder = Path(tempfile.mkdtemp(prefix="trillium-box-")) if level < 2 else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # Messages then carry the sender's process id, as it is known out here.
        answers, answering = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        answers.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        python = getattr(sys, "_base_executable", sys.executable)
        package = str(Path(__file__).parent)
        numbers = [str(level), str(theirs.fileno()), str(answering.fileno())]
        command = [python, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", _BOOT, package, *numbers]
        with theirs, answering:
            process = subprocess.Popen(
                [*command, str(_work_folder(folder)), str(disk_bytes)],
                env=_ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), answering.fileno()),
                start_new_session=True,
            )
        worker = cls(process, ours, answers, folder, level, 0, 0, False, None)
        try:
            worker._await_ready()
        except BaseException:
            worker.stop()
            raise
        ours.setblocking(False)
        answers.setblocking(False)
        return worker

    def submit(self, job: Job) -> None:
        """Queue a job; `flush` sends what the socket takes."""
        now = time.monotonic()
        if not self.jobs:
            if now > self.head_since_s + _JUDGE_IDLE_S:
                self.tests = None
            self.head_since_s = now
        self.jobs.append(job)
        request = job.request
        sizes = (request.limits.disk_bytes, request.limits.output_bytes)
        if sizes != self.sizes:
            self.unsent += _frame(b"S", job, b"", b"")
            self.sizes, self.tests = sizes, None
        if request.mode != "function":
            self.unsent += _frame(b"P", job, request.source, request.stdin)
            self.tests = None  # no judge stays beside the program of another
            return
        tests = (request.entry_point, request.tests)
        come_again = self.tests == (tests, request.limits) and not job.needs_own_judge
        job.brought_tests = not (come_again and self.has_judge)
        if job.brought_tests:
            self.unsent += _frame(b"T", job, encode(tests), b"stay" if come_again else b"")
            self.tests, self.has_judge = (tests, request.limits), come_again
        self.unsent += _frame(b"F", job, request.source, (request.entry_point or "").encode())

    def flush(self) -> None:
        """Send as much as the socket takes now. Raises OSError when the zygote is gone."""
        while self.unsent:
            try:
                sent = self.requests.send(memoryview(self.unsent)[: 1 << 18])
            except BlockingIOError:
                return
            del self.unsent[:sent]

    def receive(self) -> Outcome | None:
        """Return the next outcome, None when there is none yet. Raises OSError when it is gone."""
        try:
            packet, files, _, _ = socket.recv_fds(self.replies, _PACKET_BYTES, 3)
        except BlockingIOError:
            return None
        try:
            if not packet:
                raise ConnectionResetError("the zygote has ended")
            return _read_outcome(packet, files)
        finally:
            for descriptor in files:
                os.close(descriptor)

    def is_lost(self, now: float) -> bool:
        """Return whether the zygote has ended, or its job outlived every limit it enforces itself.

        A zygote that ends closes its socket; this also sees one whose socket something still holds.
        """
        if self.process.poll() is not None:
            return True
        if not self.jobs:
            return False
        request = self.jobs[0].request
        n_turns = len(request.tests) - self.jobs[0].first_test + 1
        return now > self.head_since_s + n_turns * (request.limits.wall_s + 1.0) + _GRACE_S

    def stop(self) -> None:
        """End the zygote and everything it forked; return when all of it is gone."""
        self.requests.close()
        self.replies.close()
        if self.zygote is None:
            self.process.kill()
        else:
            # Its launcher waits for it. A zygote that is process 1 of its space takes all with it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.zygote, signal.SIGKILL)
            select.select([self.zygote], [], [])
            os.close(self.zygote)
        self.process.wait()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _await_ready(self) -> None:
        readable, _, _ = select.select([self.replies], [], [], _START_S)
        packet, sender = _receive_with_sender(self.replies) if readable else (b"", 0)
        message = decode(packet) if packet else ("failed", "the zygote did not start")
        assert isinstance(message, tuple)
        if message[0] != "ready":
            raise SandboxError(f"level {self.level}: {message[1]}")
        _, self.baseline_bytes, self.landlock, self.own_users = message
        self.zygote = os.pidfd_open(sender)


def _receive_with_sender(replies: socket.socket) -> tuple[bytes, int]:
    packet, ancillary, _, _ = replies.recvmsg(_PACKET_BYTES, socket.CMSG_SPACE(12))
    replies.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    senders = [content for _, kind, content in ancillary if kind == socket.SCM_CREDENTIALS]
    return packet, _CREDENTIALS.unpack(senders[0])[0]


def _work_folder(folder: Path | None) -> Path:
    if folder is None:
        return Path("/")
    folder.chmod(0o711)
    work = folder / "work"
    work.mkdir(mode=0o700)
    return work


def _frame(letter: bytes, job: Job, text: bytes, more: bytes) -> bytes:
    limits = job.request.limits
    header = REQUEST.pack(
        letter,
        job.ticket,
        limits.wall_s,
        limits.cpu_s,
        limits.cpu_rlimit_s,
        limits.memory_bytes,
        limits.disk_bytes,
        limits.n_processes,
        limits.output_bytes,
        len(job.request.tests),
        job.first_test,
        len(text),
        len(more),
        job.request.count_opcodes,
    )
    return b"".join((header, text, more))


def _read_outcome(packet: bytes, files: list[int]) -> Outcome:
    if len(packet) < DONE.size or packet[:1] != b"D":
        raise ConnectionResetError("the zygote sent nonsense")
    _, ticket, wall_s, cpu_s, status, peak_bytes, stopped, n_opcodes, *sizes = DONE.unpack_from(
        packet
    )
    if len(files) != sum(size > 0 for size in sizes):
        raise ConnectionResetError("the zygote sent no output where it owed one")
    waiting = iter(files)
    outputs = [os.pread(next(waiting), size, 0) if size else b"" for size in sizes]
    return Outcome(
        ticket,
        wall_s,
        status,
        cpu_s,
        peak_bytes,
        stopped,
        packet[DONE.size :],
        (outputs[0], outputs[1], outputs[2]),
        (sizes[0], sizes[1], sizes[2]),
        n_opcodes or None,
    )
