"""Two systems on the same tasks: how much better, how sure, on how many tasks.

All statements are about tasks as drawn from a population of such tasks, paired task by task.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trillium.errors import DataError
from trillium.evaluation.intervals import Interval, bootstrap_mean

# Up to this many tasks that changed, every assignment of signs is tried: 65,536 of them.
_MAX_EXACT = 16


@dataclass(frozen=True)
class Comparison:
    """A metric before and after, paired over tasks."""

    before: Interval
    after: Interval
    gain: Interval  # of after - before, resampling tasks with both of their values
    n_better: int
    n_equal: int
    n_worse: int
    permutation_p: float  # two-sided, of the mean gain when signs are exchangeable
    sign_p: float  # two-sided, of the number of tasks that got better among those that changed

    @property
    def n_tasks(self) -> int:
        """Count the tasks."""
        return self.n_better + self.n_equal + self.n_worse


def compare(
    before: Mapping[str, float],
    after: Mapping[str, float],
    *,
    seed: int = 0,
    n_resamples: int = 10_000,
    level: float = 0.95,
) -> Comparison:
    """Compare one value per task before and after; the order of the tasks does not matter.

    Raises DataError when the two were not evaluated on the same tasks.
    """
    alone = sorted(before.keys() ^ after.keys())
    if alone:
        raise DataError(
            f"compare: {len(alone)} tasks have only one value, such as {alone[0]!r} "
            "(each needs one before and one after); evaluate both on the same tasks"
        )
    tasks = sorted(before)
    old = np.array([before[task] for task in tasks], dtype=np.float64)
    new = np.array([after[task] for task in tasks], dtype=np.float64)
    gains = new - old
    n_better, n_worse = int((gains > 0).sum()), int((gains < 0).sum())
    before_mean, after_mean, gain_mean = (
        bootstrap_mean(values.tolist(), seed=seed, n_resamples=n_resamples, level=level)
        for values in (old, new, gains)
    )
    return Comparison(
        before=before_mean,
        after=after_mean,
        gain=gain_mean,
        n_better=n_better,
        n_equal=len(tasks) - n_better - n_worse,
        n_worse=n_worse,
        permutation_p=permutation_p(gains, seed=seed, n_resamples=n_resamples),
        sign_p=sign_p(n_better, n_worse),
    )


def sign_p(n_better: int, n_worse: int) -> float:
    """Return the exact two-sided p-value of the sign test; ties have been left out."""
    n_changed = n_better + n_worse
    n_rarer = min(n_better, n_worse)
    tail = sum(math.comb(n_changed, count) for count in range(n_rarer + 1))
    return float(min(1.0, 2 * tail / 2**n_changed))


def permutation_p(
    gains: npt.NDArray[np.float64], *, seed: int = 0, n_resamples: int = 10_000
) -> float:
    """Return the two-sided p-value of the mean gain under random exchange of before and after.

    Exact for up to 16 tasks that changed; otherwise from seeded draws, the observed one counted,
    so that it is never zero (Phipson and Smyth 2010).
    """
    changed = gains[gains != 0]
    observed = abs(changed.sum())
    # Sums that differ by rounding only must count as equal.
    threshold = observed - 1e-9 * max(1.0, observed)
    if len(changed) <= _MAX_EXACT:
        codes = np.arange(2 ** len(changed))[:, None] >> np.arange(len(changed))
        sums = (1 - 2.0 * (codes & 1)) @ changed
        return float((np.abs(sums) >= threshold).mean())
    random = np.random.default_rng(seed)
    # In slices, so that thousands of tasks do not need gigabytes of signs; multiples of four draw
    # what one large draw would.
    n_slice = 4 * max(1, 500_000 // len(changed))
    sums = np.concatenate(
        [
            (1 - 2.0 * random.integers(0, 2, (rows, len(changed)), dtype=np.int8)) @ changed
            for done in range(0, n_resamples, n_slice)
            for rows in (min(n_slice, n_resamples - done),)
        ]
    )
    return float((1 + (np.abs(sums) >= threshold).sum()) / (1 + n_resamples))
