"""Which steps of a trajectory are right, and where trajectories go wrong.

A step is right while the problem can still be solved after it. An oracle says so, or rollouts
from the end of each step do (arXiv 2312.08935, Section 3.3): a step whose rollouts all fail is
wrong. Pure functions of verdicts and success rates.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trillium.errors import DataError
from trillium.evaluation import Interval, bootstrap_mean


@dataclass(frozen=True)
class StepAccuracy:
    """Hold the accuracy of steps.

    `accuracy` is the share of right steps, a mean over trajectories; `without_error` the share of
    trajectories in which every step is right. `by_position` has (steps, right ones) of the first
    step, the second, and so on; `first_error` counts trajectories by the position, from 0, of their
    first wrong step.
    """

    n_trajectories: int
    n_steps: int
    accuracy: Interval
    without_error: Interval
    by_position: tuple[tuple[int, int], ...]
    first_error: Mapping[int, int]


def judge_steps(success_rates: Sequence[float], *, threshold: float = 0.0) -> tuple[bool, ...]:
    """Return which steps are right from the success rate of rollouts after each of them.

    The first step whose rate is at most `threshold` is the error, and nothing after it counts as
    right: what follows an error may recover by chance, but does not mend the step.
    """
    for index, rate in enumerate(success_rates):
        if not 0 <= rate <= 1:
            raise DataError(
                f"judge_steps: success rate {rate} of step {index} (0 to 1 is possible); give the "
                "share of rollouts that were right"
            )
    wrong = (index for index, rate in enumerate(success_rates) if rate <= threshold)
    first = next(wrong, len(success_rates))
    return tuple(index < first for index in range(len(success_rates)))


def measure_steps(verdicts: Mapping[str, Sequence[bool]], *, seed: int = 0) -> StepAccuracy:
    """Measure the steps of trajectories, given by id which of them are right.

    Raises DataError when there is no trajectory, or one has no step.
    """
    empty = [id for id, steps in verdicts.items() if not steps]
    if empty or not verdicts:
        raise DataError(
            f"measure_steps: {len(verdicts)} trajectories, {len(empty)} of them without a step "
            f"{empty[:1]} (needs at least one of each); leave out what has no step"
        )
    groups = list(verdicts.values())
    longest = max(map(len, groups))
    at = [[steps[place] for steps in groups if place < len(steps)] for place in range(longest)]
    first = [list(steps).index(False) for steps in groups if not all(steps)]
    return StepAccuracy(
        n_trajectories=len(groups),
        n_steps=sum(map(len, groups)),
        accuracy=bootstrap_mean([sum(steps) / len(steps) for steps in groups], seed=seed),
        without_error=bootstrap_mean([float(all(steps)) for steps in groups], seed=seed),
        by_position=tuple((len(found), sum(found)) for found in at),
        first_error=dict(sorted(Counter(first).items())),
    )
