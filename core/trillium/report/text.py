"""Hostile text made harmless to look at, values made readable.

A model may write control characters, characters that reverse the reading direction, or megabytes.
HTML escaping is the template's; this is about what escaping lets through.
"""

import difflib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from trillium.evaluation.intervals import Interval
from trillium.report.content import Cell

_MAX_CHARACTERS = 20_000
# Thousands of equal lines would take minutes to align, and nobody reads them side by side.
_MAX_COMPARED = 100_000


def show_invisible(text: str) -> str:
    """Return `text` with control, direction and surrogate characters spelled out, and cut."""
    shown = "".join(_spell(character) for character in text[:_MAX_CHARACTERS])
    n_cut = len(text) - _MAX_CHARACTERS
    return f"{shown}\n[{n_cut:,} more characters are not shown]" if n_cut > 0 else shown


def mark_changed_lines(left: str, right: str) -> tuple[list[tuple[str, bool]], ...]:
    """Return the lines of both texts, each with whether the other text lacks it."""
    left_lines, right_lines = left.split("\n"), right.split("\n")
    if len(left_lines) * len(right_lines) > _MAX_COMPARED:
        return [(line, False) for line in left_lines], [(line, False) for line in right_lines]
    matcher = difflib.SequenceMatcher(None, left_lines, right_lines, autojunk=False)
    left_same: set[int] = set()
    right_same: set[int] = set()
    for block in matcher.get_matching_blocks():
        left_same.update(range(block.a, block.a + block.size))
        right_same.update(range(block.b, block.b + block.size))
    return (
        [(line, place not in left_same) for place, line in enumerate(left_lines)],
        [(line, place not in right_same) for place, line in enumerate(right_lines)],
    )


def format_cell(cell: Cell) -> str:
    """Return a cell as text: four significant digits, thousands apart, n/a for nothing."""
    if cell is None:
        return "n/a"
    if isinstance(cell, Interval):
        return f"{cell.mean:.3f}"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.4g}" if abs(cell) < 10_000 else f"{cell:,.0f}"
    return show_invisible(cell)


def format_bounds(cell: Cell) -> str:
    """Return the bounds of an interval; nothing for other cells."""
    return f"{cell.low:.3f} to {cell.high:.3f}" if isinstance(cell, Interval) else ""


def flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys with their values as text, in order."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{prefix}{key}", show_invisible(", ".join(map(str, value)) or "none")
        else:
            yield f"{prefix}{key}", show_invisible("n/a" if value is None else str(value))


def _spell(character: str) -> str:
    if character in "\n\t":
        return character
    # Cc control, Cf format (direction overrides, zero-width), Cs surrogates, Zl and Zp separators
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character
