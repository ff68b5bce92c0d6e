"""What crosses by name between judge and candidate, each side taking its own.

A candidate may name the classes listed here, whose instances are data, and no more: nothing that
runs or makes code, and no class that makes classes. A test may hand over whatever has a name in the
standard library, so that the candidate's process, not the judge's, runs it. Imported in the zygote:
standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

import builtins
import sys
import types

_CLASSES = (
    "builtins bool bytearray bytes complex dict enumerate filter float frozenset int list map "
    "object range reversed set slice str tuple zip",
    "collections Counter OrderedDict defaultdict deque",
    "datetime date datetime time timedelta timezone",
    "decimal Decimal",
    "fractions Fraction",
    "uuid UUID",
)
_ERRORS = (
    "_csv Error",
    "_queue Empty",
    "binascii Error",
    "dataclasses FrozenInstanceError",
    "decimal Clamped DecimalException DivisionByZero FloatOperation Inexact InvalidOperation "
    "Overflow Rounded Subnormal Underflow",
    "graphlib CycleError",
    "ipaddress AddressValueError NetmaskValueError",
    "json.decoder JSONDecodeError",
    "queue Empty Full",
    "re PatternError error",
    "statistics StatisticsError",
    "struct error",
    "threading BrokenBarrierError",
    "tomllib TOMLDecodeError",
    "zlib error",
)
_LISTED = frozenset(
    f"{module} {name}"
    for module, *names in (line.split() for line in (*_CLASSES, *_ERRORS))
    for name in names
) | frozenset(
    f"builtins {name}"
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
)
_SINGLE = {"builtins NotImplemented": NotImplemented, "builtins NoneType": type(None)}
_EMPTY: dict[object, object] = {}
_VIEWS = type(_EMPTY.keys()), type(_EMPTY.values()), type(_EMPTY.items())
_KINDS = {
    f"{kind.__module__} {kind.__qualname__}": kind
    for kind in (*vars(types).values(), *_VIEWS)
    if isinstance(kind, type)
}
"""Classes of Python's that have no name in their module, such as those of functions."""


def listed_name(value: object) -> str | None:
    """Return the name by which either side may mention `value`."""
    if value is NotImplemented:
        return "builtins NotImplemented"
    if not issubclass(type(value), type):  # what a Remote says of itself does not count
        return None
    name = name_of_class(value)  # type: ignore[arg-type]
    return name if name in _SINGLE or (name in _LISTED and _found(name) is value) else None


def listed(name: str) -> object:
    """Return what either side may mention by `name`; raise KeyError for anything else."""
    if name in _SINGLE:
        return _SINGLE[name]
    if name not in _LISTED:
        raise KeyError(name)
    __import__(name.partition(" ")[0])
    return _found(name)


def library_name(value: object) -> str | None:
    """Return the name that `value`, a module, class or function, has in the standard library."""
    if type(value) is types.ModuleType:
        name = value.__name__
        return name if sys.modules.get(name) is value and _is_library(name) else None
    owner = getattr(value, "__objclass__", value)  # str, of str.upper
    module, path = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if type(module) is not str or type(path) is not str or not _is_library(module):
        return None
    name = f"{module} {path}"
    return name if _found(name) is value else None


def from_library(name: str) -> object:
    """Return what has `name` in the standard library, importing it; raise KeyError otherwise."""
    module, _, path = name.partition(" ")
    if not _is_library(module):
        raise KeyError(name)
    __import__(module)
    return _found(name) if path else sys.modules[module]


def kin_of(kind: type) -> str | None:
    """Return the name of the first of Python's own classes that `kind` is or inherits from."""
    for base in kind.__mro__[:-1]:
        if type(base.__module__) is str and _is_library(base.__module__):
            return name_of_class(base)
    return None


def kin(name: str) -> type | None:
    """Return the class that `kin_of` named, where it is loaded here."""
    found = _KINDS.get(name) or (_found(name) if _is_library(name.partition(" ")[0]) else None)
    return found if isinstance(found, type) else None


def name_of_class(kind: type) -> str:
    """Return `module name`."""
    return f"{kind.__module__} {kind.__qualname__}"


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _found(name: str) -> object:
    module, _, path = name.partition(" ")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
