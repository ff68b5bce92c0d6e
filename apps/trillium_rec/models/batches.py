"""Batches of item sequences for next-item training: like lengths together, padded at the end."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trillium_rec.splits import Sequences

# Users are shuffled, cut into pools of this many batches, and sorted by length within each.
_BATCHES_PER_POOL = 16


@dataclass(frozen=True)
class SequenceBatch:
    """Hold histories and, at every place, the item that came next; -1 is padding."""

    items: Int[Tensor, "user place"]
    targets: Int[Tensor, "user place"]

    def to(self, device: torch.device) -> "SequenceBatch":
        """Return the same batch on `device`."""
        return SequenceBatch(self.items.to(device), self.targets.to(device))

    @property
    def n_targets(self) -> int:
        """Count the items to predict."""
        return int(self.is_target.sum())

    @property
    def is_target(self) -> Bool[Tensor, "user place"]:
        """Return the places whose next item is known."""
        return self.targets >= 0


@dataclass(frozen=True)
class SessionBatch:
    """Hold histories and the sessions that followed them, both padded with -1 at the end."""

    history: Int[Tensor, "user item"]
    session: Int[Tensor, "user place"]

    def to(self, device: torch.device) -> "SessionBatch":
        """Return the same batch on `device`."""
        return SessionBatch(self.history.to(device), self.session.to(device))

    @property
    def n_targets(self) -> int:
        """Count the items to predict."""
        return int((self.session >= 0).sum())


def pad(sequences: Sequences, max_items: int) -> Int[Tensor, "user place"]:
    """Return the last items of every sequence, oldest first, -1 after the end; one place at least.

    Where the longest sequence is short, so is the result.
    """
    longest = int(np.diff(sequences.starts).max(initial=1))
    width = max(1, min(longest, max_items))
    last = torch.from_numpy(sequences.last(width))
    n_missing = (last < 0).sum(dim=1, keepdim=True)
    place = torch.arange(width) + n_missing
    moved = last.gather(1, place.clamp(max=width - 1))
    return moved.masked_fill(place >= width, -1)


def next_item_batches(
    sequences: Sequences, *, batch_size: int, max_items: int, seed: int
) -> list[SequenceBatch]:
    """Return one epoch: every sequence with two items once, in an order drawn from `seed`."""
    random = np.random.default_rng(seed)
    sizes = np.diff(sequences.starts)
    order = random.permutation(np.flatnonzero(sizes >= 2))
    rows = []
    for begin in range(0, len(order), batch_size * _BATCHES_PER_POOL):
        pool = order[begin : begin + batch_size * _BATCHES_PER_POOL]
        pool = pool[np.argsort(sizes[pool], kind="stable")]
        rows += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return [
        next_item_batch(sequences.take(rows[number].astype(np.int64)), max_items)
        for number in random.permutation(len(rows)).tolist()
    ]


def session_batches(
    histories: Sequences, sessions: Sequences, *, batch_size: int, max_items: int, seed: int
) -> list[SessionBatch]:
    """Return one epoch of sessions with their histories, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(histories.n_sequences)
    longest = int(np.diff(sessions.starts).max(initial=1))
    return [
        SessionBatch(pad(histories.take(rows), max_items), pad(sessions.take(rows), longest))
        for rows in np.split(order, range(batch_size, len(order), batch_size))
    ]


def next_item_batch(sequences: Sequences, max_items: int) -> SequenceBatch:
    """Return the inputs and targets of some sequences, at most `max_items` places each."""
    padded = pad(sequences, max_items + 1)
    if padded.shape[1] == 1:
        padded = torch.cat([padded, torch.full_like(padded, -1)], dim=1)
    items, targets = padded[:, :-1], padded[:, 1:]
    return SequenceBatch(items.masked_fill(targets < 0, -1), targets)


def keep_last(items: Int[Tensor, "row place"], max_items: int) -> Int[Tensor, "row place"]:
    """Return the last items of each row with its padding, wherever that was, at the end."""
    old_end = items.gather(1, (items >= 0).int().argsort(dim=1, stable=True))[:, -max_items:]
    return old_end.gather(1, (old_end < 0).int().argsort(dim=1, stable=True))


def embed(
    vectors: Float[Tensor, "item hidden"], items: Int[Tensor, "user place"]
) -> Float[Tensor, "user place hidden"]:
    """Return the vector of each item, and zeros for padding: an empty history is no item."""
    return vectors[items.clamp(min=0)] * (items >= 0)[..., None]


def last_places(items: Int[Tensor, "user place"]) -> Int[Tensor, " user"]:
    """Return the place of the last item of each padded row; 0 where there is none."""
    return ((items >= 0).sum(dim=1) - 1).clamp(min=0)
