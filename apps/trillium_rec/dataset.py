"""The one in-memory form of interactions: a catalogue, users, and events in time order.

Loaders give a `RawLog`; `build_dataset` checks it, orders it and counts what it leaves out. Indices
of users and items are rows of `users` and `catalogue.ids`, in the order of first appearance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from trillium.errors import DataError

MOST_PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class Catalogue:
    """Hold the items: their ids, titles and texts where known, and content vectors where given."""

    ids: tuple[str, ...]
    titles: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: NDArray[np.float32] | None = None

    @property
    def n_items(self) -> int:
        """Count the items."""
        return len(self.ids)


@dataclass(frozen=True)
class Events:
    """Hold one row per event, ordered by user, then time, then place in the source.

    `timestamp` is in seconds, None where the source only has an order. `request` numbers the list
    that an event belonged to. `feedback` holds one value per event and column.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    timestamp: NDArray[np.float64] | None = None
    request: NDArray[np.int64] | None = None
    feedback: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def n_events(self) -> int:
        """Count the events."""
        return len(self.user)

    def take(self, rows: NDArray[np.int64]) -> "Events":
        """Return the events at `rows`, in that order."""
        return Events(
            user=self.user[rows],
            item=self.item[rows],
            timestamp=None if self.timestamp is None else self.timestamp[rows],
            request=None if self.request is None else self.request[rows],
            feedback={name: values[rows] for name, values in self.feedback.items()},
        )

    def feedback_column(self, name: str) -> NDArray[np.float32]:
        """Return a feedback column that can be learned from or filtered by.

        Raises DataError when there is none of that name or when all its values are equal.
        """
        values = self.feedback.get(name)
        if values is None:
            known = ", ".join(self.feedback) or "none"
            raise DataError(f"feedback {name}: is no column of the log (there is: {known})")
        if self.n_events and values.min() == values.max():
            raise DataError(
                f"feedback {name}: is {values[0]:g} in all {self.n_events} events (nothing is "
                "learned or chosen by a column of one value); leave it out of data.positive, "
                "sessions.rules and reward.heads, or give a log in which it varies"
            )
        return values


@dataclass(frozen=True)
class Dataset:
    """Hold users, catalogue and events; `counts` says what was left out or put in order."""

    users: tuple[str, ...]
    catalogue: Catalogue
    events: Events
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_users(self) -> int:
        """Count the users."""
        return len(self.users)

    def offsets(self) -> NDArray[np.int64]:
        """Return where the events of each user begin, and at the end their number."""
        return np.searchsorted(self.events.user, np.arange(self.n_users + 1)).astype(np.int64)


@dataclass(frozen=True)
class RawLog:
    """Hold a log as it was read: one entry per event; `line` is where it stands in the source."""

    where: str
    user: Sequence[str]
    item: Sequence[str]
    line: Sequence[int]
    timestamp: Sequence[float] | None = None
    request: Sequence[str] | None = None
    feedback: Mapping[str, Sequence[float]] = field(default_factory=dict)


def build_dataset(raw: RawLog, catalogue: Catalogue | None = None) -> Dataset:
    """Check, order and index a log.

    Left out and counted: duplicate events (same user, item, time and request; without times the
    same item twice in succession) and users with one event, who have nothing to predict. Counted:
    users whose events were not in time order, items without events, items without text.
    Raises DataError for an empty log, for events that name no user or item, and for ids that
    differ in white space only.
    """
    if len(raw.user) == 0:
        raise DataError(f"{raw.where}: holds no event (needs at least two of one user)")
    known = list(catalogue.ids) if catalogue is not None else []
    _check_ids(raw, known)
    user_names, user = _index(raw.user, [])
    item_names, item = _index(raw.item, known)
    request = None if raw.request is None else _index(raw.request, [])[1]
    timestamp = None if raw.timestamp is None else np.asarray(raw.timestamp, np.float64)
    events = Events(
        user, item, timestamp, request, {k: _floats(v) for k, v in raw.feedback.items()}
    )
    events, counts = _order(events)
    events, n_duplicates = _without_duplicates(events)
    events, users, n_single = _without_singles(events, user_names)
    if events.n_events == 0:
        raise DataError(
            f"{raw.where}: every user has one event only (two are needed, one to predict the "
            "other); give a longer log"
        )
    items = _complete(catalogue, item_names)
    n_seen = len(np.unique(events.item))
    counts |= {
        "duplicate_events": n_duplicates,
        "users_with_one_event": n_single,
        "items_without_events": items.n_items - n_seen,
        "items_without_text": sum(not text for text in items.texts) if catalogue else 0,
    }
    return Dataset(users, items, events, counts)


