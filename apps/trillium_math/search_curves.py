"""What more sampling buys at test time: accuracy against the tokens that were spent.

A pool of samples per problem gives the curves of best-of-K, majority vote and an oracle without
sampling again: a point of K samples is an expectation over the subsets of size K. Greedy decoding
and value-guided search are runs of their own, a point each. Pure functions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from trillium.errors import DataError
from trillium.evaluation import Interval, bootstrap_mean, pass_at_k

from trillium_math.agent.trajectory import Trajectory
from trillium_math.voting import SameAnswer, cluster_answers, majority_at_k


@dataclass(frozen=True)
class SearchPoint:
    """Hold one way to spend tokens: `tokens` are sampled ones per problem, on average."""

    strategy: str
    budget: int
    tokens: float
    accuracy: Interval


def run_point(
    strategy: str, budget: int, found: Sequence[Trajectory], tokens: float, *, seed: int = 0
) -> SearchPoint:
    """Return the point of a strategy that gave one trajectory per problem for so many tokens.

    `tokens` counts everything that was sampled on the way, per problem. What the sandbox lost is
    left out. Raises DataError when nothing was judged.
    """
    rewards = [float(one.is_right) for one in found if one.reward is not None]
    if not rewards:
        raise DataError(f"search curve {strategy}: no trajectory was judged; roll out again")
    return SearchPoint(strategy, budget, tokens, bootstrap_mean(rewards, seed=seed))


def pool_curves(
    pool: Sequence[Trajectory],
    ks: Sequence[int],
    same: SameAnswer,
    *,
    values: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[SearchPoint, ...]:
    """Return the points of majority and oracle, and of best-of-K where there are `values`.

    `values` score trajectories by id, as a value function does; the highest of K is taken. Problems
    with fewer than max(ks) judged samples are left out. Raises DataError when none has enough.
    """
    groups: dict[str, list[Trajectory]] = {}
    for one in pool:
        if one.reward is not None:
            groups.setdefault(one.problem_id, []).append(one)
    enough = [group for group in groups.values() if len(group) >= max(ks)]
    if not enough:
        raise DataError(
            f"search curves: no problem has {max(ks)} judged samples; sample more, or lower k"
        )
    numbers = [cluster_answers(group, same) for group in enough]
    rights = [[one.is_right for one in group] for group in enough]
    tokens = float(np.mean([count_tokens(one) for group in enough for one in group]))
    points = []
    for k in ks:
        found = {
            "majority": [
                majority_at_k(cluster, right, k, seed=seed)
                for cluster, right in zip(numbers, rights, strict=True)
            ],
            "oracle": [pass_at_k(len(right), sum(right), k) for right in rights],
        }
        if values is not None:
            found["best of K by value"] = [
                best_of_k([values[one.id] for one in group], right, k)
                for group, right in zip(enough, rights, strict=True)
            ]
        points += [
            SearchPoint(name, k, k * tokens, bootstrap_mean(each, seed=seed))
            for name, each in found.items()
        ]
    return tuple(points)


def best_of_k(values: Sequence[float], is_right: Sequence[bool], k: int) -> float:
    """Return the chance that the highest-valued of k samples is right, over all subsets of size k.

        sum over ranks i of right_i * C(n - i, k - 1) / C(n, k)        i = 1 is the highest value

    Samples of equal value share their ranks. Raises DataError when k exceeds the samples.
    """
    n_samples = len(values)
    if not 1 <= k <= n_samples:
        raise DataError(
            f"best_of_k: k={k} with {n_samples} samples (1 to {n_samples} is possible); draw more "
            "samples or lower k"
        )
    chances = [math.comb(n_samples - i, k - 1) / math.comb(n_samples, k)
               for i in range(1, n_samples + 1)]  # fmt: skip
    order = sorted(range(n_samples), key=lambda index: -values[index])
    total, start = 0.0, 0
    while start < n_samples:
        end = start
        while end < n_samples and values[order[end]] == values[order[start]]:
            end += 1
        share = sum(is_right[index] for index in order[start:end]) / (end - start)
        total += share * sum(chances[start:end])
        start = end
    return total


def count_tokens(one: Trajectory) -> int:
    """Count the tokens that the policy sampled."""
    return sum(end - start for start, end in one.spans)
