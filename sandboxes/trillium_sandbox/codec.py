"""Plain values to bytes, by exact type: what crosses between judge and candidate.

Python's own classes cross by name (named.py), exceptions as their class and what it is called with;
a NaN keeps its identity, as a container does, and an exception that is lent. The way back is
decode.py. Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

import struct
import sys
from collections import Counter, OrderedDict, defaultdict, deque

from trillium_sandbox.named import listed_name
from trillium_sandbox.raised import home_of, state_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Export = Callable[[object], tuple[int, int, object]]

MAX_DEPTH = 150
MAX_BYTES = 64 << 20

U32 = struct.Struct("<I")
I64 = struct.Struct("<q")
F64 = struct.Struct("<d")
_SEQUENCES: dict[type, bytes] = {
    list: b"l",
    tuple: b"t",
    set: b"e",
    frozenset: b"z",
    deque: b"k",
    dict: b"d",
    OrderedDict: b"o",
    defaultdict: b"g",
    Counter: b"n",
}
MUTABLE = frozenset({list, set, deque, dict, OrderedDict, defaultdict, Counter})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_HOMES = {
    "Decimal": "decimal",
    "Fraction": "fractions",
    "timedelta": "datetime",
    "datetime": "datetime",
    "date": "datetime",
    "time": "datetime",
}


_PARTS: dict[str, tuple[str, Callable[..., tuple[object, ...]]]] = {
    "slice": ("builtins", lambda value: (value.start, value.stop, value.step)),
    "timezone": ("datetime", lambda value: value.__getinitargs__()),
    "UUID": ("uuid", lambda value: (value.int,)),
    "PurePosixPath": ("pathlib", lambda value: (str(value),)),
    "PosixPath": ("pathlib", lambda value: (str(value),)),
    "Pattern": ("re", lambda value: (value.pattern, value.flags)),
}
"""Classes, with their modules, whose objects never change and cross as what they are made of."""


class CodecError(ValueError):
    """A value cannot cross, or the bytes are not a value."""


def encode(
    value: object,
    export: Export | None = None,
    known: list[object] | None = None,
    *,
    lends_errors: bool = False,
) -> bytes:
    """Return the bytes of `value`.

    Mutable containers met twice become references, so aliases and cycles survive; so do those in
    `known`, which the other side must have in the same order, and to which the new ones are added.
    What is not of a listed type goes to `export`, which returns (owner, number, description) for a
    handle or raises CodecError. With `lends_errors`, so does every exception beside what it is made
    of: handed back, it is the one that was sent.
    """
    encoder = _Encoder(export, [] if known is None else known, lends_errors)
    encoder.write(value, 0)
    return bytes(encoder.out)


class _Encoder:
    def __init__(self, export: Export | None, known: list[object], lends_errors: bool) -> None:
        self.out = bytearray()
        self.export = export
        self.known = known
        self.lends_errors = lends_errors
        self.seen = {id(container): number for number, container in enumerate(known)}

    def write(self, value: object, depth: int) -> None:
        kind = type(value)
        out = self.out
        if kind is int:
            self._integer(value)  # type: ignore[arg-type]
        elif kind is str:
            text = value.encode("utf-8", "surrogatepass")  # type: ignore[attr-defined]
            out += b"s" + U32.pack(len(text))
            out += text
        elif value is None:
            out += b"N"
        elif value is True:
            out += b"T"
        elif value is False:
            out += b"F"
        elif kind is float:
            if value == value or not self._refer(value):
                out += b"f" + F64.pack(value)
        elif kind in _SEQUENCES:
            self._container(value, kind, depth)
        elif kind is bytes:
            out += b"b" + U32.pack(len(value))  # type: ignore[arg-type]
            out += value  # type: ignore[arg-type]
        elif kind is bytearray:
            if not self._refer(value):
                out += b"a" + U32.pack(len(value))  # type: ignore[arg-type]
                out += value  # type: ignore[arg-type]
        elif kind is complex:
            out += b"c" + F64.pack(value.real) + F64.pack(value.imag)  # type: ignore[attr-defined]
        elif kind is range:
            self._parts(b"r", value.start, value.stop, value.step)  # type: ignore[attr-defined]
        elif value is Ellipsis:
            out += b"E"
        elif not self._numeric_or_dated(value, kind):
            self._other(value, kind, depth)

    def _integer(self, value: int) -> None:
        if -(1 << 63) <= value < 1 << 63:
            self.out += b"i" + I64.pack(value)
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.out += b"I" + U32.pack(len(data)) + data

    def _container(self, value: object, kind: type, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH}")
        if kind in MUTABLE and self._refer(value):
            return
        self.out += _SEQUENCES[kind] + U32.pack(len(value))  # type: ignore[arg-type]
        if kind is deque:
            bound = -1 if value.maxlen is None else value.maxlen  # type: ignore[attr-defined]
            self.out += U32.pack(min(bound + 1, 2**32 - 1))
        write = self.write
        if kind is defaultdict:
            write(value.default_factory, depth + 1)  # type: ignore[attr-defined]
        if kind in _MAPPINGS:
            for key, item in value.items():  # type: ignore[attr-defined]
                write(key, depth + 1)
                write(item, depth + 1)
        else:
            for item in value:  # type: ignore[attr-defined]
                write(item, depth + 1)

    def _refer(self, container: object) -> bool:
        """Write a reference where a container has crossed before; give it a number otherwise."""
        number = self.seen.get(id(container))
        if number is None:
            self.seen[id(container)] = len(self.known)
            self.known.append(container)
            return False
        self.out += b"@" + U32.pack(number)
        return True

    def _numeric_or_dated(self, value: object, kind: type) -> bool:
        name = kind.__name__
        module = sys.modules.get(_HOMES.get(name, ""))
        if module is None or getattr(module, name, None) is not kind:
            return False
        if name == "Decimal":
            self._text(b"D", str(value))
        elif name == "Fraction":
            self._parts(b"Q", value.numerator, value.denominator)  # type: ignore[attr-defined]
        elif name == "timedelta":
            self._parts(b"y", value.days, value.seconds, value.microseconds)  # type: ignore[attr-defined]
        else:
            kept = "" if name == "date" or not value.fold else " fold"  # type: ignore[attr-defined]
            self._text(b"w", name + " " + value.isoformat() + kept)  # type: ignore[attr-defined]
        return True

    def _parts(self, tag: bytes, *parts: int) -> None:
        self.out += tag
        for part in parts:
            self._integer(part)

    def _text(self, tag: bytes, text: str) -> None:
        data = text.encode()
        self.out += tag + U32.pack(len(data)) + data

    def _other(self, value: object, kind: type, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH}")
        name = listed_name(value)
        home, parts = _PARTS.get(kind.__name__, ("", tuple))
        if name is not None:
            self._text(b"j", name)
        elif home and getattr(sys.modules.get(home), kind.__name__, slice) is kind:
            self._text(b"B", kind.__name__)
            self.write(parts(value), depth + 1)
        elif issubclass(kind, BaseException):
            self._exception(value, kind, depth)  # type: ignore[arg-type]
        else:
            self._handle(value, depth)

    def _exception(self, error: BaseException, kind: type, depth: int) -> None:
        """Write class, arguments, cause, attributes, and a handle where the class is one."""
        home = home_of(error)
        if home is not None:  # it came from the other side
            self._handle(home, depth)
            return
        is_listed = listed_name(kind) is not None
        reduced = error.__reduce__() if is_listed else (kind, error.args)
        self.out += b"X"
        for part in (kind, reduced[1], error.__cause__, state_of(error, with_own=is_listed)):
            self.write(part, depth + 1)
        if is_listed and not self.lends_errors:
            self.out += b"N"
        else:
            self._handle(error, depth)

    def _handle(self, value: object, depth: int) -> None:
        if self.export is None:
            raise CodecError(f"a value of type {type(value).__name__} cannot cross")
        owner, number, description = self.export(value)
        self.out += b"h" + bytes([owner]) + U32.pack(number)
        self.write(description, depth + 1)
