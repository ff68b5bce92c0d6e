"""How much a container has for its programs: fixed when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from trillium_sandbox.limits import MAX_OUTPUT_BYTES, Limits

_LEAST_MEMORY, _LEAST_PROCESSES = 256 << 20, 16
_SLACK_BYTES = 256 << 20
"""For interpreters, and for what the supervisor holds of requests and replies under way."""
_SLACK_PROCESSES, _MOST_PROCESSES = 32, 1 << 20


@dataclass(frozen=True)
class Room:
    """One program's limits, as a container is made for them."""

    disk_bytes: int
    memory_bytes: int
    n_processes: int
    n_inodes = 4096

    @classmethod
    def for_limits(cls, limits: Limits) -> Room:
        """Return the room for a request: its disk, and powers of two of memory and processes."""
        return cls(
            limits.disk_bytes,
            max(_LEAST_MEMORY, 1 << (limits.memory_bytes - 1).bit_length()),
            max(_LEAST_PROCESSES, 1 << (limits.n_processes - 1).bit_length()),
        )

    def holds(self, limits: Limits) -> bool:
        """Return whether a program finds its limits here: the disk exactly, of the rest enough."""
        return (
            self.disk_bytes == limits.disk_bytes
            and self.memory_bytes >= limits.memory_bytes
            and self.n_processes >= limits.n_processes
        )

    @property
    def total_memory_bytes(self) -> int:
        """Return what candidate, judge, work folder and outputs can take together, and slack."""
        return 2 * self.memory_bytes + self.disk_bytes + 6 * MAX_OUTPUT_BYTES + _SLACK_BYTES

    @property
    def total_processes(self) -> int:
        """Return the threads of candidate and judge, and slack for the sandbox's own."""
        return min(2 * self.n_processes + _SLACK_PROCESSES, _MOST_PROCESSES)
