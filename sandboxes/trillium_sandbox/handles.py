"""Handles: what stays on one side and is known to the other by a number.

A handle's owner says which side has the object: 0 the sender, 1 the receiver, 2 both, by its name
in the standard library. Imported in the zygote: standard library only, and little of it (see
zygote.py).
"""

from __future__ import annotations

from trillium_sandbox import named, raised
from trillium_sandbox.codec import CodecError
from trillium_sandbox.operations import OPEN
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
    from trillium_sandbox.peer import Peer
    from trillium_sandbox.remote import Description

_OPAQUE = frozenset({"module", "frame", "traceback", "code"})


class Handles:
    """What one side has handed over, and what it has met of the other side's."""

    def __init__(self, peer: Peer) -> None:
        """Begin with nothing; `peer` is the side that these are of."""
        self.has_lent = False
        """Whether an object of a class statement was handed over: it may be looked into."""
        self._peer = peer
        self._exported: list[object] = []
        self._numbers: dict[int, int] = {}
        self._theirs: dict[int, object] = {}
        self._descriptions: dict[type, Description] = {}
        self._homes: dict[type, int] = {}
        self._kinds = {**STAND_INS}

    @property
    def n_met(self) -> int:
        """Return how many of the other side's objects have come here."""
        return len(self._theirs)

    def holds(self, value: object) -> bool:
        """Return whether the other side holds a handle to `value`."""
        return id(value) in self._numbers

    def export(self, value: object) -> tuple[int, int, object]:
        """Return the handle to `value`. Raises CodecError where it may have none."""
        kind = type(value)
        if issubclass(kind, Remote) and peer_of(value) is self._peer:
            return 1, number_of(value), None
        if issubclass(kind, type) and value in self._homes:
            return 1, self._homes[value], None
        if self._peer.names is None:
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
        self._peer.leant |= not (is_plain(description) or description[2] in OPEN)
        return 0, number, description

    def resolve(self, owner: int, number: int, description: object) -> object:
        """Return what a handle of the other side's is here. Raises CodecError where it is none."""
        if owner == 1:
            if number >= len(self._exported):
                raise CodecError("a handle to nothing")
            return self._exported[number]
        if owner == 2:
            if self._peer.names is None or type(description) is not str:
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
            self._peer.leant |= description[2] is True  # one of Python's, but not of named.py's
            return kind
        if description not in self._kinds:
            self._kinds[description] = stand_in(description)
        self._peer.leant |= not is_plain(description)
        return self._kinds[description](self._peer, number)
