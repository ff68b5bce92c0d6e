"""How far the predictions of a value function can be trusted, given what came out.

Pure functions of numbers: a prediction is the expected reward of a state, an outcome the reward
that its trajectory earned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from trillium.errors import DataError


@dataclass(frozen=True)
class ReliabilityBin:
    """Hold the predictions of [low, high) and the mean outcome that they met."""

    low: float
    high: float
    n: int
    prediction: float
    outcome: float


@dataclass(frozen=True)
class Calibration:
    """Hold how predictions and outcomes agree.

    `ece` is the expected calibration error (arXiv 1706.04599, Eq. 3), `brier` the mean squared
    error, `base_brier` that of always predicting the mean outcome, `auc` the chance that a right
    one is ranked above a wrong one (ties count half), None when all came out alike. `n_clipped`
    predictions lay outside [0, 1] and were moved to its ends.
    """

    n: int
    ece: float
    brier: float
    base_brier: float
    auc: float | None
    n_clipped: int
    bins: tuple[ReliabilityBin, ...]


def calibrate(
    predictions: Sequence[float], outcomes: Sequence[float], *, n_bins: int = 10
) -> Calibration:
    """Compare predictions with outcomes of 0 or 1, in bins of equal width; empty ones are left out.

    Raises DataError for numbers that do not belong together, or an outcome that is neither 0 nor 1.
    """
    if not predictions or len(predictions) != len(outcomes):
        raise DataError(
            f"calibrate: {len(predictions)} predictions and {len(outcomes)} outcomes (needs one "
            "outcome per prediction, at least one); predict the states that were judged"
        )
    raw = np.asarray(predictions, np.float64)
    met = np.asarray(outcomes, np.float64)
    if not np.isfinite(raw).all() or not np.isin(met, (0.0, 1.0)).all():
        raise DataError(
            "calibrate: a prediction is not finite or an outcome is neither 0 nor 1; leave out "
            "what was not judged"
        )
    said = raw.clip(0.0, 1.0)
    # The last bin holds 1 as well.
    place = np.minimum((said * n_bins).astype(np.int64), n_bins - 1)
    bins = tuple(
        ReliabilityBin(
            low=index / n_bins,
            high=(index + 1) / n_bins,
            n=int((place == index).sum()),
            prediction=float(said[place == index].mean()),
            outcome=float(met[place == index].mean()),
        )
        for index in range(n_bins)
        if (place == index).any()
    )
    return Calibration(
        n=len(said),
        ece=sum(one.n * abs(one.prediction - one.outcome) for one in bins) / len(said),
        brier=float(((said - met) ** 2).mean()),
        base_brier=float(met.mean() * (1 - met.mean())),
        auc=ranking_auc(raw.tolist(), met.tolist()),
        n_clipped=int((said != raw).sum()),
        bins=bins,
    )


def ranking_auc(predictions: Sequence[float], outcomes: Sequence[float]) -> float | None:
    """Return the chance that a state with outcome 1 is predicted above one with outcome 0."""
    said, met = np.asarray(predictions), np.asarray(outcomes)
    right, wrong = said[met == 1], np.sort(said[met == 0])
    if not len(right) or not len(wrong):
        return None
    below = np.searchsorted(wrong, right, side="left")
    at_most = np.searchsorted(wrong, right, side="right")
    return float((below + at_most).sum() / (2 * len(right) * len(wrong)))
