"""The sandbox for asyncio: `await sandbox.run_one(request)`, `async for reply in sandbox.run(...)`.

A thin layer over a dispatcher, whose one thread serves any number of tasks and event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType
from typing import Self

from trillium_sandbox.base import Backend
from trillium_sandbox.dispatch import Dispatcher
from trillium_sandbox.fair import Feed
from trillium_sandbox.verdicts import Reply, Request

_WINDOW_S = 0.016
"""Less than any backend needs for a window of programs, even empty ones."""

_LONGEST_GATHER_S = 0.05
"""How long a task lets replies gather at most: one turn of the event loop then serves them all."""


class AsyncSandbox:
    """A backend, opened and shared by the tasks of an event loop.

    async with AsyncSandbox(open_backend) as sandbox:
        reply = await sandbox.run_one(request)
        async for reply in sandbox.run(requests): ...
    """

    def __init__(self, open_backend: Callable[[], Backend]) -> None:
        """Remember how to open the backend; `async with` opens it."""
        self._open_backend = open_backend
        self._dispatcher: Dispatcher | None = None

    async def run_one(self, request: Request) -> Reply:
        """Return the reply to one request."""
        async with contextlib.aclosing(self.run([request])) as replies:
            return await anext(replies)

    async def run(self, requests: Iterable[Request]) -> AsyncGenerator[Reply, None]:
        """Yield one reply per request, in order; leaving the loop forgets the rest."""
        assert self._dispatcher is not None, "use `async with`"
        call = AsyncCall(self._dispatcher)
        feed = Feed(call.call, requests, 2 * self._dispatcher.window)
        try:
            while not feed.is_done:
                for reply in await call.next_replies(feed.step, lambda: feed.is_done):
                    yield reply
        finally:
            call.call.cancel()

    async def __aenter__(self) -> Self:
        """Open the backend without holding up the loop."""
        self._dispatcher = await asyncio.to_thread(Dispatcher, self._open_backend)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the backend."""
        if self._dispatcher is not None:
            await asyncio.to_thread(self._dispatcher.close)


class AsyncCall:
    """One task's requests to a dispatcher, all offered at once, and their replies."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Belong to the running event loop."""
        loop = asyncio.get_running_loop()
        self._share_s = _WINDOW_S / dispatcher.window
        self._bell = asyncio.Event()
        self._is_waiting = False

        def notify() -> None:
            # Waking an event loop costs more than looking whether it sleeps.
            if self._is_waiting:
                self._is_waiting = False
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
                    loop.call_soon_threadsafe(self._bell.set)

        self.call = dispatcher.call(notify)

    async def replies(self) -> AsyncGenerator[list[Reply], None]:
        """Yield the replies to what was offered, in order, as many at a time as have come.

        They gather for as long as those still due need at least, so the last ones are not late.
        """
        try:
            while self.call.n_open:
                yield await self.next_replies(self.call.take, lambda: not self.call.n_open)
                if n_due := self.call.n_open:
                    await asyncio.sleep(min(self._share_s * n_due, _LONGEST_GATHER_S))
        finally:
            self.call.cancel()

    async def next_replies(
        self, look: Callable[[], list[Reply]], is_done: Callable[[], bool]
    ) -> list[Reply]:
        """Return what `look` finds, as soon as it finds something or all is done."""
        while True:
            self._bell.clear()
            self._is_waiting = True
            replies = look()
            if replies or is_done():
                self._is_waiting = False
                return replies
            await self._bell.wait()
