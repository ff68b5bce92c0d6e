"""File descriptors of a child: what it holds and what it reads before it is locked down."""

from __future__ import annotations

import os
import sys
from _io import BufferedWriter, FileIO, TextIOWrapper


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


class _Sink(FileIO):
    """Writes to a sealed file, and drops what it has no room for."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(content) or 0
        except OSError:  # its seal, or the limit for files
            return len(content)


_dropping: list[TextIOWrapper] = []


def prepare_streams() -> None:
    """Make, in the zygote, what `drop_excess` puts in place: a third of a millisecond a program."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        raw = _Sink(number, "w", closefd=False)
        raw.name = f"<{name}>"
        dropping = TextIOWrapper(
            BufferedWriter(raw),  # type: ignore[type-var]
            encoding=stream.encoding,
            errors=stream.errors,
            newline="\n",
            line_buffering=stream.line_buffering,
        )
        _dropping.append(dropping)


def drop_excess() -> None:
    """Let `sys.stdout` and `sys.stderr` go on when their file is full: what is lost is noted there.

    For where no verdict rests on an output, and a limit of it must not become one.
    """
    for name, dropping in zip(("stdout", "stderr"), _dropping, strict=True):
        setattr(sys, name, dropping)
        setattr(sys, f"__{name}__", dropping)


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