def keep_events(dataset: Dataset, keep: NDArray[np.bool_], *, name: str) -> Dataset:
    """Return the data set with the events where `keep` holds; users left with one event go too."""
    rows = np.flatnonzero(keep)
    events, users, n_single = _without_singles(dataset.events.take(rows), list(dataset.users))
    if events.n_events == 0:
        raise DataError(
            f"{name}: no user has two events that pass (of {len(keep)} events {len(rows)} pass); "
            "lower the threshold"
        )
    counts = {**dataset.counts, f"events_without_{name}": int(len(keep) - len(rows))}
    counts[f"users_without_{name}"] = n_single
    return replace(dataset, users=users, events=events, counts=counts)


def show_problems(problems: Sequence[str]) -> str:
    """Join the first problems of a file, and say how many more there are."""
    hidden = len(problems) - MOST_PROBLEMS_SHOWN
    more = [f"... and {hidden} more"] if hidden > 0 else []
    return "\n".join([*problems[:MOST_PROBLEMS_SHOWN], *more])


def _check_ids(raw: RawLog, known: Sequence[str]) -> None:
    """Refuse ids that differ in white space only, from one another or from a `known` item's."""
    problems = []
    for kind, names in (("user", raw.user), ("item", raw.item)):
        spelling = {name.strip(): name for name in known} if kind == "item" else {}
        lines: dict[str, int] = {}
        for name, line in zip(names, raw.line, strict=True):
            if name not in lines:
                lines[name] = line
                bare = name.strip()
                other = spelling.setdefault(bare, name)
                if not bare:
                    problems.append(f"{raw.where}:{line}: names no {kind}; fill it or drop it")
                elif other != name:
                    place = f"line {lines[other]}" if other in lines else "of the catalogue"
                    problems.append(
                        f"{raw.where}:{line}: {kind} {name!r} and {kind} {other!r} ({place}) "
                        "differ in white space only; give them one spelling"
                    )
    if problems:
        raise DataError(show_problems(problems))


def _index(names: Sequence[str], known: list[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Number the names in order of first appearance, after those already known."""
    numbers = {name: number for number, name in enumerate(known)}
    index = np.fromiter(
        (numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names)
    )
    return list(numbers), index


def _floats(values: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _order(events: Events) -> tuple[Events, dict[str, int]]:
    order = np.argsort(events.user, kind="stable")
    n_unordered = 0
    if events.timestamp is not None:
        time, user = events.timestamp[order], events.user[order]
        backwards = (np.diff(time) < 0) & (np.diff(user) == 0)
        n_unordered = len(np.unique(user[1:][backwards]))
        order = np.lexsort((events.timestamp, events.user))
    return events.take(order.astype(np.int64)), {"users_put_in_time_order": n_unordered}


def _without_duplicates(events: Events) -> tuple[Events, int]:
    columns = [events.user, events.item]
    if events.timestamp is None:
        repeats = np.zeros(events.n_events, np.bool_)
        repeats[1:] = (np.diff(events.user) == 0) & (np.diff(events.item) == 0)
    else:
        columns.append(np.unique(events.timestamp, return_inverse=True)[1])
        if events.request is not None:
            columns.append(events.request)
        _, first = np.unique(np.stack(columns, axis=1), axis=0, return_index=True)
        repeats = np.ones(events.n_events, np.bool_)
        repeats[first] = False
    return events.take(np.flatnonzero(~repeats)), int(repeats.sum())


def _without_singles(events: Events, names: Sequence[str]) -> tuple[Events, tuple[str, ...], int]:
    counts = np.bincount(events.user, minlength=len(names))
    stays = counts >= 2
    number = np.cumsum(stays) - 1
    rows = np.flatnonzero(stays[events.user])
    kept = events.take(rows)
    kept = replace(kept, user=number[kept.user].astype(np.int64))
    users = tuple(name for name, stay in zip(names, stays.tolist(), strict=True) if stay)
    return kept, users, len(names) - len(users)


def _complete(catalogue: Catalogue | None, names: Sequence[str]) -> Catalogue:
    """Return the catalogue with the items that only the log names, as items without text."""
    if catalogue is None:
        return Catalogue(tuple(names), tuple(names), ("",) * len(names))
    new = tuple(names[catalogue.n_items :])
    if new and catalogue.vectors is not None:
        raise DataError(
            f"item {new[0]}: is in the log and has no content vector ({len(new)} such items); "
            "give every item a vector"
        )
    return Catalogue(
        catalogue.ids + new,
        catalogue.titles + new,
        catalogue.texts + ("",) * len(new),
        catalogue.vectors,
    )
