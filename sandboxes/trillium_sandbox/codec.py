"""Plain values to bytes and back, by exact type: what crosses between judge and candidate.

The candidate's process can send any bytes. Decoding builds values of the listed types only, never
a subclass, never code, so comparing what came out is comparing data. Nothing is ever unpickled.
Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

import struct
import sys
from collections import Counter, OrderedDict, defaultdict, deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Export = Callable[[object], tuple[int, int]]
    Resolve = Callable[[int, int], object]

MAX_DEPTH = 150
MAX_BYTES = 64 << 20

_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")
_F64 = struct.Struct("<d")
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
_MUTABLE = frozenset({list, set, deque, dict, OrderedDict, defaultdict, Counter})
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_HOMES = {
    "Decimal": "decimal",
    "Fraction": "fractions",
    "timedelta": "datetime",
    "datetime": "datetime",
    "date": "datetime",
    "time": "datetime",
}


class CodecError(ValueError):
    """A value cannot cross, or the bytes are not a value."""


def encode(value: object, export: Export | None = None, known: list[object] | None = None) -> bytes:
    """Return the bytes of `value`.

    Mutable containers met twice become references, so aliases and cycles survive; so do those in
    `known`, which the other side must have in the same order, and to which the new ones are added.
    What is not of a listed type goes to `export`, which returns (owner, number) for a handle or
    raises CodecError.
    """
    out: list[bytes] = []
    _Encoder(out, export, [] if known is None else known).write(value, 0)
    return b"".join(out)


def decode(
    data: bytes, resolve: Resolve | None = None, known: list[object] | None = None
) -> object:
    """Return the value of `data`, all of it; handles go to `resolve`, `known` is as in `encode`.

    Raises CodecError on anything malformed, too deep or too large.
    """
    if len(data) > MAX_BYTES:
        raise CodecError(f"a value of {len(data)} bytes (at most {MAX_BYTES})")
    reader = _Decoder(data, resolve, [] if known is None else known)
    try:
        value = reader.read(0)
    except (struct.error, IndexError, OverflowError) as error:
        raise CodecError("truncated value") from error
    except RecursionError as error:
        raise CodecError("a value nested deeper than the stack here allows") from error
    except (UnicodeDecodeError, TypeError, ValueError, ArithmeticError) as error:
        raise CodecError(f"malformed value: {error}") from error
    if reader.at != len(data):
        raise CodecError(f"{len(data) - reader.at} bytes after the value")
    return value


class _Encoder:
    def __init__(self, out: list[bytes], export: Export | None, known: list[object]) -> None:
        self.out = out
        self.export = export
        self.known = known
        self.seen = {id(container): number for number, container in enumerate(known)}

    def write(self, value: object, depth: int) -> None:
        kind = type(value)
        out = self.out
        if kind is int:
            self._integer(value)  # type: ignore[arg-type]
        elif kind is str:
            text = value.encode("utf-8", "surrogatepass")  # type: ignore[attr-defined]
            out.append(b"s" + _U32.pack(len(text)) + text)
        elif value is None:
            out.append(b"N")
        elif value is True:
            out.append(b"T")
        elif value is False:
            out.append(b"F")
        elif kind is float:
            out.append(b"f" + _F64.pack(value))
        elif kind in _SEQUENCES:
            self._container(value, kind, depth)
        elif kind is bytes:
            out.append(b"b" + _U32.pack(len(value)) + value)  # type: ignore[arg-type, operator]
        elif kind is bytearray:
            if not self._refer(value):
                out.append(b"a" + _U32.pack(len(value)) + value)  # type: ignore[arg-type, operator]
        elif kind is complex:
            out.append(b"c" + _F64.pack(value.real) + _F64.pack(value.imag))  # type: ignore[attr-defined]
        elif kind is range:
            self._parts(b"r", value.start, value.stop, value.step)  # type: ignore[attr-defined]
        elif value is Ellipsis:
            out.append(b"E")
        elif not self._numeric_or_dated(value, kind):
            self._handle(value)

    def _integer(self, value: int) -> None:
        if -(1 << 63) <= value < 1 << 63:
            self.out.append(b"i" + _I64.pack(value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.out.append(b"I" + _U32.pack(len(data)) + data)

    def _container(self, value: object, kind: type, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH}")
        if kind in _MUTABLE and self._refer(value):
            return
        self.out.append(_SEQUENCES[kind] + _U32.pack(len(value)))  # type: ignore[arg-type]
        if kind is deque:
            bound = -1 if value.maxlen is None else value.maxlen  # type: ignore[attr-defined]
            self.out.append(_U32.pack(min(bound + 1, 2**32 - 1)))
        write = self.write
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
        self.out.append(b"@" + _U32.pack(number))
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
            self._text(b"w", name + " " + value.isoformat())  # type: ignore[attr-defined]
        return True

    def _parts(self, tag: bytes, *parts: int) -> None:
        self.out.append(tag)
        for part in parts:
            self._integer(part)

    def _text(self, tag: bytes, text: str) -> None:
        data = text.encode()
        self.out.append(tag + _U32.pack(len(data)) + data)

    def _handle(self, value: object) -> None:
        if self.export is None:
            raise CodecError(f"a value of type {type(value).__name__} cannot cross")
        owner, number = self.export(value)
        self.out.append(b"h" + bytes([owner]) + _U32.pack(number))


class _Decoder:
    def __init__(self, data: bytes, resolve: Resolve | None, known: list[object]) -> None:
        self.data = data
        self.resolve = resolve
        self.at = 0
        self.seen = known

    def read(self, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH}")
        tag = self.data[self.at]
        self.at += 1
        reader = _READERS.get(tag)
        if reader is None:
            raise CodecError(f"unknown tag {tag}")
        return reader(self, depth)

    def _take(self, size: int) -> bytes:
        start = self.at
        self.at = start + size
        if self.at > len(self.data):
            raise CodecError("truncated value")
        return self.data[start : self.at]

    def _count(self) -> int:
        (count,) = _U32.unpack(self._take(4))
        return int(count)

    def _blob(self) -> bytes:
        return self._take(self._count())

    def _int(self) -> int:
        value = self.read(0)
        if type(value) is not int:
            raise CodecError("a part that must be an int is not")
        return value

    def _n_items(self, least: int) -> int:
        count = self._count()
        if count * least > len(self.data) - self.at:
            raise CodecError("truncated value")
        return count

    def _bytearray(self) -> bytearray:
        content = bytearray(self._blob())
        self.seen.append(content)
        return content

    def _sequence(self, depth: int) -> list[object]:
        read = self.read
        return [read(depth + 1) for _ in range(self._n_items(1))]

    def _fill_list(self, depth: int) -> list[object]:
        items: list[object] = []
        self.seen.append(items)
        read = self.read
        for _ in range(self._n_items(1)):
            items.append(read(depth + 1))
        return items

    def _fill_deque(self, depth: int) -> deque[object]:
        n_items, bound = self._n_items(1), self._count()
        items: deque[object] = deque(maxlen=bound - 1 if bound else None)
        self.seen.append(items)
        for _ in range(n_items):
            items.append(self.read(depth + 1))
        return items

    def _fill_set(self, depth: int) -> set[object]:
        items: set[object] = set()
        self.seen.append(items)
        for _ in range(self._n_items(1)):
            items.add(self.read(depth + 1))
        return items

    def _fill_mapping(self, mapping: dict[object, object], depth: int) -> dict[object, object]:
        self.seen.append(mapping)
        read = self.read
        for _ in range(self._n_items(2)):
            key = read(depth + 1)
            mapping[key] = read(depth + 1)
        return mapping

    def _reference(self) -> object:
        number = self._count()
        if number >= len(self.seen):
            raise CodecError("a reference to nothing")
        return self.seen[number]

    def _dated(self) -> object:
        import datetime

        name, _, text = self._blob().decode().partition(" ")
        if name == "datetime":
            return datetime.datetime.fromisoformat(text)
        if name == "date":
            return datetime.date.fromisoformat(text)
        return datetime.time.fromisoformat(text)

    def _timedelta(self) -> object:
        import datetime

        return datetime.timedelta(self._int(), self._int(), self._int())

    def _decimal(self) -> object:
        import decimal

        return decimal.Decimal(self._blob().decode())

    def _fraction(self) -> object:
        import fractions

        return fractions.Fraction(self._int(), self._int())

    def _handle(self) -> object:
        owner = self._take(1)[0]
        number = self._count()
        if self.resolve is None:
            raise CodecError("a handle where only plain values may be")
        return self.resolve(owner, number)


_READERS: dict[int, Callable[[_Decoder, int], object]] = {
    ord("N"): lambda d, _: None,
    ord("T"): lambda d, _: True,
    ord("F"): lambda d, _: False,
    ord("E"): lambda d, _: Ellipsis,
    ord("i"): lambda d, _: _I64.unpack(d._take(8))[0],
    ord("I"): lambda d, _: int.from_bytes(d._blob(), "little", signed=True),
    ord("f"): lambda d, _: _F64.unpack(d._take(8))[0],
    ord("c"): lambda d, _: complex(_F64.unpack(d._take(8))[0], _F64.unpack(d._take(8))[0]),
    ord("s"): lambda d, _: d._blob().decode("utf-8", "surrogatepass"),
    ord("b"): lambda d, _: d._blob(),
    ord("a"): lambda d, _: d._bytearray(),
    ord("r"): lambda d, _: range(d._int(), d._int(), d._int()),
    ord("l"): _Decoder._fill_list,
    ord("k"): _Decoder._fill_deque,
    ord("e"): _Decoder._fill_set,
    ord("t"): lambda d, depth: tuple(d._sequence(depth)),
    ord("z"): lambda d, depth: frozenset(d._sequence(depth)),
    ord("d"): lambda d, depth: d._fill_mapping({}, depth),
    ord("o"): lambda d, depth: d._fill_mapping(OrderedDict(), depth),
    ord("g"): lambda d, depth: d._fill_mapping(defaultdict(), depth),
    ord("n"): lambda d, depth: d._fill_mapping(Counter(), depth),  # type: ignore[arg-type]
    ord("D"): lambda d, _: d._decimal(),
    ord("Q"): lambda d, _: d._fraction(),
    ord("w"): lambda d, _: d._dated(),
    ord("y"): lambda d, _: d._timedelta(),
    ord("@"): lambda d, _: d._reference(),
    ord("h"): lambda d, _: d._handle(),
}
