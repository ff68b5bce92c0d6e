"""Residual k-means with balanced levels, and a last level that gives every item a code of its own.

Level l has a codebook; an item takes one of its codes, and the next level sees what is left of the
vector: r[l+1] = r[l] - codebook[l][code] (arXiv 2502.18965, Section 3.1). Balance holds for the
items that were fitted; items added later take what is free (`semantic_ids`).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from trillium.errors import ConfigError

from trillium_rec.balance import auction, even_capacities, greedy, propose

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Method = Literal["auction", "greedy"]

_MOST_SWEEPS = 20
# Beyond this many costs at once, faiss finds the nearest centroids instead.
_MOST_COSTS = 100_000_000
_N_CANDIDATES = 32
# Of the mean cost: the auction may be this far from the least total cost.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Quantised:
    """Hold the codebooks, the codes of every item, and the mean squared error after each level."""

    codebooks: tuple[NDArray[np.float32], ...]
    codes: Ints
    errors: tuple[float, ...]


@dataclass(frozen=True)
class _Level:
    codebook: Floats
    codes: Ints


def fit_codes(
    vectors: NDArray[np.float32],
    *,
    n_levels: int,
    codebook_size: int,
    method: Method = "auction",
    seed: int = 0,
) -> Quantised:
    """Fit all levels; no two items get the same codes.

    Raises ConfigError when there are fewer items than codes of a level, or more items than tuples.
    """
    _check_room(len(vectors), n_levels, codebook_size)
    residual = vectors.astype(np.float64)
    levels: list[_Level] = []
    errors = []
    for number in range(n_levels):
        level = fit_level(residual, codebook_size, method=method, seed=seed + number)
        if number == n_levels - 2:
            above = [previous.codes for previous in levels]
            level = _Level(level.codebook, make_room(residual, level.codebook, level.codes, above))
        if number == n_levels - 1 and levels:
            prefixes = np.stack([previous.codes for previous in levels], axis=1)
            level = _Level(level.codebook, tell_apart(residual, level.codebook, prefixes))
        levels.append(level)
        residual = residual - level.codebook[level.codes]
        errors.append(float(np.square(residual).sum(axis=1).mean()))
    return Quantised(
        tuple(level.codebook.astype(np.float32) for level in levels),
        np.stack([level.codes for level in levels], axis=1),
        tuple(errors),
    )


def fit_level(vectors: Floats, size: int, *, method: Method, seed: int) -> _Level:
    """Alternate balanced assignment and means until no item changes its cluster."""
    random = np.random.default_rng(seed)
    if len(vectors) * size > _MOST_COSTS:
        return fit_level_by_faiss(vectors, size, seed)
    centroids = vectors[random.choice(len(vectors), size, replace=False)]
    # Ties between equal vectors would make clusters of equal price; a breath of noise parts them.
    centroids = centroids + random.normal(0, 1e-6 * (vectors.std() + 1e-12), centroids.shape)
    prices = np.zeros(size)
    codes = np.full(len(vectors), -1)
    for _ in range(_MOST_SWEEPS):
        costs = squared_distances(vectors, centroids)
        demand = np.bincount(costs.argmin(axis=1), minlength=size)
        capacities = even_capacities(demand, len(vectors))
        before = codes
        if method == "greedy":
            order = random.permutation(size)
            codes = order[greedy(costs[:, order], capacities[order])]
        else:
            epsilon = _TOLERANCE * float(costs.min(axis=1).mean()) + 1e-12
            codes = auction(costs, capacities, epsilon=epsilon, prices=prices)
            prices -= prices.min()
        centroids = _means(vectors, codes, size)
        if (codes == before).all():
            break
    return _Level(centroids, codes.astype(np.int64))


def fit_level_by_faiss(vectors: Floats, size: int, seed: int) -> _Level:
    """Let faiss find the centroids, then assign from the nearest few of each item.

    Items that all their candidates refuse go to the nearest cluster that has room left.
    """
    import faiss

    points = np.ascontiguousarray(vectors, np.float32)
    # With as many codes as the paper has there are fewer points per code than faiss thinks wise.
    options = {"niter": _MOST_SWEEPS, "seed": seed + 1, "min_points_per_centroid": 1}
    kmeans = faiss.Kmeans(points.shape[1], size, verbose=False, **options)
    kmeans.train(points)
    costs, candidates = kmeans.index.search(points, min(_N_CANDIDATES, size))
    demand = np.bincount(candidates[:, 0], minlength=size)
    capacities = even_capacities(demand, len(points))
    codes = propose(candidates.astype(np.int64), costs.astype(np.float64), capacities)
    centroids = np.asarray(kmeans.centroids, np.float64)
    left = np.flatnonzero(codes < 0)
    room = capacities - np.bincount(codes[codes >= 0], minlength=size)
    for row in left.tolist():
        free = np.flatnonzero(room > 0)
        nearest = free[squared_distances(vectors[[row]], centroids[free])[0].argmin()]
        codes[row] = nearest
        room[nearest] -= 1
    return _Level(_means(vectors, codes, size), codes)


def tell_apart(residual: Floats, codebook: Floats, prefixes: Ints) -> Ints:
    """Give the items that share a prefix different last codes, at the least total cost."""
    from scipy.optimize import linear_sum_assignment

    codes = np.full(len(residual), -1)
    _, group = np.unique(prefixes, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(group.reshape(-1)))
    squares = np.square(codebook).sum(axis=1)  # most groups of large codebooks hold one item
    for rows in np.split(order, ends[:-1]):
        costs = squared_distances(residual[rows], codebook, squares)
        if len(rows) == 1:
            codes[rows] = costs.argmin(axis=1)
        else:
            codes[rows] = linear_sum_assignment(costs)[1]
    return codes.astype(np.int64)


def make_room(residual: Floats, codebook: Floats, codes: Ints, above: list[Ints]) -> Ints:
    """Move items out of prefixes that hold more items than the last level has codes.

    The items farthest from their centroid go to the nearest code that has room under the same
    prefix. With balanced levels this is rare: it needs more items under one prefix than codes.
    """
    size = len(codebook)
    prefixes = list(zip(*(level.tolist() for level in above), strict=True)) or [()] * len(codes)
    groups = Counter(zip(prefixes, codes.tolist(), strict=True))
    if max(groups.values()) <= size:
        return codes
    moved = codes.copy()
    own = np.square(residual - codebook[codes]).sum(axis=1)
    for row in np.argsort(-own, kind="stable").tolist():
        prefix, code = prefixes[row], int(moved[row])
        if groups[prefix, code] <= size:
            continue
        costs = squared_distances(residual[[row]], codebook)[0]
        places = [other for other in np.argsort(costs).tolist() if groups[prefix, other] < size]
        if not places:
            raise ConfigError(
                f"ids: more than {size * size} items share the first codes {prefix}, and two "
                f"levels of {size} codes cannot tell them apart; raise ids.n_levels or "
                "ids.codebook_size"
            )
        groups[prefix, code] -= 1
        groups[prefix, places[0]] += 1
        moved[row] = places[0]
    return moved


def squared_distances(points: Floats, centres: Floats, squares: Floats | None = None) -> Floats:
    """Return the squared distances of points to centres; `squares` are the centres' own."""
    squares = np.square(centres).sum(axis=1) if squares is None else squares
    both = np.square(points).sum(axis=1)[:, None] + squares
    return np.asarray(np.maximum(both - 2 * points @ centres.T, 0), np.float64)


def _check_room(n_items: int, n_levels: int, codebook_size: int) -> None:
    if n_items < codebook_size:
        raise ConfigError(
            f"ids.codebook_size = {codebook_size}: there are {n_items} items (at least as many as "
            "codes are needed); lower it"
        )
    if n_items > codebook_size**n_levels:
        raise ConfigError(
            f"ids: {n_items} items, and {n_levels} levels of {codebook_size} codes tell only "
            f"{codebook_size**n_levels} apart; raise ids.n_levels or ids.codebook_size"
        )


def _means(vectors: Floats, codes: Ints, size: int) -> Floats:
    sums = np.zeros((size, vectors.shape[1]))
    np.add.at(sums, codes, vectors)
    return np.asarray(sums / np.maximum(np.bincount(codes, minlength=size), 1)[:, None], np.float64)
