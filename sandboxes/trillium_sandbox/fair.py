"""A bounded queue that callers share in turns, one request each, however many each has waiting.

Callers use it from any thread; one thread serves it (dispatch.py).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trillium_sandbox.errors import SandboxError
from trillium_sandbox.verdicts import Reply, Request

MAX_UNTAKEN_BYTES = 16 << 20
"""A caller that leaves this much of its replies lying has no more turns until it takes some."""


@dataclass(frozen=True)
class Place:
    """Where the reply to one request belongs."""

    call: Call
    index: int
    request: Request


class Call:
    """One caller's requests and, in their order, the replies. Any thread may use it."""

    def __init__(self, queue: FairQueue, notify: Callable[[], None]) -> None:
        """Belong to `queue`, whose thread calls `notify` when to `take`, or to `offer`, again."""
        self._queue = queue
        self.notify = notify
        self.waiting: deque[Place] = deque()
        self.replies: dict[int, Reply] = {}
        self.untaken_bytes = 0
        self.is_cancelled = False
        self.n_offered = 0
        self.n_taken = 0

    @property
    def n_open(self) -> int:
        """Return how many replies are still to be taken."""
        return self.n_offered - self.n_taken

    def offer(self, requests: Sequence[Request]) -> bool:
        """Queue all of these, or none; return whether there was room.

        Raises SandboxError while the queue is shut.
        """
        return self._queue.accept(self, requests)

    def take(self) -> list[Reply]:
        """Return the replies that are next in order and have come."""
        return self._queue.hand_out(self)

    def cancel(self) -> None:
        """Forget all of its requests, those that run included."""
        self._queue.cancel(self)


class FairQueue:
    """What waits, whose turn it is, and how much of it there may be."""

    def __init__(self, max_programs: int, max_bytes: int, ring: Callable[[], None]) -> None:
        """Count what waits and what runs; `ring` wakes the serving thread, under the lock."""
        self.max_programs = max_programs
        self.max_bytes = max_bytes
        self.n_open = 0
        self.shut_because: str | None = None
        self.lock = threading.Lock()
        self._ring = ring
        self._is_hungry = False
        self._n_bytes = 0
        self._turns: deque[Call] = deque()
        self._paused: set[Call] = set()
        self._starving: deque[Call] = deque()
        self._cancelled: set[Call] = set()

    # For callers, in any thread.

    def accept(self, call: Call, requests: Sequence[Request]) -> bool:
        """Queue all of these, or none and notify `call` when there may be room."""
        n_bytes = sum(map(_size, requests))
        with self.lock:
            if self.shut_because is not None:
                raise SandboxError(
                    f"sandbox: the backend is down ({self.shut_because}); try again later"
                )
            if (
                self.n_open + len(requests) > self.max_programs
                or self._n_bytes + n_bytes > self.max_bytes
            ):
                self._starving.append(call)
                return False
            if not call.waiting and requests and call not in self._paused:
                self._turns.append(call)
            for index, request in enumerate(requests, call.n_offered):
                call.waiting.append(Place(call, index, request))
            call.n_offered += len(requests)
            self.n_open += len(requests)
            self._n_bytes += n_bytes
            self._wake()
        return True

    def hand_out(self, call: Call) -> list[Reply]:
        """Return the replies of `call` that are next in order and have come."""
        taken = []
        with self.lock:
            while (reply := call.replies.pop(call.n_taken, None)) is not None:
                taken.append(reply)
                call.n_taken += 1
            call.untaken_bytes -= sum(map(_reply_size, taken))
            if call in self._paused and call.untaken_bytes < MAX_UNTAKEN_BYTES:
                self._paused.remove(call)
                self._turns.append(call)
                self._wake()
        return taken

    def cancel(self, call: Call) -> None:
        """Drop what waits of `call`; the serving thread drops what runs."""
        with self.lock:
            if call.is_cancelled or not call.n_open:
                return
            call.is_cancelled = True
            if call.waiting:
                if call in self._paused:
                    self._paused.remove(call)
                else:
                    self._turns.remove(call)
                self._release(call.waiting)
                call.waiting.clear()
            self._cancelled.add(call)
            self._is_hungry = True
            self._wake()

    # For the thread that serves the queue.

    def next_place(self) -> Place | None:
        """Return a request of the caller whose turn it is, None when nothing may be started."""
        with self.lock:
            while self._turns:
                call = self._turns.popleft()
                if call.untaken_bytes >= MAX_UNTAKEN_BYTES:
                    self._paused.add(call)
                    continue
                place = call.waiting.popleft()
                if call.waiting:
                    self._turns.append(call)
                return place
        return None

    def take_cancelled(self) -> set[Call]:
        """Return the calls that were cancelled since the last time."""
        with self.lock:
            cancelled, self._cancelled = self._cancelled, set()
        return cancelled

    def may_sleep(self, has_room: bool) -> bool:
        """Return whether there is nothing to do until a bell rings; only then it will ring.

        `has_room` says whether another request could be started.
        """
        with self.lock:
            is_idle = not self._cancelled and not (has_room and self._turns)
            self._is_hungry = is_idle and has_room
        return is_idle

    def settle(self, answered: Sequence[tuple[Place, Reply]]) -> None:
        """Give out replies, and the room they leave to callers that were refused."""
        with self.lock:
            for place, reply in answered:
                if not place.call.is_cancelled:
                    place.call.replies[place.index] = reply
                    place.call.untaken_bytes += _reply_size(reply)
            self._release(place for place, _ in answered)
            n_fed = min(len(self._starving), max(0, self.max_programs - self.n_open))
            fed = [self._starving.popleft() for _ in range(n_fed)]
        for call in {place.call for place, _ in answered}.union(fed):
            call.notify()

    def release(self, places: Iterable[Place]) -> None:
        """Free the room of requests that will never be answered."""
        with self.lock:
            self._release(places)
        self.settle([])

    def shut(self, reason: str) -> list[Place]:
        """Refuse new requests, for this reason; return those that wait."""
        with self.lock:
            self.shut_because = reason
            calls = [*self._turns, *self._paused]
            places = [place for call in calls for place in call.waiting]
            for call in calls:
                call.waiting.clear()
            self._turns.clear()
            self._paused.clear()
        return places

    def reopen(self) -> None:
        """Accept requests again."""
        with self.lock:
            self.shut_because = None

    def _release(self, places: Iterable[Place]) -> None:
        for place in places:
            self.n_open -= 1
            self._n_bytes -= _size(place.request)

    def _wake(self) -> None:
        if self._is_hungry:
            self._is_hungry = False
            self._ring()


class Feed:
    """A stream of requests, offered a few at a time so that one caller never fills the queue."""

    def __init__(self, call: Call, requests: Iterable[Request], look_ahead: int) -> None:
        """Offer at most `look_ahead` requests whose replies are not taken yet."""
        self.call = call
        self._source = iter(requests)
        self._next = next(self._source, None)
        self._look_ahead = look_ahead

    @property
    def is_done(self) -> bool:
        """Return whether every reply has been taken."""
        return self._next is None and not self.call.n_open

    def step(self) -> list[Reply]:
        """Offer what there is room for and return the replies that are next."""
        while (
            self._next is not None
            and self.call.n_open < self._look_ahead
            and self.call.offer([self._next])
        ):
            self._next = next(self._source, None)
        return self.call.take()


def _reply_size(reply: Reply) -> int:
    return len(reply.stdout) + len(reply.stderr)


def _size(request: Request) -> int:
    return len(request.source) + len(request.stdin) + sum(map(len, request.tests))
