"""What a candidate sets for its whole interpreter, where plain execution would have one for both.

Not the recursion limit, which programs raise for themselves and tests have no use for. Imported in
the zygote: standard library only, and little of it (see zygote.py).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class Settings:
    """The settings of this process as they are before a program is loaded."""

    __slots__ = ("_max_digits", "_place")

    def __init__(self) -> None:
        """Look at them."""
        self._place = _place()
        self._max_digits = sys.get_int_max_str_digits()

    def news(self) -> list[str]:
        """Return what the other side must be told (peer.py)."""
        told = {"stale": self._has_moved(), "counts": self._counts_otherwise()}
        return [word for word, is_so in told.items() if is_so]

    def _has_moved(self) -> bool:
        """Return whether the working folder or an environment variable is another one now."""
        return _place() != self._place

    def _counts_otherwise(self) -> bool:
        """Return whether numbers are made into texts, or decimals rounded, otherwise now."""
        decimal = sys.modules.get("decimal")
        if decimal is not None and _rounds_otherwise(decimal):
            return True
        return sys.get_int_max_str_digits() != self._max_digits


def _rounds_otherwise(decimal: ModuleType) -> bool:
    context = decimal.getcontext()
    traps = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
    plain = decimal.Context(28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0, [], traps)
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")
    return any(getattr(context, name) != getattr(plain, name) for name in names)


def _place() -> tuple[str | None, dict[object, object]]:
    try:
        folder = os.getcwd()  # noqa: PTH109 - the zygote does without pathlib
    except OSError:
        folder = None
    # Not `environ` itself: its methods would count as the program's (opcodes.py).
    return folder, vars(os.environ)["_data"].copy()
