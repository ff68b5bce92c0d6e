"""The door of the server: who may enter, with how large a body, and what is counted on the way.

An ASGI middleware, so that a body is refused while it arrives and never held in full.
"""

import asyncio
import contextlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping

from trillium.serving.metrics import Metrics
from trillium.serving.rows import RefusedError

Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_LINGER_S = 2.0
_LINGER_BYTES = 64 << 20
"""How long, and for how much, a refused client may go on sending before it is cut off."""


class Gate:
    """Let requests through to the application, or answer them here."""

    def __init__(
        self,
        application: Application,
        *,
        metrics: Metrics,
        token: str | None,
        max_body_bytes: int,
        max_held_bytes: int,
    ) -> None:
        """Bound each body, and all bodies that are being read or served, in bytes."""
        self._application = application
        self._metrics = metrics
        self._secret = None if token is None else b"Bearer " + token.encode()
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; other kinds of connection pass (uvicorn's own start and end)."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started_s, status, body_bytes = time.perf_counter(), 499, 0
        has_more = True

        async def counted_receive() -> Message:
            nonlocal body_bytes, has_more
            message = await receive()
            has_more = bool(message.get("more_body"))
            body = message.get("body", b"")
            if isinstance(body, bytes) and body:
                body_bytes += len(body)
                self._held_bytes += len(body)
                self._check_size(body_bytes, self._held_bytes)
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(str(message["status"]))
            await send(message)

        try:
            self._check_caller(scope)
            announced = _announced(scope)
            self._check_size(announced, self._held_bytes + announced)
            await self._application(scope, counted_receive, counted_send)
        except RefusedError as refusal:
            await _answer(refusal, counted_send)
            if has_more:
                await _linger(scope, receive)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._held_bytes -= body_bytes
            seconds = time.perf_counter() - started_s
            self._metrics.count_request(str(scope["path"]), status, seconds)

    def _check_caller(self, scope: Message) -> None:
        if self._secret is None or scope["path"] == "/health":
            return
        if not hmac.compare_digest(_header(scope, b"authorization"), self._secret):
            raise RefusedError(401, "the token is missing or wrong; send Authorization: Bearer ...")

    def _check_size(self, body_bytes: int, held_bytes: int) -> None:
        if body_bytes > self._max_body_bytes:
            raise RefusedError(
                413, f"a body of more than {self._max_body_bytes} bytes; send it in parts"
            )
        if held_bytes > self._max_held_bytes:
            raise RefusedError(429, "too many bytes are being served; try again later")


def error_body(refusal: RefusedError) -> dict[str, object]:
    """Return a refusal in OpenAI's shape."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": str(refusal),
            "type": kinds.get(refusal.status, kind),
            "param": refusal.param,
            "code": refusal.status,
        }
    }


async def _answer(refusal: RefusedError, send: Send) -> None:
    body = json.dumps(error_body(refusal)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        # What is left of a refused body is dropped: the connection cannot go on.
        (b"connection", b"close"),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.status == 429:
        headers.append((b"retry-after", b"1"))
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
