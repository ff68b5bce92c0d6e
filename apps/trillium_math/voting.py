"""Votes over the answers of one problem: which answers are equal, which is the most frequent.

Pure functions; `same` is the grader's comparison, which knows a reference from another answer: to
a reference of 50 the answer 50% is the same, and to one of 50% the answer 0.5 is.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

from trillium.errors import DataError

from trillium_math.agent.trajectory import Trajectory

SameAnswer = Callable[[str, str], bool]

# Up to this many subsets are counted one by one; beyond, as many are drawn.
_MOST_SUBSETS = 2000


def cluster_answers(group: Sequence[Trajectory], same: SameAnswer) -> tuple[int | None, ...]:
    """Number the answers so that equal ones share a number; None for a trajectory without one.

    Equal are answers that are the same either way round and were graded alike.
    """
    known: list[tuple[str, float | None]] = []
    numbers: list[int | None] = []
    for one in group:
        if one.answer is None:
            numbers.append(None)
            continue
        found = (
            index
            for index, (answer, reward) in enumerate(known)
            if reward == one.reward
            and (answer == one.answer or (same(answer, one.answer) and same(one.answer, answer)))
        )
        number = next(found, len(known))
        if number == len(known):
            known.append((one.answer, one.reward))
        numbers.append(number)
    return tuple(numbers)


def majority_is_right(group: Sequence[Trajectory], same: SameAnswer) -> bool:
    """Say whether the most frequent answer is right; ties go to the one that came first.

    Equal answers are found by the grader; trajectories without an answer do not vote.
    """
    numbers = cluster_answers(group, same)
    votes = Counter(number for number in numbers if number is not None)
    if not votes:
        return False
    # Counter keeps the order of first appearance, and max the first of equals.
    leader = max(votes, key=lambda number: votes[number])
    return group[numbers.index(leader)].is_right


def majority_at_k(
    numbers: Sequence[int | None], is_right: Sequence[bool], k: int, *, seed: int = 0
) -> float:
    """Return the chance that the vote of k of the samples is right (maj@k of arXiv 2203.11171).

    `numbers` are those of `cluster_answers`. Subsets are drawn without replacement: all of them
    where there are at most 2000, else 2000 drawn ones. Leaders that tie share the vote. Raises
    DataError when k exceeds the samples.
    """
    n_samples = len(numbers)
    if not 1 <= k <= n_samples:
        raise DataError(
            f"majority_at_k: k={k} with {n_samples} samples (1 to {n_samples} is possible); draw "
            "more samples or lower k"
        )
    right = {number for number, is_one in zip(numbers, is_right, strict=True) if is_one}
    if math.comb(n_samples, k) <= _MOST_SUBSETS:
        subsets = list(combinations(range(n_samples), k))
    else:
        rng = random.Random(seed)
        subsets = [tuple(rng.sample(range(n_samples), k)) for _ in range(_MOST_SUBSETS)]
    return sum(_vote(numbers, subset, right) for subset in subsets) / len(subsets)


def _vote(numbers: Sequence[int | None], subset: Sequence[int], right: set[int | None]) -> float:
    votes = Counter(numbers[index] for index in subset if numbers[index] is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    leaders = [number for number, count in votes.items() if count == most]
    return sum(number in right for number in leaders) / len(leaders)
