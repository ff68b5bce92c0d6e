"""The backend for many machines: an actor of Ray on each node, with a sandbox of its own.

Requests travel in batches, few of them ahead on every host, so no queue grows without bound. A host
that is lost, alone or with its node, leaves its batches to the others; the replies to a batch come
from one host. Connect first, `ray.init(address=...)`; every node needs this package. Not safe to
use from two threads at once.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import DEFAULT_LEVEL, LEVELS
from trillium_sandbox.opening import BackendName, open_backend
from trillium_sandbox.verdicts import Reply, Request

MAX_DEATHS = 3
"""A batch under which this many hosts were lost is answered with sandbox_error, and a node on which
this many hosts were started gets no other."""

_N_AHEAD = 2
"""Batches a host is sent: one that it runs, one that waits."""

_START_S, _CLOSE_S, _LOOK_S = 120.0, 10.0, 1.0


@dataclass(frozen=True)
class _Options:
    """What `open_backend` takes, for every node alike."""

    backend: BackendName
    min_level: int
    n_workers: int | None
    allow_unsafe: bool
    runtime: str | None


class Host:
    """What lives on one node: a backend, opened there."""

    @ray.method
    def open(self, options: _Options) -> int:
        """Open the backend and return the level that holds. Raises SandboxError when it cannot."""
        self._backend = open_backend(
            options.backend,
            min_level=options.min_level,
            n_workers=options.n_workers,
            allow_unsafe=options.allow_unsafe,
            runtime=options.runtime,
        )
        return self._backend.level

    @ray.method
    def run(self, requests: list[Request]) -> list[Reply]:
        """Run one batch."""
        return list(self._backend.run(requests))

    @ray.method
    def close(self) -> None:
        """End every process of the backend."""
        self._backend.close()


@dataclass(eq=False)
class _Batch:
    requests: list[Request]
    replies: list[Reply] | None = None
    n_deaths: int = 0


@dataclass(eq=False)
class _Seat:
    """A host as it is seen from here, and the batches that it was sent, the running one first."""

    node: str
    actor: ActorHandle[Host]
    batches: dict[ray.ObjectRef[list[Reply]], _Batch] = field(default_factory=dict)


class ClusterBackend:
    """Run programs on every node of the Ray cluster that this process is connected to."""

    def __init__(
        self,
        *,
        backend: BackendName = "embedded",
        min_level: int = DEFAULT_LEVEL,
        n_workers: int | None = None,
        allow_unsafe: bool = False,
        runtime: str | None = None,
        batch_programs: int = 256,
    ) -> None:
        """Open `backend` on every node, each with `n_workers`; the options are `open_backend`'s.

        Raises SandboxError where Ray is not connected, or a node cannot hold `min_level`.
        """
        if batch_programs < 1:
            raise RequestError(f"sandbox: batch_programs = {batch_programs} (at least 1)")
        if not ray.is_initialized():
            raise SandboxError("sandbox: Ray is not connected; call ray.init(address=...) first")
        self._options = _Options(backend, min_level, n_workers, allow_unsafe, runtime)
        self._batch_programs = batch_programs
        self._level = len(LEVELS) - 1
        self._seats: list[_Seat] = []
        self._starting: dict[ray.ObjectRef[int], _Seat] = {}
        self._n_starts: Counter[str] = Counter()
        self._waiting: deque[_Batch] = deque()
        self.n_lost = 0
        try:
            self._start_hosts()
            started = list(self._starting)
            ray.wait(started, num_returns=len(started), timeout=_START_S)
            for answer in started:
                self._seat(answer)
            if not self._seats:
                raise SandboxError(
                    "sandbox: no node of the Ray cluster has started a host; ask `trillium doctor` "
                    "on a node"
                )
        except BaseException:
            self.close()
            raise

    @property
    def level(self) -> int:
        """Return the lowest isolation level of all nodes; a reply has that of its own."""
        return self._level

    @property
    def n_hosts(self) -> int:
        """Return on how many nodes programs run."""
        return len(self._seats)

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request, in the order of the requests.

        Takes requests as hosts have room for them. Abandoning the iterator leaves the batches that
        hosts already have to run to their end.
        """
        source = iter(requests)
        expected: deque[_Batch] = deque()
        try:
            while True:
                while len(expected) < (_N_AHEAD + 1) * max(1, self.n_hosts):
                    taken = list(islice(source, self._batch_programs))
                    if not taken:
                        break
                    expected.append(_Batch(taken))
                    self._waiting.append(expected[-1])
                if not expected:
                    return
                while (replies := expected[0].replies) is None:
                    self._dispatch()
                    self._collect()
                self._dispatch()
                expected.popleft()
                yield from replies
        finally:
            for batch in expected:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(batch)

    def close(self) -> None:
        """End the hosts and every process of their backends."""
        closing: list[ray.ObjectRef[object]] = [seat.actor.close.remote() for seat in self._seats]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_S)
        for seat in (*self._seats, *self._starting.values()):
            ray.kill(seat.actor)
        self._seats.clear()
        self._starting.clear()

    def __enter__(self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the backend."""
        self.close()

    def _start_hosts(self) -> None:
        """Start a host on every living node that has none, unless hosts keep dying there."""
        seated = {seat.node for seat in (*self._seats, *self._starting.values())}
        known = ray.nodes()  # type: ignore[no-untyped-call]
        for node in [node["NodeID"] for node in known if node["Alive"]]:
            if node in seated or self._n_starts[node] >= MAX_DEATHS:
                continue
            self._n_starts[node] += 1
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            host = ray.remote(Host).options(
                scheduling_strategy=there, num_cpus=0, max_pending_calls=_N_AHEAD + 2
            )
            actor = host.remote()
            assert isinstance(actor, ActorHandle)
            self._starting[actor.open.remote(self._options)] = _Seat(node, actor)

    def _seat(self, answer: ray.ObjectRef[int]) -> None:
        """Take in a host that has started; leave out a node that is gone or does not answer.

        Raises SandboxError when the host could not open its backend.
        """
        seat = self._starting.pop(answer)
        try:
            self._level = min(self._level, ray.get(answer, timeout=0))
        except SandboxError as error:
            ray.kill(seat.actor)
            reason = str(error).strip().rpartition("\n")[2].partition("SandboxError: ")[2]
            raise SandboxError(f"node {seat.node[:8]}: {reason}") from error
        except RayError:
            ray.kill(seat.actor)
        else:
            self._seats.append(seat)

    def _dispatch(self) -> None:
        for seat in sorted(self._seats, key=lambda seat: len(seat.batches)):
            while self._waiting and len(seat.batches) < _N_AHEAD:
                batch = self._waiting.popleft()
                seat.batches[seat.actor.run.remote(batch.requests)] = batch

    def _collect(self) -> None:
        """Wait for a batch to end and keep its replies, or for a host that has started."""
        under_way = [answer for seat in self._seats for answer in seat.batches]
        ended, _ = ray.wait([*self._starting, *under_way], num_returns=1, timeout=_LOOK_S)
        for answer in ended:
            if answer in self._starting:
                with contextlib.suppress(SandboxError):
                    self._seat(answer)
                continue
            seat = next(seat for seat in self._seats if answer in seat.batches)
            try:
                seat.batches[answer].replies = ray.get(answer)
            except (RayError, SandboxError):
                self._lose(seat)
            else:
                del seat.batches[answer]
        if not self._seats and not self._starting:
            raise SandboxError("sandbox: no node is left to run programs; add one and run again")

    def _lose(self, seat: _Seat) -> None:
        """Give a lost host's batches to others; where its node lives, start another one there."""
        self.n_lost += 1
        self._seats.remove(seat)
        ray.kill(seat.actor)
        first, *batches = seat.batches.values()
        first.n_deaths += 1  # the others only waited
        if first.n_deaths < MAX_DEATHS:
            batches.insert(0, first)
        else:
            words = f"{MAX_DEATHS} hosts were lost while they ran this request's batch".encode()
            first.replies = [
                Reply(request.id, "sandbox_error", stderr=words) for request in first.requests
            ]
        self._waiting.extendleft(reversed(batches))
        self._start_hosts()
