r"""What an answer can be: a formula, a sequence or set, a union, a matrix, a relation, or words.

Bracket types are part of a sequence, since (0, 9) and [0, 9) are different answers.
"""

from dataclasses import dataclass, field

from trillium_math.grading.cleaning import Cleaned
from trillium_math.grading.expression import Node, symbols_of


@dataclass(frozen=True)
class Words:
    """Hold text that is compared without spaces and case."""

    text: str


@dataclass(frozen=True)
class Formula:
    """Hold an expression."""

    node: Node
    text: str


@dataclass(frozen=True)
class InBase:
    """Hold the digits of a number with a written base."""

    digits: str
    base: str


@dataclass(frozen=True)
class Sequence:
    """Hold several answers.

    `kind` is a pair of brackets, "{}" for a set, "" for a bare list, "::" for a ratio, and "h:m"
    for what may be a ratio or a time of day, such as 12:30.
    """

    kind: str
    items: tuple["Answer", ...]


@dataclass(frozen=True)
class Union:
    """Hold a union of intervals or sets."""

    parts: tuple["Answer", ...]


@dataclass(frozen=True)
class Matrix:
    """Hold rows of entries; `is_determinant` for vertical bars."""

    rows: tuple[tuple["Answer", ...], ...]
    is_determinant: bool


@dataclass(frozen=True)
class Relation:
    """Hold a chain such as a < b <= c: n sides and n - 1 operators."""

    sides: tuple[Node, ...]
    operators: tuple[str, ...]
    text: str


Answer = Words | Formula | InBase | Sequence | Union | Matrix | Relation


@dataclass(frozen=True)
class Parsed:
    """Hold an answer with what was set apart from it.

    `measured` reads 10 m as ten metres, where the answer itself is the product of 10 and m.
    """

    answer: Answer
    cleaned: Cleaned = field(default_factory=lambda: Cleaned(""))
    measured: "Parsed | None" = None

    @property
    def is_number(self) -> bool:
        """Say whether the answer is a formula without symbols."""
        return isinstance(self.answer, Formula) and not symbols_of(self.answer.node)
