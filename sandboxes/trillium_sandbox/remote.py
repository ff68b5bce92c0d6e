"""What one side sees of an object that stays on the other side.

A `Remote` has the special methods that its object's class has, and each asks over there. To call
an object, to iterate over it or to take its items gives data, as any answer of the candidate does;
in all else the object speaks for itself, and the verdict is not the judge's alone (`Peer.leant`).
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType

from trillium_sandbox import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from trillium_sandbox.peer import Peer

    Description = tuple[str, int, str | None]
    """A class: its name, its special methods as bits, and its kin of Python's own (named.py)."""

_ARITHMETIC = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or"
_OTHERS = """
len getitem setitem delitem contains eq ne lt le gt ge hash bool repr str format bytes int float
complex index neg pos abs invert round trunc floor ceil reversed enter exit instancecheck
subclasscheck fspath
"""
_FORWARDED = (
    *(f"__{name}__" for name in _OTHERS.split()),
    *(f"__{before}{name}__" for before in ("", "r", "i") for name in _ARITHMETIC.split()),
)
_SPECIAL = ("__call__", "__iter__", "__next__", "__get__", *_FORWARDED)
_BITS = {name: 1 << number for number, name in enumerate(_SPECIAL)}
FORWARDED = frozenset(_FORWARDED)
"""The special methods that an operation may name."""

_FUNCTION = "builtins function"
_COROUTINE = "builtins coroutine"
_LOCAL = frozenset(
    {*_SPECIAL, "__class__", "__copy__", "__deepcopy__", "__mro_entries__", "__reduce_ex__"}
)
_VIEWS = "dict_items dict_keys dict_values enumerate filter generator map reversed zip"
_CALLED = "builtin_function_or_method function method type"
_PLAIN_KIN = frozenset(f"builtins {name}" for name in (*_VIEWS.split(), *_CALLED.split())) | {
    "abc ABCMeta",
    "functools _lru_cache_wrapper",
    "functools partial",
}


class CandidateError(Exception):
    """The candidate answered what no object can."""


class Remote:
    """Something that lives on the other side: call it, iterate over it, reach into it."""

    __slots__ = ("_number", "_peer")
    _number: int
    _peer: Peer

    def __init__(self, peer: Peer, number: int) -> None:
        """Stand for the other side's object `number`."""
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_number", number)

    def __getattribute__(self, name: str) -> object:
        """Fetch an attribute from over there."""
        if name in _LOCAL:
            return object.__getattribute__(self, name)
        return peer_of(self).ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute over there."""
        peer_of(self).ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute over there."""
        peer_of(self).ask("del", self, name)

    def __bool__(self) -> bool:
        """Return its truth value, as the other side sees it."""
        return peer_of(self).ask("bool", self) is True

    def __repr__(self) -> str:
        """Return what it calls itself."""
        return peer_of(self).ask("do", "__repr__", self)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """Return its text."""
        return peer_of(self).ask("do", "__str__", self)  # type: ignore[no-any-return]

    def __copy__(self) -> object:
        """Copy it over there."""
        return peer_of(self).ask("copy", self, False)

    def __deepcopy__(self, memo: object) -> object:
        """Copy it over there, with all that it holds."""
        return peer_of(self).ask("copy", self, True)

    def __reduce_ex__(self, protocol: object) -> str:
        """Refuse to be taken apart: a copy here would not be what it stands for."""
        peer_of(self).leant = True
        raise TypeError("an object of another process cannot be pickled")

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        """Refuse to be a base class."""
        peer_of(self).leant = True
        raise TypeError("a class of another process cannot be a base class")


