"""The search itself: propose, try with every seed, keep the rows, and stop when nothing improves.

Proposals and results are rows on disk, written before and after a trial. A killed search reads them
back and proposes what it would have proposed, so it ends with the same rows. The same settings and
seed give the same result, so none is run twice.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trillium.errors import BackendError
from trillium.files import RowsFile, read_rows
from trillium.tuning.space import SpaceConfig
from trillium.tuning.surrogate import (
    Surrogate,
    fit_surrogate,
    propose,
    propose_optimum,
    spread_points,
)

PROPOSALS, RESULTS = "proposals.jsonl", "results.jsonl"

# These try what teaches most, seldom the optimum itself; so their last trial is spent there.
_LEARNING = ("knowledge_gradient", "entropy_search")
_MANY = 4096  # settings beyond which not all are looked at
_N_OTHERS = 256  # points among which another is looked for when a proposal was tried already

Evaluate = Callable[[int, Mapping[str, float | int], int], float]
"""Trial, settings and seed to the measure; BackendError for a run that failed by its settings."""


@dataclass
class Trial:
    """Hold one proposal and its results by seed; None where the run failed."""

    number: int
    point: list[float]
    values: dict[str, float | int]
    results: dict[int, float | None]

    @property
    def mean(self) -> float | None:
        """Return the mean measure; None when a run failed."""
        found = [result for result in self.results.values() if result is not None]
        return statistics.fmean(found) if found and len(found) == len(self.results) else None


def search(space: SpaceConfig, evaluate: Evaluate, folder: Path) -> list[Trial]:
    """Run, or continue, the trials in `folder`; returns them in order."""
    with (
        RowsFile(folder / PROPOSALS, key="trial") as proposals,
        RowsFile(folder / RESULTS, key="key") as results,
    ):
        trials = read_trials(folder)
        for number in range(space.n_trials):
            if number == len(trials):
                if has_stalled(space, trials) or is_exhausted(space, trials):
                    break
                trials.append(_propose(space, trials))
                point, values = trials[-1].point, trials[-1].values
                proposals.append({"trial": number, "point": point, "values": values})
            _try_seeds(space, trials, number, evaluate, results)
    return trials


def read_trials(folder: Path) -> list[Trial]:
    """Return the trials whose rows are in `folder`."""
    trials: list[Trial] = []
    for row in read_rows(folder / PROPOSALS):
        point, values = row["point"], row["values"]
        assert isinstance(point, list)
        assert isinstance(values, dict)
        trials.append(Trial(len(trials), point, values, {}))
    for row in read_rows(folder / RESULTS):
        trial, seed, result = row["trial"], row["seed"], row["result"]
        assert isinstance(trial, int)
        assert isinstance(seed, int)
        assert result is None or isinstance(result, int | float)
        trials[trial].results[seed] = result
    return trials


def fit_trials(space: SpaceConfig, trials: Sequence[Trial]) -> Surrogate | None:
    """Fit the surrogate to every result, larger is better; None while fewer than two succeeded.

    A run that failed counts as the worst result there is: the search should keep away from it.
    """
    sign = 1.0 if space.goal == "maximise" else -1.0
    known = [
        (trial.point, value)
        for trial in trials
        for seed, value in trial.results.items()
        if _earlier(trials, trial, seed) is None  # a copy tells nothing of the noise
    ]
    done = [sign * value for _, value in known if value is not None]
    if len(done) < 2:
        return None
    worst = min(done)
    results = [worst if value is None else sign * value for _, value in known]
    return fit_surrogate([point for point, _ in known], results, seed=space.seed)


def best_trial(space: SpaceConfig, trials: Sequence[Trial]) -> Trial:
    """Return the trial to recommend: the highest mean of the surrogate, without one of results.

    Among noisy results the largest is the luckiest; the surrogate discounts that. Raises
    BackendError when every trial failed.
    """
    done = [trial for trial in trials if trial.mean is not None]
    if not done:
        raise BackendError(
            f"tune: all {len(trials)} trials failed; narrow the bounds, or try the run file alone"
        )
    surrogate = None if space.acquisition == "random" else fit_trials(space, trials)
    if surrogate is None:
        sign = 1.0 if space.goal == "maximise" else -1.0
        return max(done, key=lambda trial: sign * (trial.mean or 0.0))
    means, _ = surrogate.predict(torch.tensor([trial.point for trial in done]).double())
    return done[int(means.argmax())]


def has_stalled(space: SpaceConfig, trials: Sequence[Trial]) -> bool:
    """Say whether the last `patience` trials, after the spread ones, brought nothing better."""
    if space.patience is None or len(trials) < space.n_spread + space.patience:
        return False
    sign = 1.0 if space.goal == "maximise" else -1.0
    means = [-float("inf") if trial.mean is None else sign * trial.mean for trial in trials]
    before, after = means[: -space.patience], means[-space.patience :]
    return max(after) <= max(before)


def is_exhausted(space: SpaceConfig, trials: Sequence[Trial]) -> bool:
    """Say whether every setting that there is was tried."""
    return len({tuple(trial.values.items()) for trial in trials}) >= space.n_settings


def _propose(space: SpaceConfig, trials: Sequence[Trial]) -> Trial:
    number = len(trials)
    n = len(space.parameters)
    seed = space.seed * 100_003 + number
    if space.acquisition == "random":
        generator = torch.Generator().manual_seed(seed)
        point = torch.rand(n, generator=generator, dtype=torch.float64).tolist()
    elif number < space.n_spread:
        point = spread_points(number + 1, n, seed=space.seed)[number].tolist()
    else:
        surrogate = fit_trials(space, trials)
        if surrogate is None:
            point = spread_points(number + 1, n, seed=space.seed)[number].tolist()
        elif number == space.n_trials - 1 and space.acquisition in _LEARNING:
            point = propose_optimum(surrogate, seed=seed)
        else:
            point = propose(surrogate, space.acquisition, seed=seed)
    values = _untried_values(space, trials, point)
    # What is tried is a value, rounded where it must be; the surrogate learns from that place.
    return Trial(number, space.point_of(values), values, {})


def _untried_values(
    space: SpaceConfig, trials: Sequence[Trial], point: Sequence[float]
) -> dict[str, float | int]:
    """Return the settings at `point`, or where they were tried those nearest to it that were not.

    Of few settings all are looked at, of many only some; where those were tried, so is the answer.
    """
    tried = [trial.values for trial in trials]
    values = space.values_at(point)
    if values not in tried:
        return values
    others: Iterable[dict[str, float | int]] = space.settings()
    if space.n_settings > _MANY:
        spread = spread_points(_N_OTHERS, len(point), seed=space.seed).tolist()
        others = map(space.values_at, spread)
    return min(
        (other for other in others if other not in tried),
        key=lambda other: math.dist(point, space.point_of(other)),
        default=values,
    )


def _earlier(trials: Sequence[Trial], trial: Trial, seed: int) -> Trial | None:
    """Return the first trial before this one that ran the same settings with the same seed."""
    same = (each for each in trials[: trial.number] if each.values == trial.values)
    return next((each for each in same if seed in each.results), None)


def _try_seeds(
    space: SpaceConfig,
    trials: Sequence[Trial],
    number: int,
    evaluate: Evaluate,
    rows: RowsFile,
) -> None:
    trial = trials[number]
    for place, seed in enumerate(space.seeds):
        if place and space.prune and _is_hopeless(space, trials, number):
            return
        if seed in trial.results:
            continue
        reason = ""
        result: float | None = None
        earlier = _earlier(trials, trial, seed)
        try:
            if earlier is None:
                result = evaluate(number, trial.values, seed)
            elif (result := earlier.results[seed]) is None:
                reason = f"as in trial {earlier.number}"
        except BackendError as error:
            reason = str(error)
        trial.results[seed] = result
        row = {"trial": number, "seed": seed, "result": result, "failed": reason}
        rows.append({"key": f"{number}/{seed}", **row})


def _is_hopeless(space: SpaceConfig, trials: Sequence[Trial], number: int) -> bool:
    """Say whether the trial's first result is worse than the median of earlier trials' first."""
    first, sign = space.seeds[0], 1.0 if space.goal == "maximise" else -1.0
    own = trials[number].results.get(first)
    earlier = [trial.results.get(first) for trial in trials[:number]]
    known = [sign * value for value in earlier if value is not None]
    if own is None:
        return True
    return len(known) >= 3 and sign * own < statistics.median(known)
