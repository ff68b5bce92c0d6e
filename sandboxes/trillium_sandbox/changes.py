"""What a call changed in containers it was given, so that they change where they came from, too.

Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

from collections import deque
from operator import is_

from trillium_sandbox.codec import CodecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def contents_of(container: object) -> list[object] | bytes:
    """Return what a container holds now, in order."""
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


def apply_changes(sent: list[object], changes: object) -> None:
    """Give the containers of a request, by their numbers, the contents that an answer has."""
    for number, content in changes.items() if type(changes) is dict else ():
        if type(number) is not int or not 0 <= number < len(sent):
            raise CodecError("contents for a container that was not sent")
        container = sent[number]
        if type(container) is not type(content):
            raise CodecError("contents of another type than their container")
        container.clear()  # type: ignore[attr-defined]
        if isinstance(container, list | deque | bytearray):
            container.extend(content)  # type: ignore[arg-type]
        else:
            container.update(content)  # type: ignore[attr-defined]
