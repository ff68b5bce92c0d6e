"""One end of the socket between judge and candidate: whole messages, each behind its length.

Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

import os
from _thread import RLock

from trillium_sandbox.wire import LENGTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MAX_FRAME_BYTES = 32 << 20


class ConnectionLost(BaseException):
    """The other side is gone; not an Exception, so that nothing in between swallows it."""


class Channel:
    """Sends and receives; what a handler of a test's signal raises in between goes through."""

    def __init__(self, descriptor: int) -> None:
        """Speak over `descriptor`."""
        self.is_lost = False
        self._descriptor = descriptor
        self._held = bytearray()
        self._sending = RLock()

    def send(self, data: bytes) -> None:
        """Send one message."""
        view = memoryview(LENGTH.pack(len(data)) + data)
        try:
            with self._sending:  # of several threads
                while view:
                    view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            if error.errno is None:  # of a handler: a TimeoutError is an OSError
                raise
            self.lose()

    def receive(self) -> bytes:
        """Return the next message."""
        held = self._held
        while len(held) < 4:
            self._fill()
        (size,) = LENGTH.unpack_from(held)
        if size > MAX_FRAME_BYTES:
            self.lose()
        while len(held) < size + 4:
            self._fill()
        data = bytes(held[4 : size + 4])
        del held[: size + 4]
        return data

    def lose(self) -> NoReturn:
        """Give the other side up."""
        self.is_lost = True
        raise ConnectionLost

    def _fill(self) -> None:
        try:
            part = os.read(self._descriptor, 1 << 16)
        except OSError as error:
            if error.errno is None:
                raise
            part = b""
        if not part:
            self.lose()
        self._held += part
