"""Exceptions that were raised on the other side, as exceptions of this one.

Imported in the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

from trillium_sandbox.named import kin_of, name_of_class

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import MemberDescriptorType

_BY_STATEMENT = 1 << 9
_HOME = "_the_other_sides"
_NAMED: tuple[tuple[type[BaseException], tuple[str, ...]], ...] = (
    (ImportError, ("name", "path", "name_from")),
    (AttributeError, ("name",)),
    (NameError, ("name",)),
)
"""What these exceptions were told of names, which is in neither their arguments nor `__dict__`."""


def describe(kind: type[BaseException]) -> tuple[object, ...]:
    """Return what the other side needs to know of a class of exceptions."""
    bases = tuple(base for base in kind.__bases__ if issubclass(base, BaseException))
    own = any("__str__" in base.__dict__ for base in kind.__mro__ if base.__flags__ & _BY_STATEMENT)
    return kind.__name__, own, kin_of(kind) == name_of_class(kind), bases


def stand_in(description: tuple[object, ...]) -> type[BaseException]:
    """Return a class for the exceptions of a class that `describe` described."""
    name, own_text, _, bases = description
    if type(bases) is not tuple or not bases or not all(map(_is_exception_class, bases)):
        raise TypeError("an exception class with a base that is none")
    body: dict[str, object] = {"__module__": "candidate", "__getattr__": _ask}
    if own_text:
        body["__str__"] = _text
    return type(name, bases, body)  # type: ignore[call-overload, no-any-return]


def home_of(error: BaseException) -> object:
    """Return the handle to what an exception is on the other side, None for one of this side."""
    return error.__dict__.get(_HOME)


def state_of(error: BaseException, *, with_own: bool) -> dict[str, object] | None:
    """Return what an exception holds beside its arguments; attributes of its own `with_own`."""
    state: dict[str, object] = dict(error.__dict__) if with_own else {}
    for name, slot in _slots(error):
        value = slot.__get__(error)
        if type(value) is str:
            state[name] = value
    if error.__suppress_context__ and error.__cause__ is None:
        state["__suppress_context__"] = True
    return state or None


def rebuild(
    kind: type[BaseException], arguments: object, cause: object, attributes: object, remote: object
) -> BaseException:
    """Return an exception like the one that was raised, from what crossed of it."""
    if not _is_exception_class(kind) or type(arguments) is not tuple:
        raise TypeError("an exception of a class that is none")
    try:
        error = kind(*arguments)
    except TypeError:  # its class wants to be called otherwise
        error = kind.__new__(kind)
        error.args = arguments
    if isinstance(cause, BaseException):
        error.__cause__ = cause
    if type(attributes) is dict:
        for name, slot in _slots(error):
            slot.__set__(error, attributes.pop(name, None))
        error.__suppress_context__ |= attributes.get("__suppress_context__") is True
        error.__dict__.update({n: v for n, v in attributes.items() if _is_harmless(n)})
    if remote is not None:
        error.__dict__[_HOME] = remote
    return error


def _slots(error: BaseException) -> list[tuple[str, MemberDescriptorType]]:
    return [
        (name, kind.__dict__[name])
        for kind, names in _NAMED
        if isinstance(error, kind)
        for name in names
        if name in kind.__dict__
    ]


def _is_harmless(name: object) -> bool:
    """Return whether nothing looks an attribute of this name up to act on it."""
    is_special = type(name) is not str or name.startswith("__") or name == _HOME
    return not is_special or name == "__notes__"


def text_of(error: BaseException) -> str:
    """Return what an exception says, or nothing where it cannot say it."""
    try:
        return str(error)[:2000]
    except BaseException:
        return ""


def _is_exception_class(kind: object) -> bool:
    return issubclass(type(kind), type) and issubclass(kind, BaseException)  # type: ignore[arg-type]


def _ask(error: BaseException, name: str) -> object:
    remote = error.__dict__.get(_HOME)
    if remote is None or name.startswith("__"):
        raise AttributeError(name)
    return getattr(remote, name)


def _text(error: BaseException) -> str:
    remote = error.__dict__.get(_HOME)
    return BaseException.__str__(error) if remote is None else str(remote)
