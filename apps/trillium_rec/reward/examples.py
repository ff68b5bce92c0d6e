"""What a reward model learns from: lists that were shown, what came before, what users did.

Every logged list is an example, good or bad; OneRec's supervised model sees good ones only. A list
counts when it ended before its user's deadline, so that nothing judged later is learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from trillium.errors import ConfigError, DataError

from trillium_rec.dataset import Dataset, Events
from trillium_rec.reward.config import HeadConfig
from trillium_rec.sessions import SessionConfig, Sessions, split_sessions
from trillium_rec.splits import Sequences, pack

Ints = NDArray[np.int64]
Labels = NDArray[np.float32]


@dataclass(frozen=True)
class RewardExamples:
    """Hold one row per shown list.

    `users` are names, `lists` the items in order with -1 after the end, and `labels` say for every
    item and head whether it happened. `n_without_history` lists were left out: nothing was known
    of their user.
    """

    users: tuple[str, ...]
    histories: Sequences
    lists: Ints
    labels: Labels
    n_without_history: int = 0

    @property
    def n_examples(self) -> int:
        """Count the lists."""
        return len(self.lists)

    def take(self, rows: Ints) -> "RewardExamples":
        """Return some of the rows."""
        users = tuple(self.users[row] for row in rows.tolist())
        return RewardExamples(users, self.histories.take(rows), self.lists[rows], self.labels[rows])


def reward_examples(
    log: Dataset,
    positive: Dataset,
    sessions: SessionConfig,
    heads: Sequence[HeadConfig],
    *,
    n_places: int,
    deadlines: Mapping[str, float],
) -> RewardExamples:
    """Return the first `n_places` items of every list of the users that have a deadline.

    `positive` holds the positive events of `log`: histories are made of those before the list.
    Raises ConfigError for a log without times, DataError for a head whose column is unknown or
    constant, or that all or none of the events have, and when no list is left.
    """
    found = _lists(log, sessions)
    labels = read_labels(found.events, heads)
    times = found.events.timestamp
    assert times is not None
    offsets, row_of = positive.offsets(), {name: row for row, name in enumerate(positive.users)}
    users, histories, lists, rows, n_without = [], [], [], [], 0
    for session in range(found.n_sessions):
        name = log.users[found.user[session]]
        events = slice(found.starts[session], found.starts[session + 1])
        if name not in deadlines or times[events].max() >= deadlines[name]:
            continue
        before = _before(positive, offsets, row_of.get(name), float(times[events].min()))
        if len(before) == 0:
            n_without += 1
            continue
        users.append(name)
        histories.append(before)
        lists.append(found.events.item[events][:n_places])
        rows.append(labels[events][:n_places])
    if not lists:
        raise DataError(
            f"reward: none of {found.n_sessions} lists has a positive event before it and ends in "
            "time (at least one must); give a longer log"
        )
    return RewardExamples(
        tuple(users),
        pack(histories),
        _pad(lists, n_places),
        np.stack([_pad_labels(each, n_places) for each in rows]),
        n_without,
    )


def check_log(log: Dataset, sessions: SessionConfig, heads: Sequence[HeadConfig]) -> None:
    """Raise what `reward_examples` would for a log without times, requests or usable feedback."""
    read_labels(_lists(log, sessions).events, heads)


def read_labels(events: Events, heads: Sequence[HeadConfig]) -> Labels:
    """Return for every event and head whether it happened; raises DataError for a constant one."""
    columns = []
    for head in heads:
        values = events.feedback_column(head.column)
        least = float(np.median(values)) if head.at_least is None else head.at_least
        happened = values >= least
        if head.at_least is None and happened.all():
            # More than half of the values are the smallest one.
            happened = values > least
        share = float(happened.mean())
        if share in (0.0, 1.0):
            which = "all" if share else "none"
            raise DataError(
                f"reward.heads: {head.column} is at least {least:g} in {which} of "
                f"{events.n_events} events (a reward needs both); choose another `at_least`, or "
                "leave the head out"
            )
        columns.append(happened)
    return np.stack(columns, axis=1).astype(np.float32)


def _lists(log: Dataset, sessions: SessionConfig) -> Sessions:
    """Return all lists: every one teaches, so no rule of quality applies."""
    if log.events.timestamp is None:
        raise ConfigError(
            "reward: the log has no timestamps (needed to tell what came before a list); name "
            "their column, or leave reward out"
        )
    return split_sessions(log.events, sessions.model_copy(update={"rules": ()}))


def _before(positive: Dataset, offsets: Ints, row: int | None, begin: float) -> Ints:
    if row is None:
        return np.zeros(0, np.int64)
    own = slice(offsets[row], offsets[row + 1])
    assert positive.events.timestamp is not None
    return positive.events.item[own][positive.events.timestamp[own] < begin]


def _pad(lists: Sequence[Ints], n_places: int) -> Ints:
    padded = np.full((len(lists), n_places), -1, np.int64)
    for row, items in enumerate(lists):
        padded[row, : len(items)] = items
    return padded


def _pad_labels(labels: Labels, n_places: int) -> Labels:
    return np.pad(labels, ((0, n_places - len(labels)), (0, 0)))
