"""What a call changed in containers it was given, so that they change where they came from, too.

Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

from collections import deque
from operator import is_
from sys import getrefcount

from trillium_sandbox.codec import MUTABLE, CodecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


_MOST_KEPT = 10_000


def contents_of(container: object) -> list[object] | bytes:
    """Return what a container holds now, in order; a NaN, kept for its identity, holds nothing."""
    if isinstance(container, float):
        return []
    if isinstance(container, dict):
        return [*container, *container.values()]
    return bytes(container) if isinstance(container, bytearray) else list(container)  # type: ignore[call-overload]


def changes_since(
    before: Sequence[object], containers: Sequence[object]
) -> dict[int, object] | None:
    """Return the contents of the containers that are no longer what they were, by number."""
    changed = {
        number: containers[number].copy()  # type: ignore[attr-defined]
        for number, contents in enumerate(before)
        if not _is_same(contents, contents_of(containers[number]))  # type: ignore[arg-type]
    }
    return changed or None


def _is_same(before: list[object] | bytes, after: list[object] | bytes) -> bool:
    """Compare by identity: equal is not enough (True is no 1), and what changed inside says so."""
    if isinstance(before, bytes):
        return before == after
    return len(before) == len(after) and all(map(is_, before, after))


def is_reordered(container: object) -> bool:
    """Return whether a set of numbers or texts, built anew, would be gone through otherwise."""
    if type(container) is not set or not all(type(item) in (int, str) for item in container):
        return False
    return not all(map(is_, container, set(list(container))))  # noqa: C414 - a set is copied as is


def apply_changes(sent: list[object], changes: object) -> None:
    """Give the containers of a request, by their numbers, the contents that an answer has."""
    for number, content in changes.items() if type(changes) is dict else ():
        if type(number) is not int or not 0 <= number < len(sent):
            raise CodecError("contents for a container that was not sent")
        container = sent[number]
        if type(container) is not type(content) or isinstance(container, float):
            raise CodecError("contents of another type than their container")
        container.clear()  # type: ignore[attr-defined]
        if isinstance(container, list | deque | bytearray):
            container.extend(content)  # type: ignore[arg-type]
        else:
            container.update(content)  # type: ignore[attr-defined]


class Kept:
    """Containers that crossed and are held on to, as they were then."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._kept: list[tuple[object, list[object] | bytes]] = []
        self._ids: set[int] = set()

    def add(self, containers: list[object]) -> None:
        """Remember containers."""
        for container in containers[: _MOST_KEPT - len(self._kept)]:
            self._kept.append((container, contents_of(container)))
            self._ids.add(id(container))

    def holds(self, ids: set[int]) -> bool:
        """Return whether a container of one of these ids is among them."""
        return not ids.isdisjoint(self._ids)

    def has_changed(self) -> bool:
        """Return whether one of them holds something else now."""
        return any(not _is_same(before, contents_of(held)) for held, before in self._kept)


def still_held(containers: list[object]) -> list[object]:
    """Return those that something refers to beside the list, the message and this look."""
    # A message's own changes, and the copies in them, are held by nothing, one after the other.
    for _ in range(2):
        containers = _referred_to(containers, 2)
    held = _referred_to(containers, 3)
    seen = {id(container) for container in held}
    for container in held:  # grows: what a held one holds is held
        for item in contents_of(container):
            if type(item) in MUTABLE and id(item) not in seen:
                seen.add(id(item))
                held.append(item)
    return held


def _referred_to(containers: list[object], n_known: int) -> list[object]:
    """Return those that have more references than `n_known`, and take them out of the list."""
    found = [
        containers[number]
        for number in range(len(containers))
        if getrefcount(containers[number]) > n_known
    ]
    containers.clear()
    return found
