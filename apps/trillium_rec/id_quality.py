"""How good semantic ids are: use of the codes, evenness, collisions, and what prefixes say."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trillium_rec.splits import Sequences

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LevelQuality:
    """Describe one level: share of codes in use, entropy in nats, Gini of code counts, extremes."""

    n_codes: int
    usage: float
    entropy: float
    gini: float
    smallest: int
    largest: int


@dataclass(frozen=True)
class IdQuality:
    """Describe ids: every level, how many tuples differ, and how well prefixes hold together.

    `largest_collision` counts the items of the tuple that most items share; 1 is none. Alignment at
    a prefix length: how much likelier two neighbours of a sequence share the prefix than two events
    at random; 1 is chance.
    """

    levels: tuple[LevelQuality, ...]
    n_items: int
    n_distinct: int
    largest_collision: int
    largest_prefix_group: int
    alignment: Mapping[int, float]

    @property
    def n_collisions(self) -> int:
        """Count the items beyond the first of each tuple."""
        return self.n_items - self.n_distinct


def describe_ids(codes: Ints, sizes: tuple[int, ...], sequences: Sequences) -> IdQuality:
    """Measure ids on their own and against what users take in succession."""
    _, counts = np.unique(codes, axis=0, return_counts=True)
    _, groups = np.unique(codes[:, :-1], axis=0, return_counts=True)
    return IdQuality(
        levels=tuple(_describe_level(codes[:, level], size) for level, size in enumerate(sizes)),
        n_items=len(codes),
        n_distinct=len(counts),
        largest_collision=int(counts.max()),
        largest_prefix_group=int(groups.max()),
        alignment={length: _alignment(codes[:, :length], sequences) for length in (1, 2)},
    )


def gini(counts: NDArray[np.float64]) -> float:
    """Return 0 when all counts are equal, and 1 - 1/n when one has everything."""
    ordered = np.sort(counts)
    n_counts, total = len(ordered), ordered.sum()
    if total == 0:
        return 0.0
    ranks = np.arange(1, n_counts + 1)
    return float((2 * ranks - n_counts - 1) @ ordered / (n_counts * total))


def entropy(counts: NDArray[np.float64]) -> float:
    """Return the entropy of the shares, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _describe_level(codes: Ints, size: int) -> LevelQuality:
    counts = np.bincount(codes, minlength=size).astype(np.float64)
    return LevelQuality(
        n_codes=size,
        usage=float((counts > 0).mean()),
        entropy=entropy(counts),
        gini=gini(counts),
        smallest=int(counts.min()),
        largest=int(counts.max()),
    )


def _alignment(prefixes: Ints, sequences: Sequences) -> float:
    _, group = np.unique(prefixes, axis=0, return_inverse=True)
    events = group.reshape(-1)[sequences.items]
    inside = np.ones(len(events) - 1, np.bool_)
    inside[sequences.starts[1:-1][sequences.starts[1:-1] < len(events)] - 1] = False
    shares = np.bincount(events) / len(events)
    chance = float(np.square(shares).sum())
    found = (events[1:] == events[:-1])[inside]
    return float(found.mean() / chance) if len(found) else 1.0
