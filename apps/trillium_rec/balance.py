"""Assign points to clusters that have room for a fixed number of them each.

auction    minimum total cost within n * epsilon, whatever the order of points and clusters
exact      minimum total cost by the Hungarian method; for small inputs and for tests
greedy     the sweep of OneRec's balanced k-means: clusters choose one after another
propose    stable assignment from short candidate lists; for inputs too large for the others
"""

import numpy as np
from numpy.typing import NDArray
from trillium.errors import ShapeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def auction(
    costs: Floats, capacities: Ints, *, epsilon: float, prices: Floats | None = None
) -> Ints:
    """Return the cluster of every point by an auction with similar objects.

    Points without a cluster bid for the one that is best at the current prices, as high as keeps it
    best, plus epsilon; a full cluster keeps its highest bids and its price is the lowest of them
    (Bertsekas and Castanon 1989). Every cluster ends full, so any `prices` may start; they are
    updated in place. The total cost exceeds the minimum by at most n * epsilon.
    Raises ShapeError unless the capacities add up to the number of points.
    """
    _check(costs, capacities)
    prices = np.zeros(len(capacities)) if prices is None else prices
    if not capacities.all():
        has_room = np.flatnonzero(capacities)
        open_prices = prices[has_room]
        chosen = auction(
            costs[:, has_room], capacities[has_room], epsilon=epsilon, prices=open_prices
        )
        prices[has_room] = open_prices
        return np.asarray(has_room[chosen], np.int64)
    step = max(float(costs.max() - costs.min()) / 4, epsilon)
    while True:
        clusters = _one_auction(costs, capacities, prices, step)
        if step <= epsilon:
            return clusters
        step = max(step / 6, epsilon)


def exact(costs: Floats, capacities: Ints) -> Ints:
    """Return the cluster of every point with the least total cost."""
    from scipy.optimize import linear_sum_assignment

    _check(costs, capacities)
    slots = np.repeat(np.arange(len(capacities)), capacities)
    _, chosen = linear_sum_assignment(costs[:, slots])
    return np.asarray(slots[chosen], np.int64)


def greedy(costs: Floats, capacities: Ints) -> Ints:
    """Let cluster 0 take its nearest points, then cluster 1 of the rest (2502.18965, Alg. 1).

    The last clusters get what is left, so the result depends on their order.
    """
    _check(costs, capacities)
    clusters = np.full(len(costs), -1)
    for cluster, capacity in enumerate(capacities.tolist()):
        open_points = np.flatnonzero(clusters < 0)
        nearest = np.argsort(costs[open_points, cluster], kind="stable")[:capacity]
        clusters[open_points[nearest]] = cluster
    return clusters.astype(np.int64)


def propose(candidates: Ints, costs: Floats, capacities: Ints) -> Ints:
    """Return a stable assignment from candidate lists, nearest first (Gale and Shapley 1962).

    Every point asks its nearest candidate that has not refused it, and a cluster keeps the nearest
    that ask. The result does not depend on any order. A point that all candidates refuse gets -1.
    """
    n_points, n_candidates = candidates.shape
    asked = np.zeros(n_points, np.int64)
    clusters = np.full(n_points, -1)
    open_points = np.arange(n_points)
    while len(open_points):
        clusters[open_points] = candidates[open_points, asked[open_points]]
        held = np.flatnonzero(clusters >= 0)
        cost = costs[held, asked[held]]
        refused = held[_beyond_capacity(clusters[held], cost, capacities)]
        clusters[refused] = -1
        asked[refused] += 1
        open_points = refused[asked[refused] < n_candidates]
    return clusters.astype(np.int64)


def even_capacities(demand: Ints, n_points: int) -> Ints:
    """Return capacities that differ by one at most; the clusters in most demand get the more."""
    n_clusters = len(demand)
    capacities = np.full(n_clusters, n_points // n_clusters)
    most = np.argsort(-demand, kind="stable")[: n_points % n_clusters]
    capacities[most] += 1
    return capacities.astype(np.int64)


def _one_auction(costs: Floats, capacities: Ints, prices: Floats, step: float) -> Ints:
    n_points, n_clusters = costs.shape
    clusters = np.full(n_points, -1)
    bids = np.zeros(n_points)
    open_points = np.arange(n_points)
    if n_clusters == 1:
        return np.zeros(n_points, np.int64)
    while len(open_points):
        net = -costs[open_points] - prices
        best = net.argmax(axis=1)
        rows = np.arange(len(open_points))
        first = net[rows, best]
        net[rows, best] = -np.inf
        bids[open_points] = prices[best] + (first - net.max(axis=1)) + step
        clusters[open_points] = best
        is_asked = np.zeros(n_clusters, np.bool_)
        is_asked[best] = True
        held = np.flatnonzero((clusters >= 0) & is_asked[clusters])
        outbid = held[_beyond_capacity(clusters[held], -bids[held], capacities)]
        clusters[outbid] = -1
        held = held[clusters[held] >= 0]
        lowest = np.full(n_clusters, np.inf)
        np.minimum.at(lowest, clusters[held], bids[held])
        is_full = is_asked & (np.bincount(clusters[held], minlength=n_clusters) == capacities)
        prices[is_full] = lowest[is_full]
        open_points = np.flatnonzero(clusters < 0)
    return clusters.astype(np.int64)


def _beyond_capacity(clusters: Ints, costs: Floats, capacities: Ints) -> Ints:
    """Return the rows that their cluster has no room for; the cheapest stay."""
    order = np.lexsort((costs, clusters))
    ordered = clusters[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.asarray(order[place >= capacities[ordered]], np.int64)


def _check(costs: Floats, capacities: Ints) -> None:
    if costs.shape[1] != len(capacities) or capacities.sum() != len(costs):
        raise ShapeError(
            f"balance: {len(costs)} points and {costs.shape[1]} clusters with room for "
            f"{capacities.sum()} in {len(capacities)} (both numbers must agree)"
        )
