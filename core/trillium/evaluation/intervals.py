"""Means over tasks with bootstrap intervals.

The task is what is resampled: samples of one task resemble each other, so counting them as
independent would make every interval too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trillium.errors import DataError


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds that cover it with the probability `level`."""

    mean: float
    low: float
    high: float
    level: float = 0.95


def bootstrap_mean(
    values: Sequence[float], *, seed: int = 0, n_resamples: int = 10_000, level: float = 0.95
) -> Interval:
    """Return the mean of `values`, one per task, with its percentile bootstrap interval.

    One task, or tasks that all agree, give an interval without width: it says nothing about others.
    """
    if len(values) == 0:
        raise DataError("bootstrap_mean: no values (one per task is needed); evaluate some tasks")
    sample = np.asarray(values, dtype=np.float64)
    if not np.isfinite(sample).all():
        raise DataError(
            "bootstrap_mean: a value is not finite; exclude failed tasks and count them"
        )
    means = _resampled_means(sample, np.random.default_rng(seed), n_resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean=float(sample.mean()), low=float(low), high=float(high), level=level)


def format_interval(interval: Interval, *, sign: bool = False) -> str:
    """Return a mean with its interval: 0.412 [0.35, 0.47]."""
    plus = "+" if sign else ""
    return f"{interval.mean:{plus}.3f} [{interval.low:{plus}.2f}, {interval.high:{plus}.2f}]"


def _resampled_means(
    sample: npt.NDArray[np.float64], random: np.random.Generator, n_resamples: int
) -> npt.NDArray[np.float64]:
    # In slices, so that thousands of tasks do not need gigabytes of indices.
    n_slice = max(1, 2_000_000 // len(sample))
    means = [
        sample[
            random.integers(0, len(sample), (min(n_slice, n_resamples - done), len(sample)))
        ].mean(axis=1)
        for done in range(0, n_resamples, n_slice)
    ]
    return np.concatenate(means)
