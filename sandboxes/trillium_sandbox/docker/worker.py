"""One container from the outside: start it, feed it, read its answers, end it."""

from __future__ import annotations

import contextlib
import select
import time
from dataclasses import dataclass, field

from docker import APIClient

from trillium_sandbox import frames
from trillium_sandbox.docker import daemon
from trillium_sandbox.docker.room import Room
from trillium_sandbox.docker.stream import Stream
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.worker import Job

_START_S = 60.0
_GRACE_S = 120.0
"""How much longer than all its limits a request may take: the zygote's own grace, twice."""


@dataclass(eq=False)
class ContainerWorker:
    """A running container, and the jobs that it was sent and has not answered."""

    api: APIClient
    container: str
    stream: Stream
    room: Room
    kernel: str = ""
    landlock: int = 0
    jobs: dict[int, Job] = field(default_factory=dict)
    n_taken: int = 0
    heard_s: float = 0.0
    is_spent: bool = False

    @classmethod
    def start(cls, plan: daemon.Plan, room: Room) -> ContainerWorker:
        """Start a container and wait until it has proved its walls. Raises SandboxError."""
        api = daemon.connect()
        container, stream = "", None
        try:
            container = daemon.create(api, plan, room)
            # Attached before it starts: nothing that it says can be missed.
            parameters = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            stream = Stream(api.attach_socket(container, parameters))
            worker = cls(api, container, stream, room)
            api.start(container)
            worker._await_ready()
        except (*daemon.FAILURES, SandboxError, frames.FrameError) as error:
            if stream is not None:
                stream.close()
            if container:
                with contextlib.suppress(*daemon.FAILURES):
                    daemon.remove(api, container)
            api.close()
            if isinstance(error, SandboxError):
                raise
            reason = daemon.brief(error)
            raise SandboxError(
                f"docker: no container can be started ({reason}); `trillium doctor` says what the "
                "engine lacks"
            ) from error
        return worker

    def submit(self, job: Job) -> None:
        """Queue a job; `stream.send` sends what the socket takes."""
        if not self.jobs:
            self.heard_s = time.monotonic()
        self.jobs[job.ticket] = job
        self.n_taken += 1
        self.stream.unsent += frames.request_frame(job.ticket, job.request)

    def forget(self, tickets: set[int]) -> None:
        """Tell the container to drop some of its jobs."""
        dropped = tuple(ticket for ticket in self.jobs if ticket in tickets)
        if dropped:
            self.jobs = {t: job for t, job in self.jobs.items() if t not in tickets}
            self.stream.unsent += frames.frame(("forget", dropped))

    def receive(self) -> list[tuple[object, ...]]:
        """Return the messages that have come. Raises OSError when the container is gone."""
        if not self.stream.receive():
            raise ConnectionResetError("the container has ended")
        self.heard_s = time.monotonic()
        return frames.take_frames(self.stream.said)

    def is_lost(self, now: float) -> bool:
        """Return whether it says nothing for longer than any of its jobs can take."""
        if not self.jobs:
            return False
        longest = max(
            (len(job.request.tests) + 2) * (job.request.limits.wall_s + 1.0)
            for job in self.jobs.values()
        )
        return now > self.heard_s + longest + _GRACE_S

    def stop(self) -> None:
        """End the container; return when it is gone, or the engine does not answer."""
        self.stream.close()
        with contextlib.suppress(*daemon.FAILURES):
            daemon.remove(self.api, self.container)
        self.api.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        said = select.poll()
        said.register(self.stream.socket, select.POLLIN)
        messages: list[tuple[object, ...]] = []
        while not messages:
            left = deadline - time.monotonic()
            if not said.poll(max(0.0, left) * 1000):
                raise SandboxError(
                    f"docker: a container was not ready after {_START_S:.0f} s; look at the load "
                    "of the engine's machine"
                )
            if not self.stream.receive():
                words = self.stream.errors.decode("utf-8", "replace").split("\n")
                last = next(filter(None, reversed(words)), "it said nothing")
                raise SandboxError(
                    f"docker: a container ended at once ({last}); build its image anew: "
                    "sandboxes/images/python/build"
                )
            messages = frames.take_frames(self.stream.said)
        word, *rest = messages[0]
        if word != "ready" or [type(value) for value in rest] != [str, int]:
            raise SandboxError(f"docker: {rest[0] if rest else word}")
        self.kernel, self.landlock = rest  # type: ignore[assignment]
