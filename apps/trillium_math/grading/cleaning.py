"""Spell an answer in one way: LaTeX wrappers, units, percent signs, thousands, number words.

What is removed here never changes a value: spacing, delimiters, units behind a number. The percent
sign and the unit are kept beside the body, because they decide what the body may equal.
"""

import re
import unicodedata
from dataclasses import dataclass

from trillium_math.grading.numerals import respell_number
from trillium_math.grading.tokens import GREEK
from trillium_math.grading.units import WRAPPERS, split_letter_unit, split_unit

MAX_CHARS = 2000
"""Longer answers are compared as text only."""

_UNICODE = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{MULTIPLICATION SIGN}": r"\times ",
    "·": r"\cdot ",
    "÷": "/",
    "π": r"\pi ",
    "√": r"\sqrt ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "\N{UNION}": r"\cup ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "±": r"\pm ",
    "°": r"^\circ ",
    "≈": r"\approx ",
    "²": "^2 ",
    "³": "^3 ",
    "½": " 1/2",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\u00a0": " ",
    "\u2009": " ",
}
# Unicode spells one letter otherwise; ell and the variants of LaTeX have no letter there.
_LETTERS = {
    unicodedata.lookup(
        f"GREEK {'SMALL' if name.islower() else 'CAPITAL'} LETTER "
        + name.upper().replace("LAMBDA", "LAMDA")
    ): rf"\{name} "
    for name in GREEK
    if name != "ell" and not name.startswith("var")
}
_TRANSLATION = str.maketrans(_UNICODE | _LETTERS)
_REWRITES = (
    # Ends of matrix rows first: their second backslash begins no command.
    (re.compile(r"\\\\(?:\[[\d.]+\s*(?:pt|ex|em|mm|cm)\])?"), r"\\cr "),
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lr]?)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"(?<=\d)(?:\\,|\\!|\{,\}|,\\!)(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~"), " "),
    (re.compile(r"\\(?:lbrace|rbrace)(?![A-Za-z])"), lambda m: "\\{" if "l" in m[0] else "\\}"),
    (re.compile(r"\\?[$£€]"), ""),
    (re.compile(r"(\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))"), r"\1\\times "),
    (re.compile(r"\\[()\[\]]"), " "),
    (re.compile(r"\bper cent\b", re.IGNORECASE), "percent"),
    (re.compile(r"\\bar(?=\s*\{?\s*\d)"), r"\\overline"),
    (re.compile(r"\\overline\s*(\d)"), r"\\overline{\1}"),
    (re.compile(r"(?<!\d)\.(?=\\overline)"), "0."),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"^\s*<([^<>=]*,[^<>=]*)>\s*$"), r"(\1)"),
    # An answer, and what it is about: the answer is meant.
    (re.compile(r"^\s*(?:=|\\approx(?![A-Za-z]))"), ""),
    (re.compile(r"\\approx(?![A-Za-z]).*$", re.DOTALL), ""),
)
# Signs of units; a dollar is one where it stands alone, two of them enclose mathematics.
_SIGNS = (
    ("dollar", re.compile(r"\\\$|^[^$]*\$[^$]*$")),
    ("lb", re.compile("£")),
    ("euro", re.compile("€")),
)
_DEGREE_SIGN = r"(?:\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\^?\s*\\degree(?![A-Za-z]))"
_DEGREE = re.compile(_DEGREE_SIGN + r"\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?P<scale>[CF]?)[\s}.,;$]*$")
_DEGREES = re.compile(r"\s*" + _DEGREE_SIGN + r"(?:\s*[CF]$)?")
_DEGREE_WORDS = re.compile(
    r"(?<=[\d)}])\s*(?:" + WRAPPERS + r"\s*\{\s*degrees?\s*\}|degrees?(?![A-Za-z]))"
)
# The argument of one of these is an angle: sin 30 degrees is not sin 30.
_TRIGONOMETRY = re.compile(r"(?<![A-Za-z])(?:sin|cos|tan|sec|csc|cot)(?![A-Za-z])")
# Marks around the whole of an answer: **7**, `7` and "7" are 7.
_MARKED = re.compile(r"^(\*\*|[*`\"'])((?:(?!\1).)+)\1$", re.DOTALL)
_WRAPPED = re.compile(WRAPPERS + r"\s*\{([^{}]*)\}")
_SPACE = re.compile(r"((?<=\d)\s+(?=\d))|\s+")
_PERCENT_SIGN = r"\s*(?:\\?%|\bpercent\b)"
_PERCENT = re.compile(_PERCENT_SIGN + r"\s*$", re.IGNORECASE)
# Every item of a list has its percent sign, in front of what separates or encloses items.
_ITEM_PERCENT = re.compile(_PERCENT_SIGN + r"(?=\s*(?:[,;)\]]|\\\}|(?:and|or)\b|$))", re.IGNORECASE)
_ITEM_END = re.compile(r"[,;]\s*(?:(?:and|or)\b)?|\b(?:and|or)\b")


