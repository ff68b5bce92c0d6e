"""What a container and its user say to one another: a length, then one value in codec.py's bytes.

Both sides of the stream build and read it here. What comes out of a container is checked field by
field, as if programs had written it.
"""

from __future__ import annotations

import math
from dataclasses import astuple, fields
from typing import get_args

from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.decode import decode
from trillium_sandbox.limits import MAX_OUTPUT_BYTES, Limits
from trillium_sandbox.verdicts import (
    MAX_REQUEST_BYTES,
    Integrity,
    Reply,
    Request,
    Status,
    TestStatus,
)
from trillium_sandbox.wire import LENGTH

MAX_FRAME_BYTES = 2 * max(MAX_OUTPUT_BYTES, MAX_REQUEST_BYTES) + (4 << 20)

_STATUSES = frozenset(get_args(Status))
_TEST_STATUSES = frozenset(get_args(TestStatus))
_INTEGRITIES = frozenset(get_args(Integrity))
_LIMIT_NAMES = {None, *(field.name for field in fields(Limits))}
_TEXT = (str, type(None))
_COUNT = (int, type(None))
_REPLY: dict[str, tuple[type, ...]] = {
    "status": (str,),
    "tests": (tuple,),
    "stdout": (bytes,),
    "stderr": (bytes,),
    "truncated": (bool,),
    "exit_code": _COUNT,
    "wall_s": (float,),
    "cpu_s": (float,),
    "peak_memory_bytes": (int,),
    "opcode_count": _COUNT,
    "limit_hit": _TEXT,
    "integrity": (str,),
}
"""A reply's fields and the exact types that they may have; id and level are known outside."""


class FrameError(ValueError):
    """The other side sent what it never may."""


def frame(value: object) -> bytes:
    """Return one frame."""
    data = encode(value)
    return LENGTH.pack(len(data)) + data


def take_frames(held: bytearray) -> list[tuple[object, ...]]:
    """Remove the whole frames from the front of `held` and return their values."""
    values = []
    at = 0
    while len(held) >= at + LENGTH.size:
        (size,) = LENGTH.unpack_from(held, at)
        if size > MAX_FRAME_BYTES:
            raise FrameError(f"a frame of {size} bytes (at most {MAX_FRAME_BYTES})")
        end = at + LENGTH.size + size
        if len(held) < end:
            break
        try:
            value = decode(bytes(memoryview(held)[at + LENGTH.size : end]))
        except CodecError as error:
            raise FrameError(str(error)) from error
        if type(value) is not tuple or not value:
            raise FrameError("a frame that is no message")
        values.append(value)
        at = end
    del held[:at]
    return values


def request_frame(ticket: int, request: Request) -> bytes:
    """Return the frame that asks for `request`; its id and its run stay outside."""
    return frame(
        (
            "run",
            ticket,
            request.mode,
            request.source,
            request.tests,
            request.entry_point,
            request.stdin,
            request.expected_stdout,
            astuple(request.limits),
            request.count_opcodes,
        )
    )


def read_request(message: tuple[object, ...]) -> tuple[int, Request]:
    """Return the ticket and the request of a `run` message."""
    _, ticket, mode, source, tests, entry_point, stdin, expected, limits, counts = message
    request = Request(
        id=str(ticket),
        mode=mode,  # type: ignore[arg-type]
        source=source,  # type: ignore[arg-type]
        tests=tests,  # type: ignore[arg-type]
        entry_point=entry_point,  # type: ignore[arg-type]
        stdin=stdin,  # type: ignore[arg-type]
        expected_stdout=expected,  # type: ignore[arg-type]
        limits=Limits(*limits),  # type: ignore[misc]
        count_opcodes=counts,  # type: ignore[arg-type]
    )
    return ticket, request  # type: ignore[return-value]


def reply_frame(ticket: int, reply: Reply, complaint: str | None) -> bytes:
    """Return the frame that answers a request; `complaint` says why to replace the container."""
    return frame(("done", ticket, complaint, *(getattr(reply, name) for name in _REPLY)))


def read_reply(message: tuple[object, ...], request: Request, level: int) -> Reply:
    """Return the reply of a `done` message, as the answer to `request` at `level`.

    Raises FrameError when it is not one that this request can have.
    """
    values = message[3:]
    if len(values) != len(_REPLY) or any(
        type(value) not in kinds for value, kinds in zip(values, _REPLY.values(), strict=True)
    ):
        raise FrameError("a reply of another shape")
    reply = Reply(request.id, isolation=level, **dict(zip(_REPLY, values, strict=True)))  # type: ignore[arg-type]
    n_tests = 0 if reply.sandbox_failure else len(request.tests)
    most = request.limits.output_bytes
    is_sound = (
        reply.status in _STATUSES
        and len(reply.tests) == n_tests
        and _TEST_STATUSES.issuperset(reply.tests)
        and max(len(reply.stdout), len(reply.stderr)) <= most
        and all(0 <= n < math.inf for n in (reply.wall_s, reply.cpu_s, reply.peak_memory_bytes))
        and reply.limit_hit in _LIMIT_NAMES
        and reply.integrity in _INTEGRITIES
    )
    if not is_sound:
        raise FrameError("a reply that the request cannot have")
    return reply
