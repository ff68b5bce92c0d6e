"""What lists are worth: hits, order, and what recommendations do to a catalogue.

Everything is about items, never about their codes. Pure functions of arrays.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def ranks_of(lists: Ints, targets: Ints) -> Ints:
    """Return the place of each target in its list, from 1; 0 when it is not there."""
    hits = lists == targets[:, None]
    return np.asarray(np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0), np.int64)


def recall(ranks: Ints, k: int) -> Floats:
    """Return 1 for each user whose target is among the first k, else 0 (one target per user)."""
    return ((ranks > 0) & (ranks <= k)).astype(np.float64)


def ndcg(ranks: Ints, k: int) -> Floats:
    """Return 1 / log2(1 + rank) for targets among the first k, else 0; the ideal is 1."""
    return np.asarray(recall(ranks, k) / np.log2(np.maximum(ranks, 1) + 1), np.float64)


def are_valid(lists: Ints, seen: NDArray[np.bool_], is_eligible: NDArray[np.bool_]) -> Floats:
    """Return for each user the share of listed items that may be there; 1 for an empty list.

    Valid is an item of the catalogue that is eligible, not in the history, and not higher up. A
    place that is -1 lists nothing: where few items are left, a short list is right.
    """
    inside = (lists >= 0) & (lists < len(is_eligible))
    items = np.where(inside, lists, 0)
    rows = np.arange(len(lists))[:, None]
    order = np.argsort(lists, axis=1, kind="stable")
    ordered = np.take_along_axis(lists, order, 1)
    repeats = np.zeros_like(inside)
    np.put_along_axis(repeats[:, :], order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    good = inside & is_eligible[items] & ~seen[rows, items] & ~repeats
    n_listed = (lists >= 0).sum(axis=1)
    return np.asarray(np.where(n_listed, good.sum(axis=1) / np.maximum(n_listed, 1), 1.0))


def exposure(lists: Ints, n_items: int) -> Floats:
    """Count how often each item is recommended."""
    shown = lists[lists >= 0]
    return np.bincount(shown, minlength=n_items).astype(np.float64)


def novelty(lists: Ints, popularity: Ints) -> Floats:
    """Return the mean surprise of each list in bits: -log2 of the items' smoothed popularity."""
    shares = (popularity + 1) / (popularity.sum() + len(popularity))
    surprise = -np.log2(shares)[np.maximum(lists, 0)]
    there = lists >= 0
    return np.asarray((surprise * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1), np.float64)


def diversity(lists: Ints, vectors: NDArray[np.float32]) -> Floats:
    """Return 1 minus the mean cosine of each pair of a list; lists of one item give 0."""
    there = (lists >= 0)[:, :, None]
    chosen = vectors[np.maximum(lists, 0)].astype(np.float64)
    norms = np.linalg.norm(chosen, axis=2, keepdims=True)
    unit = np.divide(chosen, norms, out=np.zeros_like(chosen), where=norms > 0) * there
    # The sum over ordered pairs of a set of vectors is |sum|^2 minus the squares.
    pairs = np.square(unit.sum(axis=1)).sum(axis=1) - np.square(unit).sum(axis=(1, 2))
    n_there = there.sum(axis=(1, 2))
    n_pairs = np.maximum(n_there * (n_there - 1), 1)
    return np.asarray(np.where(n_there > 1, 1 - pairs / n_pairs, 0.0), np.float64)


def popularity_deciles(popularity: Ints) -> Ints:
    """Return the tenth of the catalogue an item is in, 0 the least popular; -1 without events.

    Tenths of the items that have training events, equally large; ties in item order do not matter
    much, because the borders lie among items of equal counts.
    """
    deciles = np.full(len(popularity), -1)
    warm = np.flatnonzero(popularity > 0)
    order = warm[np.argsort(popularity[warm], kind="stable")]
    deciles[order] = np.arange(len(order)) * 10 // max(len(order), 1)
    return deciles.astype(np.int64)
