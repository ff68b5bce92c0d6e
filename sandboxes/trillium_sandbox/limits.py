"""What one program may use. The zygote and the child enforce it; see child.py and zygote.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trillium_sandbox.errors import RequestError

MAX_OUTPUT_BYTES = 16 << 20
"""Outputs stay in memory until the reply is read, so no request may ask for more than this."""

MIN_MEMORY_BYTES = 1 << 20
"""With less, the sandbox's own part of a program's process cannot begin."""

MAX_PROCESSES = 4096
"""The kernel refuses to set a limit beyond what the sandbox itself may have."""


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one program; every field must be positive.

    In function mode `wall_s` bounds loading the candidate and then each test; `cpu_s` bounds the
    candidate's process, and tests that it leaves no time for run in another. `memory_bytes` bounds
    the address space a program adds to the bare interpreter's, thread stacks included.
    `n_processes` counts threads: no program may fork. It is loose where programs are the caller's
    own user (crowd.py).
    """

    wall_s: float = 5.0
    cpu_s: float = 5.0
    memory_bytes: int = 256 << 20
    disk_bytes: int = 32 << 20
    n_processes: int = 16
    output_bytes: int = 65536

    def __post_init__(self) -> None:
        """Refuse what the kernel would misread: zero means unlimited to some of its calls."""
        for name in ("wall_s", "cpu_s"):
            seconds = getattr(self, name)
            if type(seconds) not in (int, float) or not 0 < seconds <= 86400:
                raise RequestError(f"limits.{name} = {seconds!r} (seconds, above 0, at most 86400)")
            object.__setattr__(self, name, float(seconds))
        for name in ("memory_bytes", "disk_bytes", "n_processes", "output_bytes"):
            count = getattr(self, name)
            if type(count) is not int or not 0 < count < 1 << 60:
                raise RequestError(f"limits.{name} = {count!r} (a positive whole number)")
        for name, most in (("output_bytes", MAX_OUTPUT_BYTES), ("n_processes", MAX_PROCESSES)):
            if getattr(self, name) > most:
                raise RequestError(f"limits.{name} = {getattr(self, name)} (at most {most})")
        if self.memory_bytes < MIN_MEMORY_BYTES:
            raise RequestError(
                f"limits.memory_bytes = {self.memory_bytes} (at least {MIN_MEMORY_BYTES})"
            )

    @classmethod
    def from_json(cls, values: object, defaults: Limits) -> Limits:
        """Read a request's `limits` object over `defaults`."""
        if not isinstance(values, Mapping):
            raise RequestError(f'limits = {values!r} (an object such as {{"wall_s": 2}})')
        known = vars(defaults)
        for name in values:
            if name not in known:
                raise RequestError(f"limits.{name}: unknown limit (one of {', '.join(known)})")
        return cls(**{**known, **values})

    @property
    def cpu_rlimit_s(self) -> int:
        """Return the kernel's whole-second CPU limit, the backstop behind the zygote's own."""
        return math.ceil(self.cpu_s) + 1
