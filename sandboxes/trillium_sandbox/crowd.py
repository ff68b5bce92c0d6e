"""How many processes and threads a user has, where programs run as the caller's own user.

The kernel limits them by user, not by program, and counts over all containers: /proc does not show
what it counts. So it is asked: may this user start a thread under such a limit?
"""

from __future__ import annotations

import _thread
import os
import resource
import time

_FEW, _MANY = 64, 1 << 20
_LOOK_S = 1.0


class Crowd:
    """A number of processes and threads that the user does not reach, however others of it grow."""

    def __init__(self) -> None:
        """Ask the kernel for the first time."""
        self._number = _FEW
        self._next_look_s = 0.0
        self.look()

    def look(self) -> None:
        """Ask the kernel again, unless it was asked a moment ago."""
        if time.monotonic() < self._next_look_s:
            return
        while self._number < _MANY and not _allows_a_thread(self._number):
            self._number *= 2
        self._next_look_s = time.monotonic() + _LOOK_S

    def admit(self, n_threads: int) -> None:
        """Limit this process to about so many threads.

        At least so many: the user's own processes may start others before the next look.
        """
        _limit(2 * self._number + n_threads)


def _limit(number: int) -> None:
    ceiling = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if ceiling != resource.RLIM_INFINITY:
        number = min(number, ceiling)
    resource.setrlimit(resource.RLIMIT_NPROC, (number, number))


def _allows_a_thread(number: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            _limit(number)
            _thread.start_new_thread(int, ())
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
