"""What a connection may hold, and for how long, before there is a request for the gate to look at.

uvicorn bounds neither the head of a request nor the time it takes to come, and the token is in it.
"""

from __future__ import annotations

import asyncio
import json
import resource
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 1 << 16
"""A request's line and headers, or what follows its body; one read of the socket may be more."""

_REFUSAL = json.dumps({"error": f"a head of more than {MAX_HEAD_BYTES} bytes; send it in the body"})


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, with a bound on each head, on its time, and on all connections.

    There may be as many connections as half of the descriptors that this process may open; beyond
    that the one that has waited for its head longest is closed for each that comes.
    """

    patience_s: ClassVar[float] = 10.0
    """How long a head may take to come, from the connection or from the end of the last answer."""

    _deadline: asyncio.TimerHandle | None = None
    _n_head_bytes = 0
    _has_advanced = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head, and make room for it."""
        super().connection_made(transport)
        self._await_head()
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY and len(self.connections) > most // 2:
            self._close_oldest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what is neither the end of a head nor a part of a body."""
        self._has_advanced = False
        super().data_received(data)
        self._n_head_bytes = 0 if self._has_advanced else self._n_head_bytes + len(data)
        if self._n_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """Serve the request: from here on the gate bounds it."""
        self._has_advanced = True
        self._end_wait()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body."""
        self._has_advanced = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the next head, unless it is here."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._await_head()

    def _await_head(self) -> None:
        self._end_wait()
        self._deadline = self.loop.call_later(self.patience_s, self.transport.close)

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_oldest(self) -> None:
        waiting = [
            (connection._deadline.when(), connection)
            for connection in self.connections
            if isinstance(connection, BoundedHttp) and connection._deadline is not None
        ]
        _, oldest = min(waiting, key=lambda pair: pair[0])
        oldest._end_wait()
        oldest.transport.abort()

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"content-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(_REFUSAL), _REFUSAL.encode())
            )
        self.transport.close()
