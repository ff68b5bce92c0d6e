"""Calls between the judge's process and the candidate's, over one socket.

Plain values cross as copies (codec.py); containers that a call was given and changed are changed
where they came from, by identity. What is not plain, a function, an iterator, an instance, stays
where it is and crosses as a handle; the other side sees a `Remote` (remote.py).
"""

from __future__ import annotations

import contextlib
import sys

from trillium_sandbox import named, raised
from trillium_sandbox.changes import Kept, apply_changes, changes_since, contents_of, still_held
from trillium_sandbox.channel import MAX_FRAME_BYTES, Channel, ConnectionLost
from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.decode import decode
from trillium_sandbox.operations import ITEMS, LEANING, OPEN, OPERATIONS, target_of
from trillium_sandbox.remote import (
    STAND_INS,
    Remote,
    describe,
    is_plain,
    number_of,
    peer_of,
    stand_in,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

    from trillium_sandbox.opcodes import OpcodeCount
    from trillium_sandbox.remote import Description

_OPAQUE = frozenset({"module", "frame", "traceback", "code"})
_ANSWERS = encode(("ok", None, None))[:-2], encode(("raise", None, None))[:-2]
"""How answers begin; no other message may refer to what the operation sent."""
_STUCK = encode(("stuck", None))[:-1]


class Peer:
    """One end of the connection; each end serves the other while it waits for an answer."""

    def __init__(self, descriptor: int, *, names: Mapping[str, object] | None = None) -> None:
        """Speak over `descriptor`; with `names`, the other side may ask for them and look inside.

        Without, it may only use what it was handed: call functions, advance iterators, and touch
        the public attributes of instances. That is the judge's side.
        """
        self.names = names
        self.leant = False
        self.raised: BaseException | None = None
        self.counted: OpcodeCount | None = None
        self._channel = Channel(descriptor)
        self._n_late = 0
        self._exported: list[object] = []
        self.has_twins = False
        self._kept = Kept()
        self._crossed = Kept()
        self._under_way: list[tuple[Sequence[object], list[object]]] = []
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, object] = {}
        self._descriptions: dict[type, Description] = {}
        self._homes: dict[type, int] = {}
        self._kinds = {**STAND_INS}
        self.has_lent = False

    @property
    def is_lost(self) -> bool:
        """Return whether the other side is gone."""
        return self._channel.is_lost

    @property
    def n_met(self) -> int:
        """Return how many of the other side's objects have come here."""
        return len(self._theirs)

    def ask(self, *operation: object) -> object:
        """Have the other side do `operation` and return its answer, or raise what it raised.

        Containers that it was given and changed are changed here as well, and keep their identity
        wherever they turn up, in one another or in the answer. An operation in which an object
        speaks for itself (its truth, an attribute, a comparison) sets `leant`, for good: what it
        was told may serve it later. So does whatever cannot cross.
        """
        if operation[0] in LEANING or (operation[0] == "do" and operation[1] not in ITEMS):
            self.leant = True
        try:
            return self._ask(operation)
        except CodecError:
            self.leant = True
            raise

    def _ask(self, operation: tuple[object, ...]) -> object:
        sent: list[object] = []
        self.leant |= self._kept.has_changed()
        data = self._fit(encode(operation, self._export, sent))
        if self.names is not None:
            if any(changes_since(before, given) for before, given in self._under_way):
                self.send("stale")
            self._say_again(sent)
        self._channel.send(data)
        before = [contents_of(container) for container in sent]
        message = self._await_answer(sent, before)
        if message[0] == "stuck":
            raise CodecError(str(message[1])[:2000])
        if message[0] == "raise":
            self._raise(message[1])
        return message[1]

    def _await_answer(self, sent: list[object], before: Sequence[object]) -> tuple[object, ...]:
        """Serve the other side until it answers; return the answer."""
        is_kept = False
        while True:
            try:
                data = self._next_frame()
            except Exception:
                # A test's alarm: the answer will come when nobody waits for it any more.
                self._n_late += 1
                self.leant = True
                raise
            message, containers = self._read(data, sent)
            kind = message[0]
            if kind in ("ok", "raise") and len(message) == 3:
                apply_changes(sent, message[2])
                if is_kept:
                    self._kept.add(containers)
                elif self.names is not None:
                    self._crossed.add(containers)  # the judge's: they may be handed back
                return message
            if kind == "stuck" and len(message) == 2:
                return message
            if kind in ("stale", "again", "kept"):
                # What crossed before is another one there now, crosses as a second copy, or may
                # become another one.
                self.leant |= kind == "stale"
                self.has_twins |= kind == "again"
                is_kept = True
                continue
            self._serve(message, containers)
            # Neither side sees what the other does to an argument before the call is over.
            self.leant |= changes_since(before, sent) is not None

    def _look_at_kept(self, answered: list[object]) -> None:
        """Say when the copies that the other side has, or gets, are not what they would be here."""
        if self._kept.has_changed():
            self.send("stale")
        self._say_again(answered)

    def _say_again(self, containers: list[object]) -> None:
        """Say when one of `containers` has crossed before: the other side will have two copies."""
        ids = {id(container) for container in containers}
        is_given = any(not ids.isdisjoint(map(id, given)) for _, given in self._under_way)
        if is_given or self._kept.holds(ids) or self._crossed.holds(ids):
            self.send("again")

    def look_back(self) -> None:
        """At the end of a test: of two copies of one container, was one changed alone?"""
        if self.has_twins:
            self.leant |= self._kept.has_changed() or self._crossed.has_changed()

    def _raise(self, error: object) -> NoReturn:
        """Raise what the other side raised, as far as it may.

        Nothing that would end a loop of a test as if all went well: a RuntimeError instead, as in
        PEP 479.
        """
        if not isinstance(error, BaseException):
            raise CodecError("what was raised is no exception")
        if self.names is None:
            if isinstance(error, StopIteration | StopAsyncIteration):
                error = RuntimeError(f"it raised {type(error).__name__}")
                self.leant = True
            if not isinstance(error, Exception):
                self.leant = True
        self.raised = error
        raise error

    def serve_forever(self) -> None:
        """Answer the other side until it hangs up."""
        while True:
            self._serve(*self._read(self._next_frame()))

    def send(self, *message: object) -> None:
        """Send one message that needs no answer."""
        self._channel.send(self._fit(encode(message, self._export)))

    def receive(self) -> tuple[object, ...]:
        """Return the next message as it came."""
        return self._read(self._next_frame())[0]

    def _serve(self, message: tuple[object, ...], containers: list[object]) -> None:
        operation = message[0]
        action = OPERATIONS.get(operation) if isinstance(operation, str) else None
        before = [contents_of(container) for container in containers]
        known = [*containers]
        try:
            if action is None:
                raise CodecError("an unknown operation")
            if self.names is None and not self.was_handed(target_of(message)):
                raise TypeError("the test's side works on what it handed over, and on nothing else")
            self._under_way.append((before, containers))
            try:
                answer = action(self, *message[1:])
            finally:
                self._under_way.pop()
            changes = changes_since(before, containers)
            reply = self._fit(encode(("ok", answer, changes), self._export, known))
            del known[: len(containers)]
            if self.names is None:
                # A container of a test's object: what becomes of the copy? And of an argument's?
                self.leant |= operation == "get" and bool(known)
                self.leant |= self.has_twins and changes is not None
            else:
                self._look_at_kept(known)
            before.clear()
            changes = None
            held = still_held(known)
            known.clear()
            answer = None
            self._keep(held + still_held(containers))
        except ConnectionLost:
            raise
        except BaseException as error:
            # Its frames hold the half of an answer that did not fit into memory.
            reply = self._failure(error.with_traceback(None), before, containers)
        if self.names is not None:
            # The candidate may be killed any time after its answer: all else goes out before.
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            if self.counted is not None:
                self.counted.save()
        self._channel.send(reply)

    def _keep(self, held: list[object]) -> None:
        """Say when containers that crossed are still held here, as the other side holds copies."""
        if held:
            (self._crossed if self.names is None else self._kept).add(held)
            self.send("kept")

    def _failure(
        self, error: BaseException, before: Sequence[object], containers: Sequence[object]
    ) -> bytes:
        """Return the answer that an operation raised, without what cannot cross."""
        try:
            if type(error) is CodecError:
                raise error
            changes = changes_since(before, containers)
            known = [*containers]
            reply = self._fit(encode(("raise", error, changes), self._export, known))
            if self.names is not None:
                del known[: len(containers)]
                self._look_at_kept(known)
                self._keep(known)
            return reply
        except Exception as reason:
            self.leant = True
            return encode(("stuck", f"{type(reason).__name__}: {raised.text_of(reason)}"))

    def was_handed(self, value: object) -> bool:
        """Return whether the other side holds a handle to `value`."""
        return id(value) in self._numbers

    def _export(self, value: object) -> tuple[int, int, object]:
        kind = type(value)
        if issubclass(kind, Remote) and peer_of(value) is self:
            return 1, number_of(value), None
        if issubclass(kind, type) and value in self._homes:
            return 1, self._homes[value], None
        if self.names is None:
            name = named.library_name(value)
            if name is not None:
                return 2, 0, name
            if kind.__name__ in _OPAQUE:
                raise CodecError(f"a value of type {kind.__name__} cannot cross")
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._exported)
            self._exported.append(value)
        if issubclass(kind, type) and issubclass(value, BaseException):  # type: ignore[arg-type]
            return 0, number, raised.describe(value)  # type: ignore[arg-type]
        if kind not in self._descriptions:
            self._descriptions[kind] = describe(kind)
        description = self._descriptions[kind]
        # Of an object of a test's, a candidate may ask what does not reach it.
        self.has_lent |= description[2] is None
        self.leant |= not (is_plain(description) or description[2] in OPEN)
        return 0, number, description

    def _resolve(self, owner: int, number: int, description: object) -> object:
        if owner == 1:
            if number >= len(self._exported):
                raise CodecError("a handle to nothing")
            return self._exported[number]
        if owner == 2:
            if self.names is None or type(description) is not str:
                raise CodecError("a name of the candidate's for something of the judge's")
            return named.from_library(description)
        if number not in self._theirs:
            self._theirs[number] = self._stand_in(number, description)
        return self._theirs[number]

    def _stand_in(self, number: int, description: object) -> object:
        if type(description) is not tuple:
            raise CodecError("a handle to an object of no class")
        if len(description) == 4:
            kind = raised.stand_in(description)
            self._homes[kind] = number
            self.leant |= description[2] is True  # one of Python's, but not one of named.py's
            return kind
        if description not in self._kinds:
            self._kinds[description] = stand_in(description)
        self.leant |= not is_plain(description)
        return self._kinds[description](self, number)

    def _fit(self, data: bytes) -> bytes:
        if len(data) <= MAX_FRAME_BYTES:
            return data
        raise CodecError(f"a message of {len(data)} bytes (at most {MAX_FRAME_BYTES})")

    def _next_frame(self) -> bytes:
        """Return the next message's bytes; answers that nobody waits for are dropped."""
        data = self._channel.receive()
        while self._n_late and data.startswith((*_ANSWERS, _STUCK)):
            self._n_late -= 1
            data = self._channel.receive()
        return data

    def _read(
        self, data: bytes, sent: Sequence[object] = ()
    ) -> tuple[tuple[object, ...], list[object]]:
        """Return a message and its containers; those `sent` come first in an answer's."""
        containers = [*sent] if data.startswith(_ANSWERS) else []
        message = decode(data, self._resolve, containers)
        if type(message) is not tuple or not message:
            self._channel.lose()
        return message, containers