class _Coroutine(Remote):
    """A coroutine of the other side, which runs there to its end when it is first awaited."""

    __slots__ = ()

    def send(self, value: object) -> object:
        raise StopIteration(peer_of(self).ask("await", self))

    def throw(self, kind: object, error: object = None, trace: object = None) -> object:
        raise error if isinstance(error, BaseException) else kind  # type: ignore[misc]

    def close(self) -> None:
        pass

    def __await__(self) -> _Coroutine:
        return self

    def __next__(self) -> object:
        return self.send(None)

    def __getattribute__(self, name: str) -> object:
        if name in ("send", "throw", "close", "__await__"):
            return object.__getattribute__(self, name)
        return Remote.__getattribute__(self, name)


peer_of = Remote.__dict__["_peer"].__get__
number_of = Remote.__dict__["_number"].__get__


def describe(kind: type) -> Description:
    """Return what the other side needs to know of a class to stand in for its objects."""
    has = {}
    for base in reversed(kind.__mro__[:-1]):
        for name, value in base.__dict__.items():
            if name in _BITS:
                has[name] = value is not None
    kin = named.kin_of(kind)
    if kin != _FUNCTION:
        has.pop("__get__", None)
    bits = sum(_BITS[name] for name, is_there in has.items() if is_there)
    return kind.__name__, bits, kin


def stand_in(description: Description) -> type[Remote]:
    """Return the class of the Remotes for the objects of a class."""
    name, bits, kin_name = description
    body: dict[str, object] = {"__slots__": (), "__module__": "candidate"}
    for special, bit in _BITS.items():
        if bits & bit:
            body[special] = _METHODS[special]
    if "__eq__" not in body:
        body.update(__eq__=_equals, __hash__=body.get("__hash__", object.__hash__))
    kin = named.kin(kin_name) if type(kin_name) is str else None
    if kin is not None:
        body["__class__"] = property(lambda self: kin)
    return type(name, (_Coroutine if kin_name == _COROUTINE else Remote,), body)


def is_plain(description: Description) -> bool:
    """Return whether the special methods are all that Python asks of such objects.

    Not those that inherit from a class of Python's: its functions look inside them.
    """
    _, bits, kin = description
    if kin is None or kin in _PLAIN_KIN:
        return True
    if type(kin) is not str:
        return False
    found = named.kin(kin)
    if found is not None and issubclass(found, BaseException):
        return True
    return bool(bits & _BITS["__next__"]) and kin.startswith(("builtins ", "itertools "))


def _equals(self: Remote, other: object) -> object:
    """Compare by identity, which a function or class of the library has lost that crossed."""
    peer_of(self).leant |= type(other) in (FunctionType, type)
    return NotImplemented


def _call(self: Remote, /, *arguments: object, **named_ones: object) -> object:
    return peer_of(self).ask("call", self, arguments, named_ones)


def _iter(self: Remote) -> object:
    return peer_of(self).ask("iter", self)


def _next(self: Remote) -> object:
    found = peer_of(self).ask("next", self)
    if found == ():
        raise StopIteration
    if type(found) is not tuple or len(found) != 1:
        raise CandidateError("an iterator answered out of turn")
    return found[0]


def _get(self: Remote, instance: object, owner: object = None) -> object:
    return self if instance is None else MethodType(self, instance)  # type: ignore[arg-type]


def _exit(self: Remote, kind: object, error: object, trace: object) -> object:
    return peer_of(self).ask("do", "__exit__", self, kind, error, None)


def _forward(name: str) -> Callable[..., object]:
    def ask(self: Remote, *operands: object) -> object:
        return peer_of(self).ask("do", name, self, *operands)

    return ask


_METHODS: dict[str, Callable[..., object]] = {
    **{name: _forward(name) for name in _FORWARDED},
    "__call__": _call,
    "__iter__": _iter,
    "__next__": _next,
    "__get__": _get,
    "__bool__": Remote.__bool__,
    "__exit__": _exit,
}

_COMMON = tuple(describe(kind) for kind in (FunctionType, GeneratorType, BuiltinFunctionType, type))
STAND_INS = {description: stand_in(description) for description in _COMMON}
"""What is often needed, made once for all processes."""
