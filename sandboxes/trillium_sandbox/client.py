"""The backend on another machine: requests to a sandbox service over HTTP, replies as they come.

A few connections take turns with batches, so the service always has the next one. What a broken
connection, a full queue or a restarting service left unanswered is sent again: a request has no
effect but its reply. Use it like any engine, from one thread; aio.py brings it to asyncio.
"""

from __future__ import annotations

import http.client
import json
import queue
from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit

from trillium_sandbox.engine import Engine
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.http_line import Address, Batch, Line, News, read_error, say, write
from trillium_sandbox.verdicts import Reply, Request

_N_LINES = 2
_BATCH_PROGRAMS = 256
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True)
class Service:
    """What a service says about itself; `identity` changes with all that may change results."""

    level: int
    identity: str
    max_programs: int


def describe(address: Address) -> Service:
    """Ask a service what it is. Raises SandboxError when none answers."""
    try:
        connection = address.connect()
        try:
            connection.request("GET", address.path("/healthz"), headers=address.headers)
            response = connection.getresponse()
            text = response.read()
            if response.status == 200:
                row = json.loads(text)
                return Service(int(row["level"]), str(row["identity"]), int(row["max_programs"]))
            reason = f"{response.status}: {read_error(text)}"
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = say(error)
    raise SandboxError(
        f"{address.url}: no sandbox service answers there ({reason}); "
        "start one with `trillium sandbox serve`"
    )


class HttpBackend(Engine):
    """Run programs on a sandbox service."""

    def __init__(self, url: str, *, token: str | None = None, min_level: int) -> None:
        """Ask the service for its level. Raises SandboxError below `min_level`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"sandbox: url = {url!r} (such as http://127.0.0.1:8080)")
        self._address = Address(url, token)
        self._min_level = min_level
        self.service = describe(self._address)
        if self.service.level < min_level:
            raise SandboxError(
                f"{url}: level {min_level} is needed and this service holds "
                f"{self.service.level}; ask one that holds it, or lower min_level knowingly"
            )
        super().__init__(self.service.level, (_N_LINES + 1) * _BATCH_PROGRAMS)
        self._batch_programs = min(_BATCH_PROGRAMS, self.service.max_programs)
        self._pending: deque[tuple[int, str, bytes]] = deque()
        self._open: set[int] = set()
        self._news: queue.SimpleQueue[tuple[Line, News]] = queue.SimpleQueue()
        self._lines = [Line(self._address, self._tell) for _ in range(_N_LINES)]
        self._idle = list(self._lines)

    @property
    def origin(self) -> str:
        """Return what results depend on beside this code: all that the service runs on."""
        return self.service.identity

    def _tell(self, line: Line, news: News) -> None:
        self._news.put((line, news))
        self.wake()

    def _enqueue(self, ticket: int, request: Request) -> None:
        self._pending.append((ticket, request.id, write(ticket, request)))
        self._open.add(ticket)

    def _dispatch(self) -> None:
        while self._pending and self._idle:
            batch, n_bytes = Batch(), 0
            while (
                self._pending and len(batch.left) < self._batch_programs and n_bytes < _BATCH_BYTES
            ):
                batch.left.append(self._pending.popleft())
                n_bytes += len(batch.left[-1][2])
            self._idle.pop().send(batch)

    def _step(self, timeout_s: float) -> None:
        self._selector.select(timeout_s)
        while not self._news.empty():
            line, news = self._news.get()
            if isinstance(news, Exception):
                raise news
            if not news:
                self._idle.append(line)
            for ticket, reply in news:
                self._settle(ticket, reply)

    def _settle(self, ticket: int, reply: Reply) -> None:
        if ticket not in self._open:
            return  # forgotten meanwhile
        if reply.isolation < self._min_level and not reply.sandbox_failure:
            raise SandboxError(
                f"{self._address.url}: a reply came from level {reply.isolation} (at least "
                f"{self._min_level} is needed); restart the service"
            )
        self._open.remove(ticket)
        self._replies[ticket] = reply

    def _discard(self, tickets: set[int]) -> None:
        self._open -= tickets
        self._pending = deque(item for item in self._pending if item[0] not in tickets)
        for line in self._lines:
            line.forget(tickets)

    def _stop(self) -> None:
        for line in self._lines:
            line.close()
