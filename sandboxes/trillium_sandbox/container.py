"""Process 1 of a container: takes requests from standard input, answers on standard output.

Ends, and the container with it, when its input ends. Programs never hold its streams: their outputs
come back as files, and what is written here is framed.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from trillium_sandbox import frames, landlock
from trillium_sandbox.embedded import EmbeddedBackend
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.namespaces import BOX, SHARED_MEMORY
from trillium_sandbox.verdicts import Reply

_STDIN, _STDOUT = 0, 1
_CHUNK_BYTES = 1 << 18
_TICK_S = 1.0
_GATHER, _GATHER_S = 6, 0.01
"""While more is under way this many answers, or those of this time, leave in one write: each write
wakes the shim, the engine and the caller, who share the processors with the programs."""

_OOM_COUNTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def main() -> None:
    """Prove the walls of a level, say that this container is ready, and serve.

    Argument: the level.
    """
    # Where the engine has left room for it; else programs have no shared memory (gVisor).
    with contextlib.suppress(OSError):
        Path(SHARED_MEMORY).symlink_to(BOX)
    try:
        supervisor = Supervisor(int(sys.argv[1]))
    except SandboxError as error:
        _write(frames.frame(("failed", str(error))))
        return
    _write(frames.frame(("ready", os.uname().release, landlock.version())))
    supervisor.serve(_STDIN)
    os._exit(0)  # the end of process 1 is the end of every other


class Supervisor(EmbeddedBackend):
    """One zygote, and the stream that feeds it."""

    def __init__(self, level: int) -> None:
        """Start the zygote. Raises SandboxError when a wall of the container is missing."""
        super().__init__(level, n_workers=1)
        self._tickets: dict[int, int] = {}
        self._n_killed = _count_oom_kills()

    def serve(self, source: int) -> None:
        """Run what comes in from `source` until that ends."""
        self._selector.register(source, selectors.EVENT_READ)
        arrivals = select.poll()
        arrivals.register(source, select.POLLIN)
        held, gathered, due_s = bytearray(), list[bytes](), 0.0
        while True:
            for answer in self.collect(_GATHER_S if gathered else _TICK_S).items():
                due_s = due_s if gathered else time.monotonic() + _GATHER_S
                gathered.append(self._answer(*answer))
            is_due = len(gathered) >= _GATHER or time.monotonic() >= due_s or not self._tickets
            if gathered and is_due:
                _write(b"".join(gathered))
                gathered.clear()
            if not arrivals.poll(0):
                continue
            chunk = os.read(source, _CHUNK_BYTES)
            if not chunk:
                return
            held += chunk
            for message in frames.take_frames(held):
                self._obey(message)

    def _obey(self, message: tuple[object, ...]) -> None:
        if message[0] == "run":
            ticket, request = frames.read_request(message)
            self._tickets[self.submit(request)] = ticket
            return
        _, dropped = message
        own = [mine for mine, theirs in self._tickets.items() if theirs in dropped]  # type: ignore[operator]
        for ticket in own:
            del self._tickets[ticket]
        self.forget(own)

    def _answer(self, ticket: int, reply: Reply) -> bytes:
        complaint = None
        if self.n_lost:
            complaint = "a zygote died"
        was_killed = reply.status == "killed" or reply.exit_code == -signal.SIGKILL
        if was_killed and _count_oom_kills() > self._n_killed:
            complaint = "the memory of the container was not enough"
            reply = replace(reply, status="memory", limit_hit="memory_bytes")
        return frames.reply_frame(self._tickets.pop(ticket), reply, complaint)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_STDOUT, view) :]


def _count_oom_kills() -> int:
    for path in _OOM_COUNTS:
        try:
            lines = Path(path).read_text().splitlines()
        except OSError:
            continue
        return int(dict(line.split() for line in lines).get("oom_kill", 0))
    return 0
