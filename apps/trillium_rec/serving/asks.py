"""What a caller asks and what comes back: JSON in, checked; JSON out."""

import json
from dataclasses import dataclass

from trillium.errors import DataError

_KEYS = ("user", "history", "k")
_FORM = '{"history": ["ITEM", ...], "k": 10}, or "user" instead of "history"'
_MOST_HISTORY = 10_000


@dataclass(frozen=True)
class Ask:
    """Hold one question: a user of the log, or a history given in full, oldest first."""

    user: str | None
    history: tuple[str, ...]
    k: int


@dataclass(frozen=True)
class Answer:
    """Hold the recommended items, best first; `n_unknown` items of the history were passed over.

    Scores order the items of one answer and mean nothing beside those of another.
    """

    items: tuple[str, ...]
    titles: tuple[str, ...]
    scores: tuple[float, ...]
    n_unknown: int
    version: str
    revision: int

    def to_json(self) -> bytes:
        """Return the body of a reply."""
        rows = [
            {"item": item, "title": title, "score": round(score, 6)}
            for item, title, score in zip(self.items, self.titles, self.scores, strict=True)
        ]
        return json.dumps(
            {
                "items": rows,
                "unknown_items": self.n_unknown,
                "ids_version": self.version,
                "catalogue_revision": self.revision,
            }
        ).encode()


def read_ask(body: bytes, *, most_items: int) -> Ask:
    """Read the body of a question; raises DataError with one sentence for what is wrong with it."""
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError(f"body: is not JSON ({error}); send {_FORM}") from None
    if not isinstance(entry, dict):
        raise DataError(f"body: is {_show(entry)} (needs an object); send {_FORM}")
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        raise DataError(f"body: has the key {unknown[0]!r}; known are user, history and k")
    if ("user" in entry) == ("history" in entry):
        raise DataError(f"body: needs user or history, one of the two; send {_FORM}")
    k = entry.get("k", 10)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= most_items:
        raise DataError(f"k: is {_show(k)} (needs a whole number from 1 to {most_items})")
    if "user" in entry:
        if not isinstance(entry["user"], str):
            raise DataError(f"user: is {_show(entry['user'])} (needs a text); put it in quotes")
        return Ask(entry["user"], (), k)
    return Ask(None, _read_history(entry["history"]), k)


def _read_history(entry: object) -> tuple[str, ...]:
    if not isinstance(entry, list):
        raise DataError(f"history: is {_show(entry)} (needs a list of item ids, oldest first)")
    if len(entry) > _MOST_HISTORY:
        raise DataError(f"history: holds {len(entry)} items (at most {_MOST_HISTORY}); send fewer")
    for item in entry:
        if not isinstance(item, str):
            raise DataError(f"history: holds {_show(item)} (needs item ids as texts)")
    return tuple(entry)


def _show(value: object) -> str:
    return json.dumps(value)[:60]
