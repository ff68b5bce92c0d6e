r"""Numbers as people write them: thousands, number words, mixed and repeating ones, literals.

Text goes in and out of `respell_number`; `literal` and `repeating` make the leaves of formulas.
"""

import re
from fractions import Fraction

from trillium_math.grading.tokens import NotAFormula

MULTIPLIER = re.compile(
    r"^([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*"
    r"((?:hundred|thousand|million|billion|trillion|dozen)s?|tens|(?:ten|hundred|thousand)ths)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
MULTIPLES: dict[str, int | Fraction] = {
    "thousandth": Fraction(1, 1000),
    "hundredth": Fraction(1, 100),
    "tenth": Fraction(1, 10),
    "ten": 10,
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_THOUSANDS = re.compile(r"^([-+]?)(\d{1,3}(?:,\d{3})+)(?!\d)([^,]*)$")
_MIXED = re.compile(r"^([-+]?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)$")
_MAX_DIGITS = 400
_MAX_PERIOD = 50


def respell_number(text: str) -> str:
    """Return 1,234 as 1234, 2 million as 2*1000000 and 7 3/4 as (7+3/4); other texts unchanged."""
    thousands = _THOUSANDS.match(text)
    if thousands:
        return thousands[1] + thousands[2].replace(",", "") + thousands[3]
    multiplied = MULTIPLIER.match(text)
    if multiplied and multiplied.end() == len(text):
        return respell_multiple(multiplied)
    mixed = _MIXED.match(text)
    if mixed:
        return f"{mixed[1]}({mixed[2]}+{mixed[3]}/{mixed[4]})"
    return text


def respell_multiple(found: re.Match[str]) -> str:
    """Return what MULTIPLIER found as a product: 1.2 million is 1.2*1000000."""
    return f"{found[1].replace(',', '')}*{MULTIPLES[found[2].lower().removesuffix('s')]}"


def literal(text: str) -> tuple[object, ...]:
    """Return the leaf of a written number; raises NotAFormula for more digits than 400."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > _MAX_DIGITS or len(exponent) > 4 or abs(int(exponent or 0)) > _MAX_DIGITS:
        raise NotAFormula(text)
    whole, _, part = mantissa.partition(".")
    digits = len((whole + part).lstrip("0")) if part else 0
    return ("num", str(Fraction(f"{whole or 0}.{part or 0}e{exponent or 0}")), digits)


def repeating(fixed: str, period: str) -> tuple[object, ...]:
    r"""Return the leaf of 0.1\overline{6}, given as 0.1 and 6, which is the fraction it is."""
    if not period.isdigit() or len(period) > _MAX_PERIOD:
        raise NotAFormula(period)
    n_fixed = len(fixed.partition(".")[2])
    repeated = Fraction(int(period), (10 ** len(period) - 1) * 10**n_fixed)
    return ("num", str(Fraction(fixed.rstrip(".")) + repeated), 0)
