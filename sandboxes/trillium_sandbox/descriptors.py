"""File descriptors of a child: what it holds and what it reads before it is locked down."""

from __future__ import annotations

import os


def hold(*descriptors: int) -> None:
    """Make these the descriptors 0, 1, 2, and so on; none of them may have such a number yet."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)


def standard_input(content: bytes, null: int) -> int:
    """Return a descriptor that reads `content`, or `null` when there is none."""
    if not content:
        return null
    descriptor = os.memfd_create("stdin", 0)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def read_exactly(descriptor: int, size: int) -> bytes | None:
    """Return `size` bytes, None when the stream ends first."""
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
