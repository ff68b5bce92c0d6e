"""One connection to a sandbox service, and the thread that works it until a batch is answered."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit

from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.verdicts import Reply, Request

_CONNECT_S = 10.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
_PATIENCE_S = 300.0
"""How long a service may answer nothing before its requests are answered with sandbox_error."""

_READ_BYTES = 1 << 18
_BUSY = frozenset({429, 503})
_REFUSED = frozenset({400, 413, 422})
_REPLY_NAMES = [field.name for field in fields(Reply)]
_PLAIN_NAMES = [
    field.name
    for field in fields(Request)
    if field.name not in ("id", "source", "stdin", "expected_stdout", "limits")
]


@dataclass(frozen=True)
class Address:
    """Where a service is, and what opens its door."""

    url: str
    token: str | None = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return what every request carries."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def path(self, name: str) -> str:
        """Return the path of an endpoint."""
        return urlsplit(self.url).path.rstrip("/") + name

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that notices when the other machine has gone."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        is_safe = parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_safe else http.client.HTTPConnection
        connection = kind(host, parts.port, timeout=_CONNECT_S)
        connection.connect()
        connection.sock.settimeout(None)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, 30),
            (socket.TCP_KEEPINTVL, 10),
            (socket.TCP_KEEPCNT, 3),
        ):
            connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return connection


@dataclass
class Batch:
    """Requests sent together: for each, its ticket, the caller's id, and the line to send."""

    left: deque[tuple[int, str, bytes]] = field(default_factory=deque)
    forgotten: set[int] = field(default_factory=set)


News = list[tuple[int, Reply]] | Exception
"""What a line tells its owner: replies by ticket, or why it cannot go on."""


class _AgainError(Exception):
    """The service could not answer now."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Line:
    """A batch at a time over one connection, opened again as often as it takes."""

    def __init__(self, address: Address, tell: Callable[[Line, News], None]) -> None:
        """Start the thread; it calls `tell` with news, an empty list when it is idle again."""
        self._address = address
        self._tell = tell
        self._inbox: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._batch = Batch()
        self._connection: http.client.HTTPConnection | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sandbox-http", daemon=True)
        self._thread.start()

    def send(self, batch: Batch) -> None:
        """Give an idle line its next batch."""
        with self._lock:
            self._batch = batch
        self._inbox.put(batch)

    def forget(self, tickets: set[int]) -> None:
        """Hang up when nothing under way is wanted any more: the service then forgets it too."""
        with self._lock:
            left = {ticket for ticket, _, _ in self._batch.left}
            self._batch.forgotten |= left & tickets
            if left and left == self._batch.forgotten:
                self._hang_up()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._inbox.put(None)
        with self._lock:
            self._hang_up()
        self._thread.join()

    def _hang_up(self) -> None:
        if self._connection is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        while (batch := self._inbox.get()) is not None:
            try:
                self._complete(batch)
                self._tell(self, [])
            except (RequestError, SandboxError) as error:
                self._tell(self, error)
        self._disconnect()

    def _complete(self, batch: Batch) -> None:
        """Send what is left of a batch until nothing is."""
        pause_s, patient_until = _FIRST_PAUSE_S, time.monotonic() + _PATIENCE_S
        while (n_left := self._drop_forgotten(batch)) and not self._closing.is_set():
            try:
                self._attempt(batch)
            except _AgainError as error:
                if len(batch.left) < n_left:
                    pause_s, patient_until = _FIRST_PAUSE_S, time.monotonic() + _PATIENCE_S
                elif time.monotonic() > patient_until:
                    self._give_up(batch, f"{self._address.url}: {error}")
                    return
                self._closing.wait(max(pause_s, error.after_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _drop_forgotten(self, batch: Batch) -> int:
        with self._lock:
            batch.left = deque(item for item in batch.left if item[0] not in batch.forgotten)
            batch.forgotten.clear()
            return len(batch.left)

    def _attempt(self, batch: Batch) -> None:
        try:
            if self._connection is None:
                connection = self._address.connect()
                with self._lock:
                    self._connection = connection
            self._connection.request(
                "POST",
                self._address.path("/run_batch"),
                b"".join(line for _, _, line in batch.left),
                {"Content-Type": "application/x-ndjson"} | self._address.headers,
            )
            response = self._connection.getresponse()
            if response.status != 200:
                self._refuse(response)
            rest = b""
            while chunk := response.read1(_READ_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                self._take(batch, lines)
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise _AgainError(say(error)) from error
        if batch.left:
            raise _AgainError("the answer ended early")

    def _refuse(self, response: http.client.HTTPResponse) -> None:
        sentence = read_error(response.read())
        if response.status in _BUSY:
            after = response.getheader("Retry-After", "")
            seconds = float(after) if after.isdecimal() else 0.0
            raise _AgainError(sentence, min(seconds, _LONGEST_PAUSE_S))
        if response.status in _REFUSED:
            raise RequestError(f"{self._address.url}: {sentence}")
        remedy = "; give its token" if response.status == 401 else ""
        raise SandboxError(f"{self._address.url}: answered {response.status}: {sentence}{remedy}")

    def _take(self, batch: Batch, lines: list[bytes]) -> None:
        news: list[tuple[int, Reply]] = []
        with self._lock:
            for line in lines:
                if not batch.left:
                    raise SandboxError(f"{self._address.url}: sent more replies than requests")
                ticket, identifier, _ = batch.left[0]
                news.append((ticket, _read(line, ticket, identifier, self._address.url)))
                batch.left.popleft()
        if news:
            self._tell(self, news)

    def _give_up(self, batch: Batch, reason: str) -> None:
        with self._lock:
            left, batch.left = batch.left, deque()
        stderr = reason.encode(errors="replace")
        self._tell(
            self,
            [(ticket, Reply(name, "sandbox_error", stderr=stderr)) for ticket, name, _ in left],
        )

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def write(ticket: int, request: Request) -> bytes:
    """Return the line that asks a service to run `request`. Raises RequestError.

    Its id there is the ticket: a caller's id may be anything.
    """
    row: dict[str, object] = {"id": str(ticket)}
    row |= {name: getattr(request, name) for name in _PLAIN_NAMES}
    try:
        row["source"] = request.source.decode()
    except UnicodeDecodeError:
        row["source_base64"] = base64.b64encode(request.source).decode()
    try:
        row["stdin"] = request.stdin.decode()
        if request.expected_stdout is not None:
            row["expected_stdout"] = request.expected_stdout.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"request {request.id!r}: stdin or expected_stdout is no UTF-8 text ({error}); "
            "only a local backend takes other bytes"
        ) from error
    row["limits"] = vars(request.limits)
    return json.dumps(row).encode() + b"\n"


def _read(line: bytes, ticket: int, identifier: str, url: str) -> Reply:
    try:
        row = json.loads(line)
        if row["id"] != str(ticket):
            raise ValueError(f"a reply to {row['id']!r} instead of {ticket}")
        row = {name: row[name] for name in _REPLY_NAMES} | {"id": identifier}
        row |= {name: row[name].encode() for name in ("stdout", "stderr")}
        row["tests"] = tuple(row["tests"])
        return Reply(**row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SandboxError(
            f"{url}: answered something else than replies ({say(error)}); "
            "is it a sandbox service of this version?"
        ) from error


def read_error(text: bytes) -> str:
    """Return the sentence in an answer that is an error."""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text[:200].decode(errors="replace")


def say(error: BaseException) -> str:
    """Return what an exception says, never an empty text."""
    return str(error) or type(error).__name__
