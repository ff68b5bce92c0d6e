"""One thread that owns an engine, so that any number of callers can share it.

Callers are threads (`run`, `run_one`), futures (`submit`) or, through aio.py, asyncio. When the
backend dies, what it had under way is answered with sandbox_error, it is opened again, and what
waited goes on; no request is left without an answer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from trillium_sandbox.base import Backend
from trillium_sandbox.cache import ResultCache
from trillium_sandbox.engine import Engine
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.fair import Call, FairQueue, Feed, Place
from trillium_sandbox.verdicts import MAX_REQUEST_BYTES, Reply, Request

MAX_PROGRAMS = 4096
MAX_BYTES = 256 << 20
"""How much may wait or run at a time, over all callers."""

_TICK_S = 1.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_PATIENCE_S = 30.0
"""How long a backend may stay dead before what waits is answered with sandbox_error."""

_HITS_A_ROUND = 256


class QueueFullError(SandboxError):
    """There is no room for more requests now; offer them again later."""


class Dispatcher:
    """A backend that any number of threads may use at once.

    with Dispatcher(open_backend) as sandbox:
        replies = list(sandbox.run(requests))
    """

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        *,
        max_programs: int = MAX_PROGRAMS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Open the backend in a thread of its own. Raises what `open_backend` raises.

        A `cache`, set before the first request, is then asked first, and closed in the end.
        """
        if max_programs < 1 or max_bytes < MAX_REQUEST_BYTES:
            raise RequestError(
                f"sandbox: a queue of {max_programs} programs and {max_bytes} bytes holds no "
                f"request (at least 1 and {MAX_REQUEST_BYTES}); make it larger"
            )
        self.queue = FairQueue(max_programs, max_bytes, self._ring)
        self.n_reopened = 0
        self._open_backend = open_backend
        self.cache: ResultCache | None = None
        self._under_way: dict[int, Place] = {}
        self._closing = threading.Event()
        self._n_restarts_before = 0
        self._engine: Engine | None = None
        self._level = -1
        opened: Future[Engine] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(opened,), name="sandbox", daemon=True
        )
        self._thread.start()
        engine = opened.result()
        self._level, self.window = engine.level, engine.window
        self.origin: str = getattr(engine, "origin", "")

    @property
    def level(self) -> int:
        """Return the isolation level that holds; see levels.py."""
        return self._level

    @property
    def n_restarts(self) -> int:
        """Return how many workers were replaced, in this backend and those before it."""
        return self._n_restarts_before + _restarts_of(self._engine)

    def call(self, notify: Callable[[], None]) -> Call:
        """Return a new caller's place; the dispatcher's thread calls `notify`, see fair.py."""
        return Call(self.queue, notify)

    def submit(self, request: Request) -> Future[Reply]:
        """Return a future of the reply; cancelling it forgets the request.

        Raises QueueFullError when there is no room.
        """
        future: Future[Reply] = Future()

        def settle() -> None:
            for reply in call.take():
                if future.set_running_or_notify_cancel():
                    future.set_result(reply)

        call = self.call(settle)
        if not call.offer([request]):
            raise QueueFullError(
                f"sandbox: {self.queue.n_open} programs are waiting already (at most "
                f"{self.queue.max_programs}, and {self.queue.max_bytes} bytes); submit again later"
            )
        future.add_done_callback(lambda done: call.cancel() if done.cancelled() else None)
        return future

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request, in order; waits for room where there is none."""
        bell = threading.Event()
        feed = Feed(self.call(bell.set), requests, 2 * self.window)
        try:
            while not feed.is_done:
                bell.clear()
                replies = feed.step()
                yield from replies
                if not replies and not feed.is_done:
                    bell.wait()
        finally:
            feed.call.cancel()

    def run_one(self, request: Request) -> Reply:
        """Return the reply to one request."""
        (reply,) = self.run([request])
        return reply

    def close(self) -> None:
        """End the backend and its thread; what is open is answered with sandbox_error."""
        self._closing.set()
        with self.queue.lock:
            self._ring()
        self._thread.join()

    def __enter__(self) -> Self:
        """Return the dispatcher itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the dispatcher."""
        self.close()

    def _ring(self) -> None:
        if self._engine is not None:
            self._engine.wake()

    # All that follows runs in the dispatcher's own thread.

    def _serve(self, opened: Future[Engine]) -> None:
        try:
            engine = self._open()
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(engine)
        while not self._closing.is_set():
            try:
                self._round(engine)
            except Exception as error:
                # Whatever ended the engine, callers wait for answers.
                if not isinstance(error, SandboxError | RequestError):
                    logging.getLogger(__name__).exception("sandbox: the backend failed")
                self._bury(engine, str(error))
                reopened = self._reopen()
                if reopened is None:
                    break
                engine = reopened
        waiting = self.queue.shut("it was closed")
        self._bury(engine, "the sandbox was closed")
        self._fail(waiting, "the sandbox was closed")
        if self.cache is not None:
            self.cache.close()

    def _open(self) -> Engine:
        backend = self._open_backend()
        if not isinstance(backend, Engine):
            backend.close()
            raise SandboxError(f"sandbox: {type(backend).__name__} has no queue to dispatch from")
        if self._level not in (-1, backend.level):
            backend.close()
            raise SandboxError(
                f"sandbox: level {self._level} is gone, level {backend.level} is what is left; "
                "mend the backend, or start again with what is left"
            )
        with self.queue.lock:
            self._engine = backend
        return backend

    def _round(self, engine: Engine) -> None:
        self._forget(engine)
        hits = self._feed(engine)
        is_idle = self.queue.may_sleep(len(self._under_way) < engine.window)
        replies = engine.collect(_TICK_S if is_idle and not hits else 0.0)
        fresh = [
            (self._under_way.pop(ticket), reply)
            for ticket, reply in replies.items()
            if ticket in self._under_way
        ]
        self.queue.settle(hits + fresh)
        if self.cache is not None:
            self.cache.keep([(place.request, reply) for place, reply in fresh])

    def _forget(self, engine: Engine) -> None:
        cancelled = self.queue.take_cancelled()
        if not cancelled:
            return
        tickets = [t for t, place in self._under_way.items() if place.call in cancelled]
        engine.forget(tickets)
        self.queue.release([self._under_way.pop(ticket) for ticket in tickets])

    def _feed(self, engine: Engine) -> list[tuple[Place, Reply]]:
        """Give the engine what there is room for; return what the cache answered."""
        hits: list[tuple[Place, Reply]] = []
        while len(self._under_way) < engine.window and len(hits) < _HITS_A_ROUND:
            place = self.queue.next_place()
            if place is None:
                break
            known = self.cache.find(place.request) if self.cache is not None else None
            if known is None:
                self._under_way[engine.submit(place.request)] = place
            else:
                hits.append((place, known))
        return hits

    def _bury(self, engine: Engine, reason: str) -> None:
        """Close an engine and answer what it had under way."""
        with self.queue.lock:
            if self._engine is engine:
                self._n_restarts_before += _restarts_of(engine)
                self._engine = None
        with contextlib.suppress(OSError):  # it is dead already
            engine.close()
        places = list(self._under_way.values())
        self._under_way.clear()
        self._fail(places, reason)

    def _reopen(self) -> Engine | None:
        pause_s, waited_s = _FIRST_PAUSE_S, 0.0
        while not self._closing.is_set():
            try:
                engine = self._open()
            except SandboxError as error:
                if waited_s >= _PATIENCE_S:
                    self._fail(self.queue.shut(str(error)), str(error))
                self._closing.wait(pause_s)
                waited_s += pause_s
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self.queue.reopen()
                self.n_reopened += 1
                return engine
        return None

    def _fail(self, places: list[Place], reason: str) -> None:
        stderr = reason.encode(errors="replace")
        self.queue.settle(
            [(place, Reply(place.request.id, "sandbox_error", stderr=stderr)) for place in places]
        )


def _restarts_of(engine: Engine | None) -> int:
    n_restarts = getattr(engine, "n_restarts", 0)
    return n_restarts if isinstance(n_restarts, int) else 0
