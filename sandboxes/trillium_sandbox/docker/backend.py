"""The backend that runs programs in containers: a few of them, each fed by its own stream.

Containers are replaced after so many programs, when they complain, when they are lost, and when
requests come that need another room; the new one is started beside the old one, which goes on. An
engine that does not answer is asked again and again; requests wait for it, but not for ever.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from trillium_sandbox import frames
from trillium_sandbox.docker import daemon
from trillium_sandbox.docker.room import Room
from trillium_sandbox.docker.worker import ContainerWorker
from trillium_sandbox.engine import Engine
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.limits import Limits
from trillium_sandbox.verdicts import Reply, Request
from trillium_sandbox.worker import Job

MAX_DEATHS = 3
"""A request under which this many containers died is answered with sandbox_error."""

PATIENCE_S = 60.0
"""How long requests wait while no container can be started, before they are answered so, too."""

RECYCLE_AFTER = 10_000
"""Programs after which a container is replaced, whatever state it is in."""

_AHEAD = 16
"""Jobs a container is sent ahead of the one that it runs."""

_LONGEST_PAUSE_S = 5.0
_FIRST_PAUSE_S = 0.2
_LOOK_S = 1.0
_LOOK_AHEAD = 256


@dataclass(eq=False)
class _Place:
    """Where one container stands at a time, and when a failed one may be tried again."""

    worker: ContainerWorker | None = None
    starting: Room | None = None
    n_failures: int = 0
    retry_s: float = 0.0


@dataclass(frozen=True)
class _Arrival:
    place: _Place
    found: ContainerWorker | SandboxError


class DockerBackend(Engine):
    """Run programs in hardened containers, one zygote in each, one container per core."""

    def __init__(self, n_workers: int | None = None, runtime: str | None = None) -> None:
        """Start the containers. Raises SandboxError when one of them cannot be started."""
        with contextlib.closing(daemon.connect()) as api:
            self._plan = daemon.look(api, runtime)
        n_workers = n_workers or self._plan.n_cores
        super().__init__(self._plan.level, 2 * _AHEAD * n_workers)
        self._waiting: deque[Job] = deque()
        self._places = [_Place() for _ in range(n_workers)]
        self._leaving: list[ContainerWorker] = []
        self._arrivals: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._failure = ""
        self._alone_since_s = time.monotonic()
        self._next_look_s = 0.0
        self.n_restarts = 0
        for place in self._places:
            self._begin(place, Room.for_limits(Limits()))
        try:
            self._await_first()
        except BaseException:
            self.close()
            raise

    @property
    def containers(self) -> tuple[str, ...]:
        """Return the ids of the containers that run, in no order."""
        return tuple(worker.container for worker in self._workers())

    @property
    def origin(self) -> str:
        """Return what results depend on beside this code: the image, and so its interpreter."""
        return self._plan.image

    @property
    def walls(self) -> str:
        """Return in words what stands around the programs, as the first container proved it."""
        worker = self._workers()[0]
        rules = f"Landlock {worker.landlock}" if worker.landlock else "no Landlock"
        kind = self._plan.runtime or "container"
        return f"{kind}, seccomp, {rules}, users of its own, kernel {worker.kernel}"

    def _standing(self) -> list[ContainerWorker]:
        return [place.worker for place in self._places if place.worker is not None]

    def _workers(self) -> list[ContainerWorker]:
        return self._standing() + self._leaving

    def _await_first(self) -> None:
        """Wait until every place has its first container."""
        for _ in self._places:
            arrival = self._arrivals.get()
            self._receive(arrival)
            if isinstance(arrival.found, SandboxError):
                raise arrival.found
            if self._level > 3 and arrival.found.kernel == self._plan.kernel:
                raise SandboxError(
                    f"docker: runtime {self._plan.runtime} runs programs on the engine's own "
                    f"kernel ({self._plan.kernel}), which is level 3; ask for no runtime"
                )

    def _enqueue(self, ticket: int, request: Request) -> None:
        self._waiting.append(Job(ticket, request))

    def _dispatch(self) -> None:
        """Hand every job to the idlest container that fits it; have one made for the first left."""
        if not self._workers():
            self._look_after(time.monotonic())
        passed: list[Job] = []
        fed: set[ContainerWorker] = set()
        for _ in range(min(len(self._waiting), _LOOK_AHEAD)):
            ready = [w for w in self._standing() if len(w.jobs) < _AHEAD and not w.is_spent]
            if not ready:
                break
            job = self._waiting.popleft()
            fitting = [worker for worker in ready if worker.room.holds(job.request.limits)]
            if not fitting:
                passed.append(job)
                continue
            worker = min(fitting, key=lambda worker: len(worker.jobs))
            worker.submit(job)
            fed.add(worker)
        self._waiting.extendleft(reversed(passed))
        for worker in fed:
            self._flush(worker)
        if passed:
            self._prepare(passed[0].request.limits)

    def _prepare(self, limits: Limits) -> None:
        """Have a container made for these limits, unless one is on its way."""
        rooms = [place.starting for place in self._places if place.starting is not None]
        rooms += [worker.room for worker in self._standing() if not worker.is_spent]
        if any(room.holds(limits) for room in rooms):
            return
        free = [place for place in self._places if place.starting is None]
        if free:
            place = min(free, key=lambda place: len(place.worker.jobs) if place.worker else 0)
            self._begin(place, Room.for_limits(limits))

    def _next_room(self) -> Room:
        return Room.for_limits(self._waiting[0].request.limits if self._waiting else Limits())

    def _begin(self, place: _Place, room: Room) -> None:
        """Start a container in a thread of its own; it arrives in `_step`."""
        if place.retry_s > time.monotonic():
            return
        place.starting = room

        def start() -> None:
            found: ContainerWorker | SandboxError
            try:
                found = ContainerWorker.start(self._plan, room)
            except SandboxError as error:
                found = error
            self._arrivals.put(_Arrival(place, found))
            self.wake()

        self._in_thread(start)

    def _in_thread(self, work: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=work, name="trillium-docker", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _step(self, timeout_s: float) -> None:
        now = time.monotonic()
        pauses = [place.retry_s - now for place in self._places if place.retry_s > now]
        for key, events in self._selector.select(min([timeout_s, *pauses])):
            worker = key.data
            if worker is None or worker not in self._workers():  # the bell, or lost a moment ago
                continue
            if events & selectors.EVENT_WRITE:
                self._flush(worker)
            if events & selectors.EVENT_READ and worker in self._workers():
                self._hear(worker)
        self._look_after(time.monotonic())

    def _look_after(self, now: float) -> None:
        """Start what is missing, end what is lost, and give up when there is nothing for long."""
        while not self._arrivals.empty():
            self._receive(self._arrivals.get())
        if now >= self._next_look_s:
            self._next_look_s = now + _LOOK_S
            for worker in [worker for worker in self._workers() if worker.is_lost(now)]:
                self._lose(worker)
        for place in self._places:
            is_worn = (
                place.worker is None
                or place.worker.is_spent
                or place.worker.n_taken >= RECYCLE_AFTER
            )
            if is_worn and place.starting is None:
                self._begin(place, place.worker.room if place.worker else self._next_room())
        if self._workers():
            self._alone_since_s = now
        elif now > self._alone_since_s + PATIENCE_S:
            for job in self._waiting:
                self._fail(job, f"no container for {PATIENCE_S:.0f} s: {self._failure}")
            self._waiting.clear()

    def _flush(self, worker: ContainerWorker) -> None:
        try:
            worker.stream.send()
        except OSError:
            self._lose(worker)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.stream.unsent else 0)
        if self._selector.get_key(worker.stream.socket).events != wanted:
            self._selector.modify(worker.stream.socket, wanted, worker)

    def _hear(self, worker: ContainerWorker) -> None:
        try:
            for message in worker.receive():
                self._settle(worker, message)
        except (OSError, frames.FrameError):
            self._lose(worker)
            return
        if worker in self._leaving and not worker.jobs:
            self._leaving.remove(worker)
            self._end(worker)

    def _settle(self, worker: ContainerWorker, message: tuple[object, ...]) -> None:
        word, ticket, complaint, *_ = (*message, None, None)
        if word != "done" or type(ticket) is not int:
            raise frames.FrameError("a message that is no answer")
        job = worker.jobs.get(ticket)
        if job is not None:  # else forgotten meanwhile
            self._replies[ticket] = frames.read_reply(message, job.request, self._level)
            del worker.jobs[ticket]
        if complaint is not None:
            worker.is_spent = True

    def _receive(self, arrival: _Arrival) -> None:
        """Put a new container in its place, or plan when to try again."""
        place, room, found = arrival.place, arrival.place.starting, arrival.found
        place.starting = None
        if isinstance(found, ContainerWorker):
            self._seat(place, found)
            return
        self._failure = str(found)
        pause_s = min(_FIRST_PAUSE_S * 2**place.n_failures, _LONGEST_PAUSE_S)
        place.n_failures += 1
        place.retry_s = time.monotonic() + pause_s
        waiting = [j for j in self._waiting if room is not None and room.holds(j.request.limits)]
        if self._workers() and waiting:
            # The engine answers others: what this request asks for is to blame.
            self._blame(waiting[0], self._failure)
            self._waiting = deque(j for j in self._waiting if j.n_deaths < MAX_DEATHS)

    def _seat(self, place: _Place, worker: ContainerWorker) -> None:
        before, place.worker = place.worker, worker
        place.n_failures, place.retry_s = 0, 0.0
        self._selector.register(worker.stream.socket, selectors.EVENT_READ, worker)
        if before is not None and before.jobs:
            self._leaving.append(before)
        elif before is not None:
            self._end(before)

    def _lose(self, worker: ContainerWorker) -> None:
        """Forget a container that is gone; what it had not answered runs again."""
        self.n_restarts += 1
        if worker in self._leaving:
            self._leaving.remove(worker)
        for place in self._places:
            if place.worker is worker:
                place.worker = None
        left = list(worker.jobs.values())
        if left:  # the others were only queued: the first was running
            self._blame(left[0], f"{MAX_DEATHS} containers died while they ran this request")
        self._waiting.extendleft(job for job in reversed(left) if job.n_deaths < MAX_DEATHS)
        self._end(worker)

    def _blame(self, job: Job, reason: str) -> None:
        job.n_deaths += 1
        if job.n_deaths >= MAX_DEATHS:
            self._fail(job, reason)

    def _fail(self, job: Job, reason: str) -> None:
        self._replies[job.ticket] = Reply(
            job.request.id, "sandbox_error", stderr=reason.encode(), isolation=self._level
        )

    def _end(self, worker: ContainerWorker) -> None:
        self._selector.unregister(worker.stream.socket)
        self._in_thread(worker.stop)

    def _discard(self, tickets: set[int]) -> None:
        self._waiting = deque(job for job in self._waiting if job.ticket not in tickets)
        for worker in self._workers():
            worker.forget(tickets)
            self._flush(worker)

    def _stop(self) -> None:
        """End every container, those that are only starting included; return when all are gone."""
        for thread in self._threads:
            thread.join()
        while not self._arrivals.empty():
            found = self._arrivals.get().found
            if isinstance(found, ContainerWorker):
                self._leaving.append(found)
        for worker in self._workers():
            self._in_thread(worker.stop)
        for thread in self._threads:
            thread.join()
