"""The attached streams of one container: bytes in, its two outputs taken apart, never blocking."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from typing import Protocol

_HEADER = struct.Struct(">B3xI")  # Docker's: which output, how many bytes follow
_STDOUT = 1
_CHUNK_BYTES = 1 << 18
_ERRORS_BYTES = 4096
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Attached(Protocol):
    """What the SDK returns for an attached stream, whatever it runs over."""

    def fileno(self) -> int:
        """Return its descriptor."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Stream:
    """A non-blocking socket to the engine, with what waits to be sent and to be read."""

    def __init__(self, attached: Attached) -> None:
        """Take over an attached stream."""
        self._attached = attached
        if isinstance(attached, ssl.SSLSocket):
            self.socket: socket.socket = attached
        else:
            # The SDK's own object may close its descriptor when it is collected.
            self.socket = socket.socket(fileno=os.dup(attached.fileno()))
        self.socket.setblocking(False)
        self.unsent = bytearray()
        self.said = bytearray()
        self.errors = b""
        self._held = bytearray()

    def send(self) -> None:
        """Send as much of `unsent` as the socket takes now. Raises OSError when it is gone."""
        while self.unsent:
            try:
                sent = self.socket.send(memoryview(self.unsent)[:_CHUNK_BYTES])
            except _NOT_NOW:
                return
            del self.unsent[:sent]

    def receive(self) -> bool:
        """Read what there is into `said` and `errors`; return False when the stream has ended."""
        while True:
            try:
                chunk = self.socket.recv(_CHUNK_BYTES)
            except _NOT_NOW:
                return True
            if not chunk:
                return False
            self._held += chunk
            self._take_apart()
            if not isinstance(self.socket, ssl.SSLSocket):
                return True  # a selector sees what is left; in TLS, only reading shows it

    def close(self) -> None:
        """Hang up: the container's input ends, and the container with it."""
        self.socket.close()
        # The SDK keeps the HTTP response there, whose connection this is.
        getattr(self._attached, "_response", self._attached).close()

    def _take_apart(self) -> None:
        held, at = self._held, 0
        while len(held) >= at + _HEADER.size:
            output, size = _HEADER.unpack_from(held, at)
            end = at + _HEADER.size + size
            if len(held) < end:
                break
            part = held[at + _HEADER.size : end]
            if output == _STDOUT:
                self.said += part
            else:
                self.errors = (self.errors + part)[-_ERRORS_BYTES:]
            at = end
        del held[:at]
