"""The turnstile between the child that has read a request and the zygote that forked it.

The child announces the request and begins; where a judge of other tests sits, it first waits until
that is gone. Both ends of both pipes are closed in whatever runs a program or a test: what is
announced here was announced by code of ours.
"""

from __future__ import annotations

import os

from trillium_sandbox.wire import ALONE, BEGIN


class Turnstile:
    """Two pipes, made once; one child at a time speaks on them."""

    def __init__(self) -> None:
        """Make the pipes."""
        self.announced, self.announce = os.pipe()
        os.set_blocking(self.announced, False)
        self._let_in, self._open = os.pipe()

    def hear(self) -> bytes:
        """Return what the child has announced, nothing where it has ended instead."""
        try:
            return os.read(self.announced, BEGIN.size + 1)
        except BlockingIOError:
            return b""

    def open(self) -> None:
        """Let the child in that wants to be alone."""
        os.write(self._open, ALONE)

    def ask_to_be_alone(self) -> None:
        """Wait, in the child, until the zygote lets it in; end where the zygote ends."""
        os.close(self._open)
        os.write(self.announce, ALONE)
        if not os.read(self._let_in, 1):
            os._exit(70)
