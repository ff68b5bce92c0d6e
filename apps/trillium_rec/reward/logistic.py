"""Logistic regression by Newton's method, for calibration and for baselines."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_N_STEPS = 50


def fit_logistic(features: Floats, labels: Floats, *, ridge: float = 1e-3) -> Floats:
    """Return the weights that minimise the mean log loss of sigmoid(features @ weights).

    `features` [row feature] hold a column of ones where an intercept is wanted; `labels` [row] are
    probabilities. A ridge of `ridge` per row's mean keeps separable data finite.
    """
    weights = np.zeros(features.shape[1])
    penalty = ridge * np.eye(features.shape[1])
    for _ in range(_N_STEPS):
        chance = sigmoid(features @ weights)
        gradient = features.T @ (chance - labels) / len(labels) + penalty @ weights
        slope = chance * (1 - chance)
        hessian = (features * slope[:, None]).T @ features / len(labels) + penalty
        step = np.linalg.solve(hessian, gradient)
        # A step too long for the curve's middle overshoots where chances are all but certain.
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    return weights


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-values)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(values / 2)), np.float64)
