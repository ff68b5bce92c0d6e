"""The chance that at least one of k samples is right, estimated from n of them."""

import math
from collections.abc import Mapping, Sequence

from trillium.errors import DataError


def pass_at_k(n_samples: int, n_correct: int, k: int) -> float:
    """Return the unbiased pass@k of one task (arXiv 2107.03374, Eq. 1).

        pass@k = 1 - C(n - c, k) / C(n, k)        n samples, c of them correct

    Raises DataError when k exceeds the samples, because no unbiased estimate exists then.
    """
    if not 0 <= n_correct <= n_samples:
        raise DataError(
            f"pass_at_k: {n_correct} correct of {n_samples} samples (0 to {n_samples} is possible)"
        )
    if not 1 <= k <= n_samples:
        raise DataError(
            f"pass_at_k: k={k} with {n_samples} samples (k of 1 to {n_samples} can be estimated); "
            "draw more samples or lower k"
        )
    return 1.0 - math.comb(n_samples - n_correct, k) / math.comb(n_samples, k)


def pass_at_k_by_task(outcomes: Mapping[str, Sequence[bool]], k: int) -> dict[str, float]:
    """Return the pass@k of every task from its samples' outcomes, in the order of the tasks."""
    return {task: pass_at_k(len(passed), sum(passed), k) for task, passed in outcomes.items()}
