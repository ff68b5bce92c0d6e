"""What one side knows of the containers of which the other side has copies.

A copy stands for its container as long as neither changes alone; here is noticed when one does.
Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

import contextlib

from trillium_sandbox.changes import Kept, changes_since, is_reordered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Copies:
    """The containers that crossed, those that may be changed later, and those being worked on."""

    __slots__ = ("_crossed", "_kept", "_under_way", "has_twins")

    def __init__(self) -> None:
        """Begin before anything has crossed."""
        self.has_twins = False
        """Whether a container may have crossed twice, so that there are two copies of it."""
        self._kept = Kept()
        self._crossed = Kept()
        self._under_way: list[tuple[Sequence[object], list[object]]] = []

    def keep(self, containers: list[object]) -> None:
        """Remember containers that are held by both sides from now on, and must stay the same."""
        self._kept.add(containers)

    def note(self, containers: list[object]) -> None:
        """Remember containers that may be handed back, and then are second copies."""
        self._crossed.add(containers)

    @contextlib.contextmanager
    def working_on(self, before: Sequence[object], containers: list[object]) -> Iterator[None]:
        """Remember what an operation was given, and that it was `before`, while it lasts."""
        self._under_way.append((before, containers))
        try:
            yield
        finally:
            self._under_way.pop()

    def have_changed(self) -> bool:
        """Return whether a container that both sides hold is another one now."""
        return self._kept.has_changed()

    def are_reordered(self, containers: list[object]) -> bool:
        """Return whether one of `containers` is a set whose copy has another order."""
        return any(map(is_reordered, containers))

    def news_of_asking(self, containers: list[object]) -> list[str]:
        """Return what the other side must be told before an operation is sent (peer.py)."""
        is_stale = any(changes_since(before, given) for before, given in self._under_way)
        return ["stale"] * is_stale + ["again"] * self._would_be_second(containers)

    def news_of_answering(self, containers: list[object]) -> list[str]:
        """Return what the other side must be told before an answer is sent."""
        return ["stale"] * self.have_changed() + ["again"] * self._would_be_second(containers)

    def _would_be_second(self, containers: list[object]) -> bool:
        """Return whether one of `containers` has crossed before."""
        ids = {id(container) for container in containers}
        is_given = any(not ids.isdisjoint(map(id, given)) for _, given in self._under_way)
        return is_given or self._kept.holds(ids) or self._crossed.holds(ids)

    def have_parted(self) -> bool:
        """Return whether, of two copies of one container, one was changed alone."""
        return self.has_twins and (self._kept.has_changed() or self._crossed.has_changed())
