"""Problems of rows: where each row stands, and one sentence for what many rows have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

_MAX_ENTRIES = 5


@dataclass(frozen=True)
class Place:
    """Name a row by what holds it (`pairs.jsonl:`, or `row ` for a row without a file) and entry.

    >>> str(Place("pairs.jsonl:", "17"))
    'pairs.jsonl:17'
    """

    holder: str
    entry: str

    def __str__(self) -> str:
        """Return holder and entry, as messages begin."""
        return self.holder + self.entry


@dataclass(frozen=True)
class Problem:
    """Hold what is wrong with a row; a problem of the whole file has no place."""

    place: Place | None
    what: str


def describe_problems(problems: Sequence[Problem], *, max_shown: int) -> str:
    """Return one line per kind of problem, in the order they were found, with its rows.

    A mistake made throughout a file is one sentence: `pairs.jsonl:1, 2, 3, 4, 5 and 95 more: ...`.
    """
    entries: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        holder = problem.place.holder if problem.place else ""
        found = entries.setdefault((holder, problem.what), [])
        if problem.place:
            found.append(problem.place.entry)
    lines = [_sentence(holder, found, what) for (holder, what), found in entries.items()]
    hidden = len(lines) - max_shown
    rest = [f"... and {hidden} more problem{'s' if hidden > 1 else ''}"] if hidden > 0 else []
    return "\n".join(lines[:max_shown] + rest)


def _sentence(holder: str, entries: Sequence[str], what: str) -> str:
    if not entries:
        return what
    shown = ", ".join(entries[:_MAX_ENTRIES])
    rest = len(entries) - _MAX_ENTRIES
    return f"{holder}{shown}{f' and {rest:,} more' if rest > 0 else ''}: {what}"
