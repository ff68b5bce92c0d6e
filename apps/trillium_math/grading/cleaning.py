"""Spell an answer in one way: LaTeX wrappers, units, percent signs, thousands, number words.

What is removed here never changes a value: spacing, delimiters, units behind a number. The percent
sign and the unit are kept beside the body, because they decide what the body may equal.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

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
    "\u00a0": " ",
    "\u2009": " ",
}
_TRANSLATION = str.maketrans(_UNICODE)
_REWRITES = (
    # Ends of matrix rows first: their second backslash begins no command.
    (re.compile(r"\\\\(?:\[[\d.]+\s*(?:pt|ex|em|mm|cm)\])?"), r"\\cr "),
    (re.compile(r"\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lr]?)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"(?<=\d)(?:\\,|\\!|\{,\}|,\\!)(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~"), " "),
    (re.compile(r"\s*\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})(?:\s*(?:C|F)$)?"), " "),
    (re.compile(r"\\degree(?![A-Za-z])"), " "),
    (re.compile(r"\\(?:lbrace|rbrace)(?![A-Za-z])"), lambda m: "\\{" if "l" in m[0] else "\\}"),
    (re.compile(r"\\?[$£€]"), ""),
    (re.compile(r"(\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))"), r"\1\\times "),
    (re.compile(r"\\[()\[\]]"), " "),
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
_DEGREE = re.compile(
    r"(?:\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z]))\s*"
    r"(?:\\(?:text|mathrm)\s*\{\s*)?(?P<scale>[CF]?)[\s}.,;$]*$"
)
_WRAPPERS = r"\\(?:text|textrm|textbf|textit|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|rm)"
_WRAPPED = re.compile(_WRAPPERS + r"\s*\{([^{}]*)\}")
_WRAPPED_UNIT = re.compile(
    r"^(?P<body>.*\S)\s*" + _WRAPPERS + r"\s*\{\s*(?P<unit>[A-Za-z][A-Za-z./ -]*?)\s*\}"
    r"(?P<power>\s*\^\s*\{?\s*[23]\s*\}?)?\s*\.?$",
    re.DOTALL,
)
_PLAIN_UNIT = re.compile(
    r"^(?P<body>.*[\d)}])(?P<gap>\s*)(?P<unit>[A-Za-z][A-Za-z./ -]*?)"
    r"(?P<power>\s*\^\s*\{?\s*[23]\s*\}?)?$",
    re.DOTALL,
)
_LETTER_UNIT = re.compile(
    r"[\d)}](?P<gap>\s+)(?P<unit>[mglLsh])(?P<power>\s*\^\s*\{?\s*[23]\s*\}?)?$"
)
# A sign between terms: of x + 2 m nobody knows what is measured. One before a number is none.
_SUM = re.compile(r"[^\s({^]\s*[-+]")
_SPACE = re.compile(r"((?<=\d)\s+(?=\d))|\s+")
_PERCENT = re.compile(r"\s*(?:\\?%|\b(?:percent|per cent)\b)\s*$", re.IGNORECASE)
_MULTIPLIER = re.compile(
    r"^([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*"
    r"((?:hundred|thousand|million|billion|trillion|dozen)s?|tens|(?:ten|hundred|thousand)ths)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_MULTIPLES: dict[str, int | Fraction] = {
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
# Words that change a value are no units.
_VALUE_WORDS_TEXT = (
    "or and to from by of plus minus times over less more than squared cubed factorial choose "
    "half halves third thirds quarter quarters mod modulo percent not no none sin cos tan sec csc "
    "cot log exp sqrt abs floor ceil arcsin arccos arctan asin acos atan sinh cosh tanh max min "
    "gcd lcm alpha beta gamma delta theta lambda sigma omega infinity approximately about "
    "hundred thousand million billion trillion dozen negative positive infty"
)
_PARTS_TEXT = "fifth sixth seventh eighth ninth tenth hundredth thousandth millionth"
_PARTS = frozenset(_PARTS_TEXT.split())
_VALUE_WORDS = frozenset(_VALUE_WORDS_TEXT.split()) | {
    f"{word}s" for word in _PARTS | {*_MULTIPLES}
}
_UNITS = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche",
    "ft": "foot feet",
    "mi": "mile",
    "g": "gram",
    "mg": "milligram",
    "kg": "kilogram kilo",
    "l": "liter litre",
    "ml": "milliliter millilitre",
    "s": "second sec",
    "min": "minute",
    "h": "hour hr",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr",
    "dollar": "usd buck",
    "cent": "",
    "mph": "",
    "lb": "pound",
    "oz": "ounce",
    "degree": "deg",
    "degree C": "celsius",
    "degree F": "fahrenheit",
    "rad": "radian",
    "euro": "",
}
_CANONICAL = {
    name: unit for unit, names in _UNITS.items() for name in (unit, *names.split()) if name
}


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
    text = text.translate(_TRANSLATION)
    sign = _unit_of_sign(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _trim(text)
    body, unit = _split_unit(text)
    percent = _PERCENT.search(body)
    if percent:
        body = body[: percent.start()]
    # Wrappers nest, as in \mathbf{\text{A}}; ten layers are more than anyone writes.
    for _ in range(10):
        unwrapped = _WRAPPED.sub(r" \1 ", body)
        if unwrapped == body:
            break
        body = unwrapped
    body = _trim(body)
    if not unit and not percent:
        percent = _PERCENT.search(body)
        body = _trim(body[: percent.start()]) if percent else body
    unit = sign if sign and unit in {"", "?"} else unit
    return Cleaned(_respell_number(body), unit, is_percent=percent is not None)


def are_apart(one: str, other: str) -> bool:
    """Say whether two units differ; none and an unknown one agree with all."""
    if one == other or not one or not other or "?" in {one, other}:
        return False
    # Degrees may be of either scale.
    return not ("degree" in {one, other} and one[:6] == other[:6])


def part_letter_unit(cleaned: Cleaned) -> Cleaned | None:
    """Return an answer such as `10 m` with its unit of one letter apart; None for others."""
    found = _LETTER_UNIT.search(cleaned.body)
    if found is None or cleaned.unit or cleaned.is_percent:
        return None
    body = cleaned.body[: found.start("gap")]
    if _SUM.search(body):
        return None
    power = re.sub(r"[^23]", "", found["power"] or "")
    return Cleaned(_respell_number(body), _canonical_unit([found["unit"]], power))


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


def _split_unit(text: str) -> tuple[str, str]:
    """Return body and unit; `10 \\text{ cm}^2`, `25 square meters`, `18 apples`, `60 km/h`."""
    wrapped = _WRAPPED_UNIT.match(text)
    if wrapped and re.search(r"[\d)}]\s*$|\\pi\s*$|[a-z]\s*$", wrapped["body"]):
        return _accept_unit(text, wrapped, is_wrapped=True)
    multiplied = _MULTIPLIER.match(text)
    if multiplied:
        number = multiplied[1].replace(",", "")
        text = f"{number}*{_multiple(multiplied[2])}{text[multiplied.end() :]}"
    plain = _PLAIN_UNIT.match(text)
    return _accept_unit(text, plain, is_wrapped=False) if plain else (text, "")


def _accept_unit(text: str, match: re.Match[str], *, is_wrapped: bool) -> tuple[str, str]:
    words = re.findall(r"[A-Za-z]+", match["unit"])
    gap = is_wrapped or match["gap"] != ""
    plausible = all(
        word.lower() not in _VALUE_WORDS
        and (is_wrapped or _is_unit(word) or (gap and len(word) + len(words) > 4 and len(word) > 2))
        for word in words
    )
    is_part = words[-1].lower() in _PARTS  # 1 fifth is less than 1, 12 fifth graders are 12
    if not plausible or is_part or (not is_wrapped and len(words[0]) == 1):
        return text, ""
    body = match["body"]
    multiplied = _MULTIPLIER.match(body + " " + match["unit"])
    if multiplied:  # wrapped, as in 1.2 \text{ million}
        return text, ""
    power = re.sub(r"[^23]", "", match["power"] or "")
    return body, _canonical_unit(words, power)


def _is_unit(word: str) -> bool:
    word = word.lower()
    return word in _CANONICAL or word.removesuffix("s") in _CANONICAL or word in {"sq", "cu"}


def _canonical_unit(words: list[str], power: str) -> str:
    """Name a known unit in one way; an unknown one is "?", which agrees with every unit."""
    names = [word.lower() for word in words]
    if names[0] in {"square", "sq", "cubic", "cu"} and len(names) > 1:
        power = "2" if names[0].startswith("sq") else "3"
        names = names[1:]
    if len(names) == 2 and names[0].startswith("deg"):  # degrees Celsius
        names = names[1:]
    if len(names) != 1 or not _is_unit(names[0]):
        return "?"
    name = names[0] if names[0] in _CANONICAL else names[0].removesuffix("s")
    return _CANONICAL[name] + power


def _multiple(word: str) -> int | Fraction:
    return _MULTIPLES[word.lower().removesuffix("s")]


def _respell_number(body: str) -> str:
    thousands = _THOUSANDS.match(body)
    if thousands:
        return thousands[1] + thousands[2].replace(",", "") + thousands[3]
    multiplied = _MULTIPLIER.match(body)
    if multiplied and multiplied.end() == len(body):
        return f"{multiplied[1].replace(',', '')}*{_multiple(multiplied[2])}"
    mixed = _MIXED.match(body)
    if mixed:
        return f"{mixed[1]}({mixed[2]}+{mixed[3]}/{mixed[4]})"
    return body
