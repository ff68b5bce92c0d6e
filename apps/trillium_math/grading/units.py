r"""Units behind a number: what is one, its one name, and which two of them differ.

An unknown word is the name of what was counted, and agrees with every unit; a word that changes a
value (below, squared, epsilon) is none. A name is `measure/per@direction`, such as `km/h@north`.
"""

import re

from trillium_math.grading.numerals import MULTIPLES, MULTIPLIER, respell_multiple
from trillium_math.grading.tokens import GREEK

WRAPPERS = r"\\(?:text|textrm|textbf|textit|textnormal|mathrm|mathbf|mathit|mathsf|mbox|hbox|rm)"
_POWER = r"\s*\^\s*\{?\s*[23]\s*\}?"
_WRAPPED_UNIT = re.compile(
    r"^(?P<body>.*\S)\s*"
    + WRAPPERS
    + r"\s*\{\s*(?P<unit>[A-Za-z](?:[A-Za-z./ -]|\^\s*\{?[23]\}?)*?)"
    r"\s*\}(?P<power>" + _POWER + r")?\s*\.?$",
    re.DOTALL,
)
_PLAIN_UNIT = re.compile(
    r"^(?P<body>.*[\d)}])(?P<gap>\s*)(?P<unit>[A-Za-z][A-Za-z./ -]*?)(?P<power>" + _POWER + r")?$",
    re.DOTALL,
)
# Units of one letter, alone or as in m/s^2: they could be factors too.
_LETTER_UNIT = re.compile(
    r"[\d)}](?P<gap>\s+)(?P<unit>(?:N m|[mglLshNJWVA]" + _POWER + r"|[mglLshNJWVA])"
    r"(?:(?:/|\s*/\s*(?=[a-z]))(?P<per>[A-Za-z]+)(?:" + _POWER + r")?)?)$"
)
# A sign between terms: of x + 2 m nobody knows what is measured. One before a number is none.
_SUM = re.compile(r"[^\s({^]\s*[-+]")
_PARTS_TEXT = "fifth sixth seventh eighth ninth tenth hundredth thousandth millionth"
_PARTS = frozenset(_PARTS_TEXT.split())
# Words that do so at the end: 1 fifth, 10 too many; 12 fifth graders and 3 true statements are
# counts.
_LAST_WORDS = _PARTS | {"short", "shy", "few", "many", "zero", "true", "false"}
# Words that change a value, or make a statement of it, are no units.
_VALUE_WORDS_TEXT = (
    "or and to from by of plus minus times over less more than squared cubed factorial choose "
    "half halves third thirds quarter quarters mod modulo percent not no none sin cos tan sec csc "
    "cot log exp sqrt abs floor ceil arcsin arccos arctan asin acos atan sinh cosh tanh max min "
    "gcd lcm infinity approximately about roughly nearly almost around "
    "hundred thousand million billion trillion dozen negative positive infty "
    "below above under beneath beyond fewer except excluding unless until without nor never base"
)
_VALUE_WORDS = (
    frozenset(_VALUE_WORDS_TEXT.split())
    | {name.lower() for name in GREEK}
    | {f"{word}s" for word in _PARTS | {*MULTIPLES}}
)
_DIRECTIONS_TEXT = (
    "north south east west northeast northwest southeast southwest left right up down "
    "forward backward clockwise counterclockwise profit loss ahead behind early late"
)
_DIRECTIONS = {name: name for name in _DIRECTIONS_TEXT.split()} | {
    "forwards": "forward",
    "backwards": "backward",
    "anticlockwise": "counterclockwise",
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
    "l": "liter litre L",
    "ml": "milliliter millilitre",
    "s": "second sec",
    "ms": "millisecond",
    "min": "minute",
    "h": "hour hr",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr",
    "dollar": "usd buck",
    "cent": "",
    "mi/h": "mph",
    "lb": "pound",
    "oz": "ounce",
    "degree": "deg",
    "degree C": "celsius",
    "degree F": "fahrenheit",
    "rad": "radian",
    "euro": "",
    "N": "newton",
    "kN": "kilonewton",
    "J": "joule",
    "kJ": "kilojoule",
    "W": "watt",
    "kW": "kilowatt",
    "kWh": "",
    "V": "volt",
    "A": "amp ampere",
    "Pa": "pascal",
    "kPa": "kilopascal",
    "Hz": "hertz",
    "kHz": "kilohertz",
}
_CANONICAL = {
    name: unit for unit, names in _UNITS.items() for name in (unit, *names.split()) if name
}
# Of 5kN nobody knows whether it is a product; of 5 kN one does.
_NEEDS_GAP = frozenset(unit for unit in _UNITS if unit != unit.lower() and " " not in unit)


