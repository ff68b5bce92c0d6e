"""What one side sees of an object that stays on the other side.

Comparing a `Remote` compares identity, and looking for a value in one compares its items: no
candidate is asked whether its own answer is right. Where it is asked all the same, for an object's
truth or for an attribute, the verdict is not the judge's alone (`Peer.leant`).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from trillium_sandbox.peer import Peer


class CandidateError(Exception):
    """The candidate raised something that is not one of Python's own exceptions."""


class Remote:
    """Something that lives on the other side: call it, iterate over it, reach into it."""

    __slots__ = ("_number", "_peer")
    _number: int
    _peer: Peer

    def __init__(self, peer: Peer, number: int) -> None:
        """Stand for the other side's object `number`."""
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: object, **named: object) -> object:
        """Call it over there."""
        return self._peer.ask("call", self, arguments, named)

    def __getattr__(self, name: str) -> object:
        """Fetch an attribute; dunder names are not asked for."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._peer.ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute over there."""
        self._peer.ask("set", self, name, value)

    def __iter__(self) -> Iterator[object]:
        """Iterate over it, one request per item."""
        items = self._peer.ask("iter", self)
        if not isinstance(items, Remote):
            raise CandidateError("an iterator answered out of turn")
        return _RemoteIterator(items._peer, items._number)

    def __next__(self) -> object:
        """Return its next item."""
        found = self._peer.ask("next", self)
        if found == ():
            raise StopIteration
        if type(found) is not tuple or len(found) != 1:
            raise CandidateError("an iterator answered out of turn")
        return found[0]

    def __len__(self) -> int:
        """Return its length."""
        length = self._peer.ask("len", self)
        if type(length) is not int:
            raise TypeError("a length that is not an int")
        return length

    def __bool__(self) -> bool:
        """Return its truth value, as the other side sees it."""
        return self._peer.ask("bool", self) is True

    def __getitem__(self, key: object) -> object:
        """Return one of its items."""
        return self._peer.ask("item", self, key)

    def __setitem__(self, key: object, value: object) -> None:
        """Set one of its items."""
        self._peer.ask("put", self, key, value)

    def __contains__(self, value: object) -> bool:
        """Return whether `value` is among its items; only a test's object may say so itself."""
        if self._peer.names is not None:
            return self._peer.ask("has", self, value) is True
        return any(item is value or item == value for item in self)

    def __str__(self) -> str:
        """Return its text."""
        text = self._peer.ask("str", self)
        return text if type(text) is str else "<remote>"

    def __eq__(self, other: object) -> bool:
        """Compare identity: an answer that is not plain data equals nothing but itself."""
        return isinstance(other, Remote) and other._number == self._number

    def __hash__(self) -> int:
        """Hash by identity."""
        return hash(self._number)


class _RemoteIterator(Remote):
    __slots__ = ()

    def __iter__(self) -> Iterator[object]:
        return self
