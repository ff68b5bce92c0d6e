r"""Read an answer: a formula, a sequence or set, a union, a matrix, a relation, or words.

`parse_answer` never fails: what is no mathematics is `Words`, compared letter by letter.
"""

import re
from collections.abc import Iterable

from trillium_math.grading.cleaning import Cleaned, clean, part_letter_unit, squeeze
from trillium_math.grading.expression import Node, parse_formula
from trillium_math.grading.kinds import (
    Answer,
    Formula,
    InBase,
    Matrix,
    Parsed,
    Relation,
    Sequence,
    Union,
    Words,
)
from trillium_math.grading.relations import as_chain, has_room
from trillium_math.grading.tokens import NotAFormula

_MAX_ITEMS = 200
_MAX_NESTING = 8
_OPERATORS = {
    "=": "=",
    "==": "=",
    "<": "<",
    ">": ">",
    "<=": "<=",
    ">=": ">=",
    "!=": "!=",
    r"\lt": "<",
    r"\gt": ">",
    r"\le": "<=",
    r"\leq": "<=",
    r"\leqslant": "<=",
    r"\ge": ">=",
    r"\geq": ">=",
    r"\geqslant": ">=",
    r"\ne": "!=",
    r"\neq": "!=",
}
_RELATION = re.compile(
    r"\\(?:leqslant|geqslant|leq|geq|le|ge|lt|gt|neq|ne)(?![A-Za-z])|==|<=|>=|!=|[=<>]"
)
_SEPARATOR = re.compile(r"[,;]|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])|\\l(?:or|and)(?![A-Za-z])")
_COMMA = re.compile("[,;]")
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])|\\land(?![A-Za-z])")
_CUP = re.compile(r"\\cup(?![A-Za-z])|(?<=[)\]])\s*U\s*(?=[(\[])")
# What a list, set or matrix is called: (x, y) = (1, 2).
_CALLED = re.compile(
    r"^(?:[A-Za-z](?:_\w+)?|\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])+\s*\))\s*=\s*(?=[(\[]|\\\{|\\begin)"
)
_MEMBER = re.compile(r"^[A-Za-z]\s*(?:\\in(?![A-Za-z])|\bin\b)\s*(?=\S)")
_MATRIX = re.compile(
    r"^\\begin\{([pbvVB]?matrix|smallmatrix|array)\}(?:\{[lcr|\s]*\})?(.*)\\end\{\1\}$", re.DOTALL
)
_ALL_TEXT = re.compile(r"^\\text(?:rm|bf|it|normal)?\s*\{\s*[A-Za-z][A-Za-z ]+\}$")
_IN_BASE = re.compile(r"^([-+]?[0-9A-Za-z]+)\s*_\s*\{?\s*(\d{1,2})\s*\}?$")
# The side of an equation that says in words what the other is: Area = 5, \angle ABC = 30.
_NAMED = re.compile(
    r"(?:m\s*)?\\angle\s*[A-Z]{1,3}"
    r"|(?!(?i:.*(?:not|wrong|incorrect|false)))[A-Za-z][a-z]{3,}(?: [a-z]+){0,4}"
)
_CLOCK = re.compile(r"\d{1,2}(?::[0-5]\d){1,2}")
_RATIO = re.compile(r"^[^:]+(?::[^:]+)+$")
_PAIRS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}"}
_BRACKET = re.compile(r"\\[{}]|\\begin(?![A-Za-z])|\\end(?![A-Za-z])|[()\[\]{}]")
_ALL_REALS = Sequence(
    "()", (Formula(("neg", ("const", "oo")), "-oo"), Formula(("const", "oo"), "oo"))
)


def parse_answer(text: str) -> Parsed:
    """Read an answer as it was written by a person or a model."""
    cleaned = clean(text)
    if cleaned.is_long or _ALL_TEXT.match(text.strip()):
        return Parsed(Words(squeeze(cleaned.body)), cleaned)
    return Parsed(_parse(cleaned.body, 0), cleaned, _measure(cleaned))


def _measure(cleaned: Cleaned) -> Parsed | None:
    parted = part_letter_unit(cleaned)
    found = parted and Parsed(_parse(parted.body, 0), parted)
    return found if found and found.is_number else None


def _parse(text: str, depth: int) -> Answer:
    text = text.strip()
    member = _MEMBER.match(text)
    if member:
        text = text[member.end() :].strip()
    called = _CALLED.match(text)
    if called and depth < _MAX_NESTING:
        meant = _parse_parts(text[called.end() :], depth + 1)
        if isinstance(meant, Sequence | Matrix | Union):
            return meant
    found = None
    if depth < _MAX_NESTING:
        found = _parse_whole(text) or _parse_parts(text, depth)
    return found or _parse_single(text)


def _parse_whole(text: str) -> Answer | None:
    if text in {r"\emptyset", r"\varnothing", r"\{\}", r"\{ \}", "{}"}:
        return Sequence("{}", ())
    if text in {r"\mathbb{R}", r"\mathbb R", r"\R"}:
        return _ALL_REALS
    based = _IN_BASE.match(text)
    if based and _are_digits(based[1].lstrip("+-"), int(based[2])):
        return InBase(based[1].lstrip("+").lower(), based[2])
    return None


