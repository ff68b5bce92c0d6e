"""What every backend offers, whatever walls it builds and wherever it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from trillium_sandbox.verdicts import Reply, Request


class Backend(Protocol):
    """Runs requests and answers each exactly once, in order."""

    @property
    def level(self) -> int:
        """Return the isolation level that holds; see levels.py."""
        ...

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request, in the order of the requests, several running at a time."""
        ...

    def close(self) -> None:
        """End every process of the backend."""
        ...

    def __enter__(self) -> Self:
        """Return the backend itself."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the backend."""
        ...