def split_unit(text: str) -> tuple[str, str]:
    """Return body and unit; `10 \\text{ cm}^2`, `25 square meters`, `18 apples`, `60 km/h`."""
    wrapped = _WRAPPED_UNIT.match(text)
    if wrapped and re.search(r"[\d)}]\s*$|\\pi\s*$|[a-z]\s*$", wrapped["body"]):
        return _accept(text, wrapped, is_wrapped=True)
    multiplied = MULTIPLIER.match(text)
    if multiplied:
        text = respell_multiple(multiplied) + text[multiplied.end() :]
    plain = _PLAIN_UNIT.match(text)
    return _accept(text, plain, is_wrapped=False) if plain else (text, "")


def split_letter_unit(text: str) -> tuple[str, str]:
    """Return body and unit of `10 m` or `6 m/s`, which could be products too."""
    found = _LETTER_UNIT.search(text)
    if found is None or (found["per"] and not _name(found["per"])):
        return text, ""
    body = text[: found.start("gap")]
    return (text, "") if _SUM.search(body) else (body, name_unit(found["unit"]))


def are_apart(one: str, other: str) -> bool:
    """Say whether two units differ; none and an unknown one agree with all, part by part.

    Where one side leaves out per what, or in which direction, the other's agrees too.
    """
    (one, _, way), (other, _, other_way) = one.partition("@"), other.partition("@")
    (one, _, per), (other, _, other_per) = one.partition("/"), other.partition("/")
    pairs = ((way, other_way), (per, other_per), (one, other))
    return any(_differ(*pair) for pair in pairs)


def name_unit(text: str) -> str:
    """Name a unit in one way: `meters per second` and `m/s` are `m/s`, an unknown one is "?"."""
    words = re.findall(r"[A-Za-z]+", text)
    way = next((_DIRECTIONS[word.lower()] for word in words if word.lower() in _DIRECTIONS), "")
    if way:
        text = " ".join(word for word in words if word.lower() not in _DIRECTIONS)
    parts = re.split(r"/|\bper\b", text)
    measure = "/".join(_name_product(part) for part in parts) if len(parts) < 3 else "?"
    return f"{measure}@{way}" if way else measure


def _differ(one: str, other: str) -> bool:
    if one == other or not one or not other or "?" in {one, other}:
        return False
    # Degrees may be of either scale.
    return not ("degree" in {one, other} and one[:6] == other[:6])


def _accept(text: str, match: re.Match[str], *, is_wrapped: bool) -> tuple[str, str]:
    words = re.findall(r"[A-Za-z]+", match["unit"])
    gap = is_wrapped or match["gap"] != ""
    plausible = all(
        word.lower() not in _VALUE_WORDS
        and (is_wrapped or _reads_as_unit(word, len(words), gap=gap))
        for word in words
    )
    says_more = words[-1].lower() in _LAST_WORDS
    if not plausible or says_more or (not is_wrapped and len(words[0]) == 1):
        return text, ""
    body = match["body"]
    if MULTIPLIER.match(body + " " + match["unit"]):  # wrapped, as in 1.2 \text{ million}
        return text, ""
    return body, name_unit(match["unit"] + (match["power"] or ""))


def _reads_as_unit(word: str, n_words: int, *, gap: bool) -> bool:
    """Say whether a plain word is a known unit, or long enough to name what is counted."""
    if _name(word) or word.lower() in {"sq", "cu"}:
        return gap or word not in _NEEDS_GAP
    if word.lower() in _DIRECTIONS:
        return gap
    return gap and len(word) + n_words > 4 and len(word) > 2


def _name(word: str) -> str:
    """Return the name of a known unit, else ""; a single letter has a case that counts."""
    if word in _CANONICAL or len(word) == 1:
        return _CANONICAL.get(word, "")
    lower = word.lower()
    single = lower.removesuffix("s")
    return _CANONICAL.get(lower) or (_CANONICAL.get(single, "") if len(single) > 1 else "")


def _name_product(text: str) -> str:
    """Name one side of "per"; more than one unit, as in N m, may be spelled in other ways."""
    words = re.findall(r"[A-Za-z]+", text)
    power = re.sub(r"[^23]", "", text)
    if len(words) > 1 and words[0].lower() in {"square", "sq", "cubic", "cu"}:
        power = "2" if words[0].lower().startswith("sq") else "3"
        words = words[1:]
    if len(words) == 2 and words[0].lower().startswith("deg"):  # degrees Celsius
        words = words[1:]
    if not words:
        return ""
    name = _name(words[0]) if len(words) == 1 else ""
    return name + power if name else "?"