def _are_digits(text: str, base: int) -> bool:
    """Say whether a text writes a number in a base: 2x_1 and 3x_2 hold a name with an index."""
    return text[0].isdigit() and 2 <= base <= 36 and all(int(digit, 36) < base for digit in text)


def _parse_parts(text: str, depth: int) -> Answer | None:
    """Read what is made of smaller answers; None when nothing is."""
    matrix = _MATRIX.match(text)
    if matrix and text.count(r"\begin{") == 1:
        return _parse_matrix(matrix, depth)
    parts = _split(text, _CUP)
    if len(parts) > 1:
        return Union(tuple(_parse(part, depth + 1) for part in parts))
    parts = [part for part in _split(text, _SEPARATOR) if part.strip()]
    if 1 < len(parts) <= _MAX_ITEMS:
        items = tuple(_flatten(_parse(part, depth + 1) for part in parts))
        return _join_bounds(text, items) or Sequence("", items)
    if text.count(r"\pm") == 1 and not _enclosure(text):
        signs = [_parse(re.sub(r"\\pm(?![A-Za-z])", sign, text), depth + 1) for sign in "+-"]
        return Sequence("", tuple(signs))
    return _parse_enclosed(text, depth)


def _join_bounds(text: str, items: tuple[Answer, ...]) -> Relation | None:
    """Return two bounds as the interval they make; of a comma, where it is one: x > 1, x < 3."""
    chain = as_chain(items)
    if chain is None or len(_split(text, _AND)) == 2:
        return chain
    return chain if len(_split(text, _COMMA)) == 2 and has_room(chain) else None


def _parse_enclosed(text: str, depth: int) -> Answer | None:
    brackets = _enclosure(text)
    if brackets is None:
        return None
    opener, closer = brackets
    inner = text[len(opener) : -len(closer)]
    parts = [part for part in _split(inner, _SEPARATOR) if part.strip()]
    if len(parts) > _MAX_ITEMS:
        return None
    items = tuple(_parse(part, depth + 1) for part in parts)
    if opener == r"\{" or (opener == "{" and len(parts) > 1):
        return Sequence("{}", tuple(_flatten(items)))
    if len(parts) < 2:
        # Around one answer brackets only group, if they match.
        is_group = bool(items) and (opener != "[" or isinstance(items[0], Matrix))
        return items[0] if is_group and _PAIRS[opener] == closer else None
    return Sequence(opener + closer, items)


def _parse_matrix(matrix: re.Match[str], depth: int) -> Answer:
    rows = re.split(r"\\cr(?![A-Za-z])", matrix[2].replace(r"\hline", ""))
    cells = tuple(
        tuple(_parse(cell, depth + 1) for cell in row.split("&")) for row in rows if row.strip()
    )
    return Matrix(cells, is_determinant=matrix[1] in {"vmatrix", "Vmatrix"})


def _parse_single(text: str) -> Answer:
    try:
        relation = _parse_relation(text)
        if relation is not None:
            return relation
        if _RATIO.match(text):
            parts = [Formula(parse_formula(part), part.strip()) for part in text.split(":")]
            return Sequence("h:m" if _CLOCK.fullmatch(text) else "::", tuple(parts))
        return Formula(parse_formula(text), text)
    except (NotAFormula, ValueError):
        return Words(squeeze(text))


def _parse_relation(text: str) -> Relation | None:
    operators = [_OPERATORS[match[0]] for match in _RELATION.finditer(text)]
    if not operators or len(operators) > 8:
        return None
    first, *rest = _RELATION.split(text)
    left = _parse_side(first.strip(), operators[0])
    return Relation((left, *map(parse_formula, rest)), tuple(operators), text)


def _parse_side(text: str, operator: str) -> Node:
    try:
        return parse_formula(text)
    except NotAFormula:
        if operator != "=" or not _NAMED.fullmatch(text):
            raise
        return ("sym", squeeze(text))


def _flatten(items: Iterable[Answer]) -> Iterable[Answer]:
    """Yield items, and the two values of each plus-minus in their place."""
    for item in items:
        if isinstance(item, Sequence) and item.kind == "":
            yield from item.items
        else:
            yield item


def _split(text: str, separator: re.Pattern[str]) -> list[str]:
    """Split at separators outside every bracket and environment."""
    depth, start, parts = 0, 0, []
    events = [(m.start(), m.end(), m[0], True) for m in _BRACKET.finditer(text)]
    events += [(m.start(), m.end(), m[0], False) for m in separator.finditer(text)]
    for begin, end, token, is_bracket in sorted(events):
        if is_bracket:
            depth += 1 if token in {"(", "[", "{", r"\{", r"\begin"} else -1
        elif depth == 0:
            parts.append(text[start:begin])
            start = end
    return [*parts, text[start:]]


def _enclosure(text: str) -> tuple[str, str] | None:
    """Return the brackets that enclose the whole text, of equal type or not."""
    opener = next((mark for mark in (r"\{", "(", "[", "{") if text.startswith(mark)), None)
    if opener is None:
        return None
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += 1 if match[0] in {"(", "[", "{", r"\{", r"\begin"} else -1
        if depth == 0:
            is_last = match.end() == len(text)
            fits = _PAIRS[opener] == match[0] or {opener, match[0]} <= {"(", "[", ")", "]"}
            return (opener, match[0]) if is_last and fits else None
    return None
