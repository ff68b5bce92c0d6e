"""Calls between the judge's process and the candidate's, over one socket.

Plain values cross as copies (codec.py); containers that a call was given and changed are changed
where they came from, by identity. What is not plain, a function, an iterator, an instance, stays
where it is and crosses as a handle; the other side sees a `Remote` (remote.py).
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys

from trillium_sandbox.changes import apply_changes, changes_since, contents_of
from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.decode import decode
from trillium_sandbox.remote import CandidateError, Remote
from trillium_sandbox.wire import LENGTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import NoReturn

    from trillium_sandbox.opcodes import OpcodeCount

MAX_FRAME_BYTES = 32 << 20
_OPAQUE = frozenset({"module", "frame", "traceback", "code"})
_LEANING = frozenset({"bool", "get", "set"})
_ANSWERS = encode(("ok", None, None))[:-2], encode(("raise", None, None, None))[:-3]
"""How answers begin; no other message may refer to what the operation sent."""


class ConnectionLost(BaseException):
    """The other side is gone; not an Exception, so that nothing in between swallows it."""


class Peer:
    """One end of the connection; each end serves the other while it waits for an answer."""

    def __init__(self, descriptor: int, *, names: Mapping[str, object] | None = None) -> None:
        """Speak over `descriptor`; with `names`, the other side may ask for them and look inside.

        Without, it may only use what it was handed: call functions, advance iterators, and touch
        the public attributes of instances. That is the judge's side.
        """
        self.descriptor = descriptor
        self.names = names
        self.is_lost = False
        self.leant = False
        self.raised: Exception | None = None
        self.counted: OpcodeCount | None = None
        self._held = bytearray()
        self._exported: list[object] = []

    def ask(self, *operation: object) -> object:
        """Have the other side do `operation` and return its answer, or raise what it raised.

        Containers that it was given and changed are changed here as well, and keep their identity
        wherever they turn up, in one another or in the answer. An operation in which an object
        stands in for itself (its truth, an attribute, a method) sets `leant`, for good: what it was
        told may serve it later.
        """
        if operation[0] in _LEANING:
            self.leant = True
        sent: list[object] = []
        self._send(encode(operation, self._export, sent))
        while True:
            message, containers = self._receive(sent)
            if message[0] == "ok" and len(message) == 3:
                apply_changes(sent, message[2])
                return message[1]
            if message[0] == "raise" and len(message) == 4:
                apply_changes(sent, message[3])
                self.raised = _rebuild(message[1], message[2])
                raise self.raised
            self._serve(message, containers)

    def serve_forever(self) -> None:
        """Answer the other side until it hangs up."""
        while True:
            self._serve(*self._receive())

    def send(self, *message: object) -> None:
        """Send one message that needs no answer."""
        self._send(encode(message, self._export))

    def receive(self) -> tuple[object, ...]:
        """Return the next message as it came."""
        return self._receive()[0]

    def _serve(self, message: tuple[object, ...], containers: list[object]) -> None:
        operation = message[0]
        action = _OPERATIONS.get(operation) if isinstance(operation, str) else None
        before = [contents_of(container) for container in containers]
        try:
            if action is None:
                raise CodecError("an unknown operation")
            answer = action(self, *message[1:])
            changes = changes_since(before, containers)
            reply = encode(("ok", answer, changes), self._export, [*containers])
        except ConnectionLost:
            raise
        except BaseException as error:
            reply = self._failure(error, before, containers)
        if self.names is not None:
            # The candidate may be killed any time after its answer: all else goes out before.
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            if self.counted is not None:
                self.counted.save()
        self._send(reply)

    def _failure(
        self, error: BaseException, before: Sequence[object], containers: Sequence[object]
    ) -> bytes:
        """Return the answer that an operation raised, without changes that cannot cross."""
        said = "raise", _exception_names(error), _describe(error)
        try:
            return encode((*said, changes_since(before, containers)), self._export, [*containers])
        except (CodecError, MemoryError):
            return encode((*said, None))

    def _export(self, value: object) -> tuple[int, int]:
        if isinstance(value, Remote) and value._peer is self:
            return 1, value._number
        if self.names is None and type(value).__name__ in _OPAQUE:
            raise CodecError(f"a value of type {type(value).__name__} cannot cross")
        self._exported.append(value)
        return 0, len(self._exported) - 1

    def _resolve(self, owner: int, number: int) -> object:
        if owner == 0:
            return Remote(self, number)
        if number >= len(self._exported):
            raise CodecError("a handle to nothing")
        return self._exported[number]

    def _target(self, value: object) -> object:
        """Return what an operation works on: a handle of ours, or one of our names."""
        if isinstance(value, str) and self.names is not None:
            if value not in self.names:
                raise NameError(f"name {value!r} is not defined")
            return self.names[value]
        return value

    def _attribute(self, value: object, name: object) -> None:
        allowed = self.names is not None or (
            isinstance(name, str)
            and not name.startswith("_")
            and type(value).__module__ == "tests"
            and type(value).__flags__ & 1 << 9  # a class made by a class statement
        )
        if not allowed:
            raise AttributeError(f"{name!r} of the test's objects is out of reach")

    def _send(self, data: bytes) -> None:
        if len(data) > MAX_FRAME_BYTES:
            raise CodecError(f"a message of {len(data)} bytes (at most {MAX_FRAME_BYTES})")
        view = memoryview(LENGTH.pack(len(data)) + data)
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
        except OSError:
            self._lose()

    def _lose(self) -> NoReturn:
        self.is_lost = True
        raise ConnectionLost

    def _receive(self, sent: Sequence[object] = ()) -> tuple[tuple[object, ...], list[object]]:
        """Return the next message and its containers; those `sent` come first in an answer's."""
        held = self._held
        while len(held) < 4:
            self._fill()
        (size,) = LENGTH.unpack_from(held)
        if size > MAX_FRAME_BYTES:
            self._lose()
        while len(held) < size + 4:
            self._fill()
        data = bytes(held[4 : size + 4])
        del held[: size + 4]
        containers = [*sent] if data.startswith(_ANSWERS) else []
        message = decode(data, self._resolve, containers)
        if type(message) is not tuple or not message:
            self._lose()
        return message, containers

    def _fill(self) -> None:
        try:
            part = os.read(self.descriptor, 1 << 18)
        except OSError:
            part = b""
        if not part:
            self._lose()
        self._held += part


