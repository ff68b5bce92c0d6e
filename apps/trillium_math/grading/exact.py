"""Exact rational values of formulas, with guards against numbers that would not fit.

Also which value a decimal may stand for: one that it writes to the last of many digits.
"""

import math
from collections.abc import Callable
from fractions import Fraction

from trillium_math.grading.expression import Node

MIN_DIGITS = 8
"""Significant digits that a decimal needs to stand for a number no finite decimal writes."""
_MAX_BITS = 20_000
_MAX_FACTORIAL = 300
_MAX_EXPONENT = 1000


class NotRational(Exception):
    """Say that a formula has no rational value that this module finds."""


class TooLarge(Exception):
    """Say that a formula holds a number too large to compute, such as 9**9**9."""


def rational(node: Node) -> Fraction:
    """Return the value of a formula without symbols.

    Raises NotRational, or TooLarge when some part is a number beyond 20,000 bits.
    """
    kind, *parts = node
    if kind == "num":
        return Fraction(str(parts[0]))
    if kind not in _OPERATIONS and kind != "func":
        raise NotRational(kind)
    failure: NotRational | None = None
    values = []
    for part in parts:
        if isinstance(part, tuple):
            try:
                values.append(rational(part))
            except NotRational as error:
                # The other parts are still looked at: one of them may be too large.
                failure = error
    if failure is not None:
        if kind == "pow" and values and abs(values[-1]) > _MAX_EXPONENT:
            raise TooLarge("exponent")
        raise failure
    operation = _FUNCTIONS.get(str(parts[0])) if kind == "func" else _OPERATIONS[str(kind)]
    if operation is None:
        raise NotRational(parts[0])
    try:
        value = operation(*values)
    except (ZeroDivisionError, TypeError) as error:
        raise NotRational(kind) from error
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise TooLarge(kind)
    return value


def value_of(node: Node) -> Fraction | None:
    """Return the rational value of a formula, or None; raises TooLarge as `rational` does."""
    try:
        return rational(node)
    except NotRational:
        return None


def is_terminating(value: Fraction) -> bool:
    """Say whether a finite decimal writes the value."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def writes(value: Fraction, *, decimal: Fraction, unit: Fraction) -> bool:
    """Say whether a decimal is the value rounded, or cut off, at its last digit `unit`."""
    if not unit or (value < 0) != (decimal < 0):
        return False
    beyond = abs(value) - abs(decimal)
    return -unit / 2 <= beyond < unit


def last_place(node: Node) -> Fraction:
    """Return the unit of the last digit of a decimal with enough digits, else 0."""
    if node[0] == "neg":
        inner = node[1]
        return last_place(inner) if isinstance(inner, tuple) else Fraction(0)
    if node[0] != "num" or not isinstance(node[2], int) or node[2] < MIN_DIGITS:
        return Fraction(0)
    value = Fraction(str(node[1]))
    unit = Fraction(1)
    # The literal was written with node[2] significant digits.
    while abs(value) / unit >= 10 ** node[2]:
        unit *= 10
    while abs(value) / unit < 10 ** (node[2] - 1):
        unit /= 10
    return unit


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        root = _root(base, exponent.denominator)
        return _power(root, Fraction(exponent.numerator))
    if abs(base) <= 1 and base.denominator == 1:
        if not base and exponent < 0:
            raise ZeroDivisionError
        # The powers of 0, 1 and -1 are small whatever the exponent.
        exponent = Fraction(exponent and exponent % 2 + 2)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > 2 * _MAX_BITS:
        raise TooLarge("power")
    return base ** int(exponent)


def _root(value: Fraction, degree: int) -> Fraction:
    if degree > 64 or (value < 0 and degree % 2 == 0):
        raise NotRational("root")
    if value < 0:  # the real root, as schools and \\sqrt[3]{-8} have it
        return -_root(-value, degree)
    parts = []
    for number in (value.numerator, value.denominator):
        found = _whole_root(number, degree)
        if found**degree != number:
            raise NotRational("root")
        parts.append(found)
    return Fraction(*parts)


def _whole_root(number: int, degree: int) -> int:
    if degree == 2:
        return math.isqrt(number)
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= number else (low, middle - 1)
    return low


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise NotRational("factorial")
    if value > _MAX_FACTORIAL:
        raise TooLarge("factorial")
    return Fraction(math.factorial(int(value)))


def _binomial(n: Fraction, k: Fraction) -> Fraction:
    if n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
        raise NotRational("binomial")
    if n > 1000:
        raise TooLarge("binomial")
    return Fraction(math.comb(int(n), int(k)))


_OPERATIONS: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "pow": _power,
}
_FUNCTIONS: dict[str, Callable[..., Fraction]] = {
    "sqrt": lambda a: _root(a, 2),
    "abs": lambda a: abs(a),
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "factorial": _factorial,
    "binomial": _binomial,
}
