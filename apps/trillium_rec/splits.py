"""Leave-one-out: the last event of a user is the test, the last but one the validation.

Users with fewer than three events are trained on and not judged; their number is counted. What a
model may learn from is `train`; statistics of any kind come from there only.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from trillium.errors import DataError

from trillium_rec.dataset import Dataset

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """Hold item sequences of different length: sequence s is items[starts[s]:starts[s + 1]]."""

    items: Ints
    starts: Ints

    @property
    def n_sequences(self) -> int:
        """Count the sequences."""
        return len(self.starts) - 1

    def of(self, index: int) -> Ints:
        """Return one sequence."""
        return self.items[self.starts[index] : self.starts[index + 1]]

    def take(self, indices: Ints) -> "Sequences":
        """Return some of the sequences."""
        return pack([self.of(index) for index in indices.tolist()])

    def last(self, n_items: int) -> Ints:
        """Return the last items of every sequence, oldest first, -1 before the first."""
        back = np.arange(n_items, 0, -1)
        place = self.starts[1:, None] - back
        inside = place >= self.starts[:-1, None]
        items = np.append(self.items, -1)  # so that there is something to index without events
        return np.asarray(np.where(inside, items[np.maximum(place, 0)], -1), np.int64)


@dataclass(frozen=True)
class Judged:
    """Hold what is predicted: of each user the history, and the item that followed it."""

    user: Ints
    histories: Sequences
    target: Ints

    @property
    def n_repeats(self) -> int:
        """Count the targets that their user has taken before; no list may hold those."""
        owner = np.repeat(np.arange(len(self.target)), np.diff(self.histories.starts))
        return len(np.unique(owner[self.histories.items == self.target[owner]]))


@dataclass(frozen=True)
class LeaveOneOut:
    """Hold the training sequences and the two sets of targets; all of them by row of the users."""

    train: Sequences
    valid: Judged
    test: Judged
    n_items: int
    n_users_not_judged: int

    def part(self, name: Literal["valid", "test"]) -> Judged:
        """Return one of the two sets of targets."""
        return self.valid if name == "valid" else self.test

    def popularity(self) -> Ints:
        """Count the training events of every item."""
        return np.bincount(self.train.items, minlength=self.n_items).astype(np.int64)


def leave_one_out(dataset: Dataset) -> LeaveOneOut:
    """Split every user's events by place; raises DataError when nobody has three events."""
    starts, items = dataset.offsets(), dataset.events.item
    sequences = [items[starts[u] : starts[u + 1]] for u in range(dataset.n_users)]
    judged = [user for user, sequence in enumerate(sequences) if len(sequence) >= 3]
    if not judged:
        raise DataError(
            f"split: none of {dataset.n_users} users has three events (one to train on, one to "
            "validate, one to test); give a longer log, or a milder positive rule"
        )
    is_judged = np.zeros(dataset.n_users, np.bool_)
    is_judged[judged] = True
    train = [s[:-2] if is_judged[u] else s for u, s in enumerate(sequences)]
    chosen = [sequences[user] for user in judged]
    users = np.array(judged, np.int64)
    return LeaveOneOut(
        train=pack(train),
        valid=Judged(users, pack([s[:-2] for s in chosen]), _pick(chosen, -2)),
        test=Judged(users, pack([s[:-1] for s in chosen]), _pick(chosen, -1)),
        n_items=dataset.catalogue.n_items,
        n_users_not_judged=dataset.n_users - len(judged),
    )


def pack(sequences: list[Ints]) -> Sequences:
    """Put sequences of different length behind one another."""
    sizes = np.array([len(sequence) for sequence in sequences], np.int64)
    starts = np.concatenate([[0], sizes.cumsum()]).astype(np.int64)
    items = np.concatenate(sequences) if sequences else np.zeros(0, np.int64)
    return Sequences(items.astype(np.int64), starts)


def _pick(sequences: list[Ints], place: int) -> Ints:
    return np.array([sequence[place] for sequence in sequences], np.int64)