def _call(peer: Peer, target: object, arguments: object, named: object) -> object:
    function = peer._target(target)
    if type(arguments) is not tuple or type(named) is not dict or not callable(function):
        raise TypeError(f"{type(function).__name__!r} object is not callable")
    return function(*arguments, **named)


def _get(peer: Peer, target: object, name: object) -> object:
    peer._attribute(target, name)
    return getattr(target, name)  # type: ignore[call-overload]


def _name(peer: Peer, name: object) -> object:
    if peer.names is None:
        raise NameError("the test's names are out of reach")
    return peer._target(name)


def _set(peer: Peer, target: object, name: object, value: object) -> None:
    peer._attribute(target, name)
    if callable(value):
        peer.leant = True  # a method of a test's object would be the other side's
    setattr(target, name, value)  # type: ignore[arg-type]


def _next(peer: Peer, target: object) -> object:
    try:
        return (next(target),)  # type: ignore[call-overload]
    except StopIteration:
        return ()


def _put(peer: Peer, target: object, key: object, value: object) -> None:
    target[key] = value  # type: ignore[index]


_OPERATIONS: dict[str, Callable[..., object]] = {
    "call": _call,
    "get": _get,
    "set": _set,
    "next": _next,
    "name": _name,
    "iter": lambda peer, target: _Iterator(iter(target)),
    "len": lambda peer, target: len(target),
    "bool": lambda peer, target: bool(target),
    "item": lambda peer, target, key: target[key],
    "put": _put,
    "has": lambda peer, target, value: value in target,
    "str": lambda peer, target: str(target),
}


class _Iterator:
    """Keeps an iterator from crossing as a copy, whatever its type."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[object]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        return next(self._items)


def _exception_names(error: BaseException) -> tuple[str, ...]:
    return tuple(kind.__name__ for kind in type(error).__mro__)


def _describe(error: BaseException) -> str:
    try:
        return str(error)[:2000]
    except BaseException:
        return ""


def _rebuild(names: object, text: object) -> Exception:
    """Return one of Python's own exceptions, the nearest to what was raised over there.

    None that would end a loop of a test as if all went well: a RuntimeError instead, as in PEP 479.
    """
    words = text if type(text) is str else ""
    for name in names if type(names) is tuple else ():
        if name in ("StopIteration", "StopAsyncIteration"):
            return RuntimeError(f"it raised {name}")
        kind = getattr(builtins, name, None) if type(name) is str else None
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return kind(words)
            except TypeError:  # UnicodeDecodeError and its like need more than a text
                break
    return CandidateError(words)
