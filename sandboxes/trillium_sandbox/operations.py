"""What either side may ask of the other (peer.py), and what the judge refuses a candidate.

The candidate's side does whatever it is asked. The judge's lends a candidate what a test handed
over and no more: no private attribute, and nothing that makes classes, which could judge.
"""

from __future__ import annotations

from trillium_sandbox.remote import FORWARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from trillium_sandbox.peer import Peer

ITEMS = frozenset({"__len__", "__getitem__", "__setitem__", "__delitem__"})
LEANING = frozenset({"bool", "get", "set", "del", "copy", "await"})
"""Operations in which an object speaks for itself; so it does in special methods but `ITEMS`."""

OPEN = frozenset(
    {"_io StringIO", "_io BytesIO", "random Random", "re Match", "types SimpleNamespace"}
)
"""Classes of Python's whose public attributes a candidate may use."""

_METADATA = frozenset({"__doc__", "__module__", "__name__", "__qualname__"})
_BY_STATEMENT = 1 << 9
"""The flag of classes that a class statement made."""


def target_of(message: tuple[object, ...]) -> object:
    """Return what an operation works on."""
    place = 2 if message[0] == "do" else 1
    return message[place] if len(message) > place else None


def _call(peer: Peer, target: object, arguments: object, named: object) -> object:
    function = _target(peer, target)
    if type(arguments) is not tuple or type(named) is not dict or not callable(function):
        raise TypeError(f"{type(function).__name__!r} object is not callable")
    if peer.names is None and _makes_classes(peer, function, len(arguments) + len(named)):
        peer.leant = True
        raise TypeError("the judge makes no classes for a candidate")
    return function(*arguments, **named)


def _makes_classes(peer: Peer, function: object, n_arguments: int) -> bool:
    """Return whether a call might: of a metaclass, or of an Enum with more than a value."""
    if not peer.handles.holds(function):
        return True
    # Of a partial, type[int], int.__class__.mro and type.__call__.
    for inside in ("func", "__origin__", "__self__", "__objclass__"):
        function = getattr(function, inside, function)
    if not isinstance(function, type):
        return False
    has_own_call = type(function).__call__ is not type.__call__
    return issubclass(function, type) or (has_own_call and n_arguments > 1)


def _get(peer: Peer, target: object, name: object) -> object:
    _check_attribute(peer, target, name)
    return getattr(target, name)  # type: ignore[call-overload]


def _set(peer: Peer, target: object, name: object, value: object) -> None:
    _check_attribute(peer, target, name)
    if callable(value):
        peer.leant = True  # a method of a test's object would be the other side's
    setattr(target, name, value)  # type: ignore[arg-type]


def _delete(peer: Peer, target: object, name: object) -> None:
    _check_attribute(peer, target, name)
    delattr(target, name)  # type: ignore[arg-type]


def _name(peer: Peer, name: object) -> object:
    if peer.names is None:
        raise NameError("the test's names are out of reach")
    return _target(peer, name)


def _next(peer: Peer, target: object) -> object:
    try:
        return (next(target),)  # type: ignore[call-overload]
    except StopIteration:
        return ()


def _do(peer: Peer, name: object, target: object, *operands: object) -> object:
    if name not in FORWARDED:
        raise TypeError(f"no such operation: {name!r}")
    return getattr(type(target), name)(target, *operands)


def _copy(peer: Peer, target: object, is_deep: object) -> object:
    import copy

    return copy.deepcopy(target) if is_deep is True else copy.copy(target)


def _await(peer: Peer, target: object) -> object:
    import asyncio

    return asyncio.run(target)  # type: ignore[arg-type]


OPERATIONS: dict[str, Callable[..., object]] = {
    "call": _call,
    "get": _get,
    "set": _set,
    "del": _delete,
    "name": _name,
    "next": _next,
    "iter": lambda peer, target: iter(target),
    "bool": lambda peer, target: bool(target),
    "do": _do,
    "copy": _copy,
    "await": _await,
}


def _target(peer: Peer, value: object) -> object:
    """Return what an operation works on: a handle of ours, or one of our names."""
    if isinstance(value, str) and peer.names is not None:
        if value not in peer.names:
            raise NameError(f"name {value!r} is not defined")
        return peer.names[value]
    return value


def _check_attribute(peer: Peer, value: object, name: object) -> None:
    if peer.names is not None:
        return
    kind = type(value)
    is_open = (kind.__module__ == "tests" and kind.__flags__ & _BY_STATEMENT) or (
        f"{kind.__module__} {kind.__qualname__}" in OPEN
        or (kind.__qualname__ == "generator" and name in ("send", "throw", "close"))
    )
    if type(name) is str and (name in _METADATA or (is_open and not name.startswith("_"))):
        return
    # Where there is nothing, nothing was withheld.
    peer.leant |= bool(getattr(value, name, None))  # type: ignore[call-overload]
    raise AttributeError(f"{name!r} of the test's objects is out of reach")
