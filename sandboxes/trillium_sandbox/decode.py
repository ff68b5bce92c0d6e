"""Bytes back to plain values: what codec.py wrote, or anything that a hostile process sends.

Builds values of the listed types only, never a subclass, never code, so comparing what came out is
comparing data; handles are for the caller to resolve. Nothing is ever unpickled.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict, defaultdict, deque

from trillium_sandbox import named, raised
from trillium_sandbox.codec import F64, I64, MAX_BYTES, MAX_DEPTH, U32, CodecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Resolve = Callable[[int, int, object], object]


_PLAIN = frozenset(b"NTFEiIfcsbarltezd@h")
"""Tags of values that need nothing but Python's own types, and of handles."""


def decode(
    data: bytes,
    resolve: Resolve | None = None,
    known: list[object] | None = None,
    note: Callable[[], None] | None = None,
) -> object:
    """Return the value of `data`, all of it; handles go to `resolve`, `known` is as in `encode`.

    `note` is called where a part of it is neither of Python's own plain types nor a handle. Raises
    CodecError on anything malformed, too deep or too large.
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
    finally:
        if note is not None and not reader.is_plain:
            note()
    if reader.at != len(data):
        raise CodecError(f"{len(data) - reader.at} bytes after the value")
    return value


class _Decoder:
    def __init__(self, data: bytes, resolve: Resolve | None, known: list[object]) -> None:
        self.data = data
        self.resolve = resolve
        self.at = 0
        self.seen = known
        self.is_plain = True

    def read(self, depth: int) -> object:
        if depth > MAX_DEPTH:
            raise CodecError(f"a value nested deeper than {MAX_DEPTH}")
        tag = self.data[self.at]
        self.at += 1
        reader = _READERS.get(tag)
        if reader is None:
            raise CodecError(f"unknown tag {tag}")
        if tag not in _PLAIN:
            self.is_plain = False
        return reader(self, depth)

    def _take(self, size: int) -> bytes:
        start = self.at
        self.at = start + size
        if self.at > len(self.data):
            raise CodecError("truncated value")
        return self.data[start : self.at]

    def _count(self) -> int:
        (count,) = U32.unpack(self._take(4))
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

    def _fill_defaultdict(self, depth: int) -> dict[object, object]:
        mapping: defaultdict[object, object] = defaultdict()
        self.seen.append(mapping)
        n_items = self._n_items(2)
        mapping.default_factory = self.read(depth + 1)  # type: ignore[assignment]
        return self._fill_items(mapping, n_items, depth)

    def _fill_mapping(self, mapping: dict[object, object], depth: int) -> dict[object, object]:
        self.seen.append(mapping)
        return self._fill_items(mapping, self._n_items(2), depth)

    def _fill_items(
        self, mapping: dict[object, object], n_items: int, depth: int
    ) -> dict[object, object]:
        read = self.read
        for _ in range(n_items):
            key = read(depth + 1)
            mapping[key] = read(depth + 1)
        return mapping

    def _reference(self) -> object:
        number = self._count()
        if number >= len(self.seen):
            raise CodecError("a reference to nothing")
        return self.seen[number]

    def _float(self) -> float:
        (value,) = F64.unpack(self._take(8))
        if value != value:
            self.seen.append(value)
        return float(value)

    def _dated(self) -> object:
        import datetime

        name, text, *kept = self._blob().decode().split(" ")
        if name == "datetime":
            return datetime.datetime.fromisoformat(text).replace(fold=len(kept))
        if name == "date":
            return datetime.date.fromisoformat(text)
        return datetime.time.fromisoformat(text).replace(fold=len(kept))

    def _timedelta(self) -> object:
        import datetime

        return datetime.timedelta(self._int(), self._int(), self._int())

    def _decimal(self) -> object:
        import decimal

        return decimal.Decimal(self._blob().decode())

    def _fraction(self) -> object:
        import fractions

        return fractions.Fraction(self._int(), self._int())

    def _named(self) -> object:
        name = self._blob().decode()
        try:
            return named.listed(name)
        except (KeyError, ImportError) as error:
            raise CodecError(f"{name!r} cannot cross by name") from error

    def _built(self, depth: int) -> object:
        name, parts = self._blob().decode(), self.read(depth + 1)
        build = _BUILDERS.get(name)
        if build is None or type(parts) is not tuple:
            raise CodecError(f"{name!r} is not built from parts")
        try:
            return build(parts)
        except MemoryError:
            raise
        except Exception as error:
            raise CodecError(f"malformed value: {error}") from error

    def _exception(self, depth: int) -> object:
        parts = [self.read(depth + 1) for _ in range(5)]
        try:
            return raised.rebuild(*parts)  # type: ignore[arg-type]
        except MemoryError:
            raise
        except Exception as error:
            raise CodecError(f"malformed exception: {error}") from error

    def _handle(self, depth: int) -> object:
        owner = self._take(1)[0]
        number = self._count()
        description = self.read(depth + 1)
        if self.resolve is None:
            raise CodecError("a handle where only plain values may be")
        return self.resolve(owner, number, description)


def _uuid(parts: tuple[object, ...]) -> object:
    import uuid

    (number,) = parts
    return uuid.UUID(int=number)  # type: ignore[arg-type]


def _pattern(parts: tuple[object, ...]) -> object:
    import re

    text, flags = parts
    # The library keeps what it compiles under these: an object of the other side's would stay.
    if type(text) not in (str, bytes) or type(flags) is not int:
        raise TypeError("a pattern of parts that are not plain")
    return re.compile(text, flags)  # type: ignore[call-overload]


def _maker(module: str, name: str) -> Callable[[tuple[object, ...]], object]:
    return lambda parts: named.from_library(f"{module} {name}")(*parts)  # type: ignore[operator]


_BUILDERS: dict[str, Callable[[tuple[object, ...]], object]] = {
    "slice": lambda parts: slice(*parts),
    "timezone": _maker("datetime", "timezone"),
    "UUID": _uuid,
    "PurePosixPath": _maker("pathlib", "PurePosixPath"),
    "PosixPath": _maker("pathlib", "PosixPath"),
    "Pattern": _pattern,
}


_READERS: dict[int, Callable[[_Decoder, int], object]] = {
    ord("N"): lambda d, _: None,
    ord("T"): lambda d, _: True,
    ord("F"): lambda d, _: False,
    ord("E"): lambda d, _: Ellipsis,
    ord("i"): lambda d, _: I64.unpack(d._take(8))[0],
    ord("I"): lambda d, _: int.from_bytes(d._blob(), "little", signed=True),
    ord("f"): lambda d, _: d._float(),
    ord("c"): lambda d, _: complex(F64.unpack(d._take(8))[0], F64.unpack(d._take(8))[0]),
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
    ord("g"): _Decoder._fill_defaultdict,
    ord("n"): lambda d, depth: d._fill_mapping(Counter(), depth),  # type: ignore[arg-type]
    ord("D"): lambda d, _: d._decimal(),
    ord("Q"): lambda d, _: d._fraction(),
    ord("w"): lambda d, _: d._dated(),
    ord("y"): lambda d, _: d._timedelta(),
    ord("@"): lambda d, _: d._reference(),
    ord("h"): _Decoder._handle,
    ord("j"): lambda d, _: d._named(),
    ord("B"): _Decoder._built,
    ord("X"): _Decoder._exception,
}
