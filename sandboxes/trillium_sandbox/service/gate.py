"""The door of the service: who may enter, with how large a body, and what is counted on the way.

An ASGI middleware, so that a body is refused while it arrives and never held in full.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Protocol

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_BODY_S = 60.0
"""How long a body may take to arrive, and a client to take a part of its answer."""

_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20
"""How long, and for how much, a refused client may go on sending before it is cut off."""


class RequestCounter(Protocol):
    """Count the requests of a service."""

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an HTTP request that has ended."""
        ...


class _RefusedError(Exception):
    """A request that does not get in."""

    def __init__(self, status: int, sentence: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class _GoneError(Exception):
    """The client hung up before its body was whole, or takes nothing of its answer."""


class Gate:
    """Let requests through to the application, or answer them here."""

    def __init__(
        self,
        application: Application,
        *,
        metrics: RequestCounter,
        token: str | None,
        max_body_bytes: int,
        max_held_bytes: int,
        patience_s: float = _BODY_S,
    ) -> None:
        """Bound each body, and all bodies that are being read or served, in bytes and seconds."""
        self._application = application
        self._metrics = metrics
        self._secret = None if token is None else b"Bearer " + token.encode()
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0
        self._patience_s = patience_s

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; other kinds of connection pass (uvicorn's own start and end)."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started_s, status, held_bytes = time.perf_counter(), 499, 0
        has_more = True
        deadline_s = asyncio.get_running_loop().time() + self._patience_s

        async def counted_receive() -> Message:
            nonlocal held_bytes, has_more
            if not has_more:  # what comes now is that the client has gone
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError:
                raise _RefusedError(
                    408, f"the body took more than {self._patience_s:g} s; send it in parts"
                ) from None
            if message["type"] == "http.disconnect":
                raise _GoneError
            has_more = bool(message.get("more_body"))
            body = message.get("body", b"")
            if isinstance(body, bytes) and body:
                held_bytes += len(body)
                self._held_bytes += len(body)
                self._check_size(held_bytes, self._held_bytes)
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
            try:
                async with asyncio.timeout(self._patience_s):
                    await send(message)
            except TimeoutError:
                raise _GoneError from None

        try:
            self._check_caller(scope)
            self._check_size(_announced(scope), self._held_bytes + _announced(scope))
            await self._application(scope, counted_receive, counted_send)
        except _GoneError:
            pass  # there is nobody to answer
        except _RefusedError as refusal:
            await _answer(refusal, counted_send)
            if has_more:
                await _linger(scope, receive)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._held_bytes -= held_bytes
            self._metrics.count_request(str(scope["path"]), status, time.perf_counter() - started_s)

    def _check_caller(self, scope: Message) -> None:
        if self._secret is None or scope["path"] == "/healthz":
            return
        if not hmac.compare_digest(_header(scope, b"authorization"), self._secret):
            raise _RefusedError(
                401,
                "the token is missing or wrong; send `Authorization: Bearer TOKEN`",
                (b"www-authenticate", b"Bearer"),
            )

    def _check_size(self, body_bytes: int, held_bytes: int) -> None:
        if body_bytes > self._max_body_bytes:
            raise _RefusedError(
                413, f"a body of more than {self._max_body_bytes} bytes; send it in parts"
            )
        if held_bytes > self._max_held_bytes:
            raise _RefusedError(
                429, "too many bytes are being served; try again later", (b"retry-after", b"1")
            )


async def _answer(refusal: _RefusedError, send: Send) -> None:
    body = json.dumps({"error": str(refusal)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        # What is left of a refused body is dropped: the connection cannot go on.
        (b"connection", b"close"),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _linger(scope: Message, receive: Receive) -> None:
    """Read on for a moment: a client that still sends would lose the answer with the connection."""
    if _header(scope, b"expect"):
        return  # it waits for leave to send
    n_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while n_bytes < _LINGER_BYTES:
                message = await receive()
                if not message.get("more_body"):
                    return
                body = message.get("body", b"")
                n_bytes += len(body) if isinstance(body, bytes) else 0


def _header(scope: Message, name: bytes) -> bytes:
    headers = scope["headers"]
    assert isinstance(headers, list)
    return next((bytes(value) for key, value in headers if key == name), b"")


def _announced(scope: Message) -> int:
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else 0
