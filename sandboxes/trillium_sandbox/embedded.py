"""The backend without a service: zygotes of this machine, fed from the caller's own thread.

Safe in a process with threads and large libraries: workers are fresh interpreters, never forks of
the caller. Not safe to use from two threads at once.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque

from trillium_sandbox import outcomes
from trillium_sandbox.engine import Engine
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.limits import Limits
from trillium_sandbox.verdicts import Reply, Request
from trillium_sandbox.wire import JUDGE_KILLED
from trillium_sandbox.worker import Job, Outcome, Worker

MAX_DEATHS = 3
"""A request under which this many workers died is answered with sandbox_error."""

_WINDOW = 8
"""Jobs a worker is sent ahead of the one that it runs."""

_LOOK_S = 1.0
"""How often workers that say nothing are looked at."""


class EmbeddedBackend(Engine):
    """Run programs in forked, locked-down children of lean zygotes, one zygote per core."""

    def __init__(self, level: int, n_workers: int | None = None) -> None:
        """Start the zygotes. Raises SandboxError when `level` does not hold on this machine."""
        n_workers = n_workers or len(os.sched_getaffinity(0))
        super().__init__(level, 2 * _WINDOW * n_workers)
        self._disk_bytes = Limits().disk_bytes
        self._workers: list[Worker] = []
        self._waiting: deque[Job] = deque()
        self._parts: dict[int, Reply] = {}
        self._next_look_s = 0.0
        self.n_restarts = self.n_lost = 0
        try:
            for _ in range(n_workers):
                self._add_worker()
        except BaseException:
            self.close()
            raise

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Return the process ids of the zygotes' launchers, as seen from outside."""
        return tuple(worker.process.pid for worker in self._workers)

    def _enqueue(self, ticket: int, request: Request) -> None:
        self._waiting.append(Job(ticket, request))

    def _stop(self) -> None:
        for worker in self._workers:
            self._selector.unregister(worker.replies)
            worker.stop()
        self._workers.clear()

    def _dispatch(self) -> None:
        while self._waiting:
            worker = min(self._workers, key=lambda worker: len(worker.jobs))
            if len(worker.jobs) >= _WINDOW:
                return
            worker.submit(self._waiting.popleft())
            self._flush(worker)

    def _step(self, timeout_s: float) -> None:
        """Wait for the workers and take in what they have to say."""
        writers = [worker for worker in self._workers if worker.unsent]
        for worker in writers:
            self._selector.register(worker.requests, selectors.EVENT_WRITE, worker)
        try:
            ready = self._selector.select(timeout_s)
        finally:
            for worker in writers:
                self._selector.unregister(worker.requests)
        for key, events in ready:
            worker = key.data
            if worker not in self._workers:  # replaced a moment ago, or the bell
                continue
            if events & selectors.EVENT_READ:
                self._drain(worker)
            else:
                self._flush(worker)
        now = time.monotonic()
        if now >= self._next_look_s:
            self._next_look_s = now + _LOOK_S
            for worker in list(self._workers):
                if worker.is_lost(now):
                    self._lose(worker)
                elif worker.jobs and worker.jobs[0].is_forgotten:
                    self._replace(worker)

    def _flush(self, worker: Worker) -> None:
        try:
            worker.flush()
        except OSError:
            self._lose(worker)

    def _drain(self, worker: Worker) -> None:
        try:
            while (outcome := worker.receive()) is not None:
                job = worker.jobs.popleft()
                worker.head_since_s = time.monotonic()
                if job.ticket != outcome.ticket or outcomes.failed_to_start(job, outcome):
                    worker.jobs.appendleft(job)
                    raise ConnectionResetError("the zygote lost its place")
                is_lost = outcomes.lost_judge(job, outcome)
                if is_lost:
                    worker.tests = None
                    job.needs_own_judge |= outcome.stopped == JUDGE_KILLED
                if job.is_forgotten:
                    continue
                if is_lost:
                    self._waiting.appendleft(job)
                else:
                    self._settle(worker, job, outcome)
        except OSError:
            self._lose(worker)

    def _settle(self, worker: Worker, job: Job, outcome: Outcome) -> None:
        level, baseline = worker.level, worker.baseline_bytes
        if job.request.mode != "function":
            self._replies[job.ticket] = outcomes.read_alone(job, outcome, level, baseline)
            return
        turn = outcomes.read_turn(job, outcome)
        reply = outcomes.read_pair(job, outcome, turn, level, baseline)
        if job.ticket in self._parts:
            reply = outcomes.join_turns(self._parts.pop(job.ticket), reply)
        n_done = len(reply.tests)
        budget_s = outcomes.N_BUDGETS * job.request.limits.wall_s
        if n_done < len(job.request.tests) and reply.wall_s < budget_s:
            self._parts[job.ticket] = reply
            self._waiting.appendleft(Job(job.ticket, job.request, n_done))
        else:
            self._replies[job.ticket] = outcomes.give_up(reply, job.request)

    def _add_worker(self) -> None:
        worker = Worker.start(self._level, self._disk_bytes)
        self._workers.append(worker)
        self._selector.register(worker.replies, selectors.EVENT_READ, worker)

    def _lose(self, worker: Worker) -> None:
        """Replace a worker that died; of its jobs the one that was running is to blame."""
        self.n_lost += 1
        if worker.jobs and not worker.jobs[0].is_forgotten:
            worker.jobs[0].n_deaths += 1
            if worker.jobs[0].n_deaths >= MAX_DEATHS:
                job = worker.jobs.popleft()
                self._parts.pop(job.ticket, None)
                self._replies[job.ticket] = Reply(
                    id=job.request.id,
                    status="sandbox_error",
                    stderr=f"{MAX_DEATHS} workers died while they ran this request".encode(),
                    isolation=self._level,
                )
        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        """End a worker and start another; what it had not answered and is wanted runs again."""
        self._workers.remove(worker)
        self._selector.unregister(worker.replies)
        worker.stop()
        self.n_restarts += 1
        self._waiting.extendleft(job for job in reversed(worker.jobs) if not job.is_forgotten)
        for attempt in range(1, MAX_DEATHS + 1):
            try:
                self._add_worker()
                return
            except SandboxError:
                # The level held before: what fails now, such as a lack of memory, may pass.
                if attempt == MAX_DEATHS:
                    raise

    def _discard(self, tickets: set[int]) -> None:
        self._waiting = deque(job for job in self._waiting if job.ticket not in tickets)
        for ticket in tickets:
            self._parts.pop(ticket, None)
        for worker in list(self._workers):
            for job in worker.jobs:
                job.is_forgotten |= job.ticket in tickets
            # Only the first is running: to end the worker for one behind it would end another's.
            if worker.jobs and worker.jobs[0].ticket in tickets:
                self._replace(worker)
