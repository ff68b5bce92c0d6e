"""The queue that all local backends share: requests in as there is room, replies out in order.

A backend adds where jobs go and what comes back. One thread owns an engine; only `wake` may be
called from another.
"""

from __future__ import annotations

import contextlib
import os
import selectors
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import Self

from trillium_sandbox.errors import SandboxError
from trillium_sandbox.verdicts import Reply, Request

_TICK_S = 1.0


class Engine(ABC):
    """Tickets for requests, and the replies that wait to be taken."""

    def __init__(self, level: int, window: int) -> None:
        """Serve at isolation `level`; `window` requests under way keep every worker busy."""
        self._level = level
        self._window = window
        self._next_ticket = 0
        self._replies: dict[int, Reply] = {}
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._is_closed = False

    @property
    def level(self) -> int:
        """Return the isolation level that holds; see levels.py."""
        return self._level

    @property
    def window(self) -> int:
        """Return how many requests under way keep every worker busy; more would only wait."""
        return self._window

    def submit(self, request: Request) -> int:
        """Take a request and return its ticket; what the workers have no room for waits here."""
        if self._is_closed:
            raise SandboxError("sandbox: the backend is closed; open a new one")
        ticket = self._next_ticket
        self._next_ticket += 1
        self._enqueue(ticket, request)
        self._dispatch()
        return ticket

    def collect(self, timeout_s: float = _TICK_S) -> dict[int, Reply]:
        """Return the replies that have come, by ticket; wait for the first one, or for `wake`."""
        if not self._replies:
            self._wait(timeout_s)
        replies, self._replies = self._replies, {}
        return replies

    def wake(self) -> None:
        """Make a `collect` that waits return now; safe to call from another thread."""
        os.eventfd_write(self._bell, 1)

    def forget(self, tickets: Collection[int]) -> None:
        """Drop requests that nobody waits for any more; a worker that runs one starts anew."""
        for ticket in tickets:
            self._replies.pop(ticket, None)
        self._discard(set(tickets))

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request, in the order of the requests.

        Takes requests as it has room for them. A worker that dies is replaced and what it had not
        answered runs again. Abandoning the iterator drops the requests it had taken.
        """
        source = iter(requests)
        expected: deque[int] = deque()
        exhausted = False
        try:
            while True:
                while not exhausted and len(expected) < self._window:
                    request = next(source, None)
                    if request is None:
                        exhausted = True
                        break
                    expected.append(self.submit(request))
                while expected and expected[0] in self._replies:
                    yield self._replies.pop(expected.popleft())
                if exhausted and not expected:
                    return
                if expected and expected[0] not in self._replies:
                    self._wait(_TICK_S)
        finally:
            if expected:
                self.forget(expected)

    def close(self) -> None:
        """End every process of the backend."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop()
        self._selector.close()
        os.close(self._bell)

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

    def _wait(self, timeout_s: float) -> None:
        """Wait until something happened, and take it in."""
        self._step(timeout_s)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        self._dispatch()

    @abstractmethod
    def _enqueue(self, ticket: int, request: Request) -> None:
        """Put a request at the end of those that wait."""

    @abstractmethod
    def _dispatch(self) -> None:
        """Hand waiting requests to workers that have room."""

    @abstractmethod
    def _step(self, timeout_s: float) -> None:
        """Select once; put finished requests into `_replies`, replace dead workers."""

    @abstractmethod
    def _discard(self, tickets: set[int]) -> None:
        """Drop these requests, wherever they are."""

    @abstractmethod
    def _stop(self) -> None:
        """End every process."""