@dataclass(frozen=True)
class Cleaned:
    """Hold what is left of an answer; `is_long` forbids everything but comparing texts."""

    body: str
    unit: str = ""
    is_percent: bool = False
    is_long: bool = False


def clean(text: str) -> Cleaned:
    """Return the answer without wrappers, with its unit and percent sign set apart."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        return Cleaned(" ".join(text.split()), is_long=True)
    text = _MARKED.sub(r"\2", text.translate(_TRANSLATION).strip())
    sign = _unit_of_sign(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    body, unit = split_unit(_trim(_respell_degrees(text)))
    # Wrappers nest, as in \mathbf{\text{A}}; ten layers are more than anyone writes.
    for _ in range(10):
        unwrapped = _WRAPPED.sub(r" \1 ", body)
        if unwrapped == body:
            break
        body = unwrapped
    body, is_percent = _split_percent(_trim(body))
    if sign and unit[:1] in {"", "?", "/", "@"}:
        unit = sign + unit.removeprefix("?")
    return Cleaned(respell_number(body), unit, is_percent)


def part_letter_unit(cleaned: Cleaned) -> Cleaned | None:
    """Return an answer such as `10 m` or `6 m/s` with its unit apart; None for others."""
    if cleaned.unit or cleaned.is_percent:
        return None
    body, unit = split_letter_unit(cleaned.body)
    return Cleaned(respell_number(body), unit) if unit else None


def squeeze(text: str) -> str:
    """Return text without spaces, except between digits, and in one case."""
    return drop_spaces(text).casefold()


def drop_spaces(text: str) -> str:
    """Return text without the spaces that mean nothing: 1 234 is not 1234."""
    return _SPACE.sub(lambda match: " " if match[1] else "", text.strip())


def _trim(text: str) -> str:
    return text.strip().rstrip(".,; ").strip()


def _unit_of_sign(text: str) -> str:
    """Return the unit that a sign of currency or degrees states, which rewriting removes."""
    degree = _DEGREE.search(text)
    if degree:
        return f"degree {degree['scale']}".strip()
    return next((unit for unit, sign in _SIGNS if sign.search(text)), "")


def _respell_degrees(text: str) -> str:
    """Drop degree signs, which are units; keep them where an angle may be an argument."""
    if not _TRIGONOMETRY.search(text):
        return _DEGREES.sub(" ", text)
    return _DEGREES.sub(r"^\\circ ", _DEGREE_WORDS.sub(r"^\\circ ", text))


def _split_percent(body: str) -> tuple[str, bool]:
    """Return an answer without its percent sign, or a list of which every item has one."""
    n_signs = len(_ITEM_PERCENT.findall(body))
    if n_signs > 1 and n_signs == len(_ITEM_END.findall(body)) + 1:
        return _trim(_ITEM_PERCENT.sub(" ", body)), True
    percent = _PERCENT.search(body)
    return (_trim(body[: percent.start()]), True) if percent else (body, False)
