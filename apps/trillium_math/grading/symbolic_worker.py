"""The process that owns sympy: formulas in, "yes" or "no" out, a JSON list per line.

Started by `symbolic.py`, which kills it when it takes too long. It limits its own memory, evaluates
no text, and answers "no" to whatever fails.
"""

import json
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sympy

MEMORY_BYTES = 2 << 30
_PROOF_DIGITS = 60
# Of the 500 digits that are computed at most; rounding takes some.
_EQUAL_DIGITS = 400
_POINTS = ("0.73", "-1.37", "2.19")


def main() -> None:
    """Answer requests until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    sys.setrecursionlimit(2000)
    import sympy  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


_STUMBLES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


def _answer(request: list[object]) -> bool:
    name, *arguments = request
    try:
        return bool(_QUESTIONS[str(name)](*arguments))
    # Whatever sympy stumbles over is no proof of equality; the parent counts timeouts only.
    except _STUMBLES:
        return False


def _are_equal(one: list[object], other: list[object]) -> bool:
    import sympy

    left, right = _build(one), _build(other)
    if left == right:
        return True
    difference = left - right
    if difference is sympy.nan or difference.has(sympy.nan, sympy.zoo, sympy.oo):
        return False
    if _is_clearly_nonzero(difference):
        return False
    if sympy.simplify(difference) == 0 or difference.equals(0):
        return True
    return not difference.free_symbols and _is_zero_to_all_digits(difference)


def _is_rounded(exact: list[object], decimal: str, unit: str) -> bool:
    import sympy

    value = _build(exact)
    if value.free_symbols or not value.is_real:
        return False
    size, step = sympy.Rational(decimal), sympy.Rational(unit)
    if bool(value < 0) != bool(size < 0):
        return False
    beyond = (sympy.Abs(value) - sympy.Abs(size)).evalf(_PROOF_DIGITS)
    return bool(-step / 2 <= beyond) and bool(beyond < step)


def _are_proportional(one: list[object], other: list[object], positive: bool) -> bool:
    import sympy

    left, right = _build(one), _build(other)
    if left.free_symbols != right.free_symbols or right == 0 or left == 0:
        return bool(left == right)
    ratio = sympy.simplify(left / right)
    return not ratio.free_symbols and bool(ratio.is_positive if positive else ratio.is_nonzero)


def _is_clearly_nonzero(difference: "sympy.Expr") -> bool:
    """Say whether the difference is far from 0 at some point; most wrong answers end here."""
    import sympy

    names = sorted(difference.free_symbols, key=str)
    for start in range(len(_POINTS)):
        points = {
            name: sympy.Float(_POINTS[(start + place) % len(_POINTS)], 30) + place
            for place, name in enumerate(names)
        }
        value = difference.evalf(30, subs=points)
        if value.is_number and value.is_finite and abs(value) > sympy.Float("1e-12"):
            return True
    return False


def _is_zero_to_all_digits(difference: "sympy.Expr") -> bool:
    """Say whether terms cancel to 400 digits: for what sympy cannot prove, such as radicals.

    A single term is as large as itself, so that a small number is not 0, however small.
    """
    import sympy

    terms = sympy.Add.make_args(difference)
    size = max(abs(term.evalf(_PROOF_DIGITS)) for term in terms)
    value = difference.evalf(_PROOF_DIGITS, maxn=500)
    return bool(abs(value) < size * sympy.Float(10) ** -_EQUAL_DIGITS)


def _build(node: list[object]) -> "sympy.Expr":
    """Make a sympy expression of a parsed formula; the parent has refused huge numbers."""
    import sympy

    kind = str(node[0])
    if kind == "num":
        return sympy.Rational(str(node[1]))
    if kind == "sym":
        return sympy.Symbol(str(node[1]), real=True)
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[str(node[1])]
    parts = [_build(part) for part in node[1:] if isinstance(part, list)]
    if kind == "func":
        return _call(str(node[1]), parts)
    operations: dict[str, Callable[..., sympy.Expr]] = {
        "add": lambda a, b: a + b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "neg": lambda a: -a,
        "pow": lambda a, b: a**b,
    }
    return operations[kind](*parts)


def _call(name: str, parts: "list[sympy.Expr]") -> "sympy.Expr":
    import sympy

    if name == "log":  # schools write log for base 10
        return sympy.log(parts[0], parts[1] if len(parts) > 1 else 10)
    renamed = {
        "arcsin": "asin",
        "arccos": "acos",
        "arctan": "atan",
        "ln": "log",
        "abs": "Abs",
        "floor": "floor",
        "ceil": "ceiling",
    }
    return getattr(sympy, renamed.get(name, name))(*parts)


_QUESTIONS: dict[str, Callable[..., bool]] = {
    "are_equal": _are_equal,
    "is_rounded": _is_rounded,
    "are_proportional": _are_proportional,
}

if __name__ == "__main__":
    main()
