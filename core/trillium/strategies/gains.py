"""Which pairs should go to a person, under a budget: gains as numbers, and what follows from them.

    errors        P(the model's label is wrong | features), fitted on pairs that both labelled
    performance   what a person's label adds to a measured result, by the counts of features among
                  the people's share of earlier mixtures (arXiv 2410.19133, linear predictor)
    doubt         how far judges are from agreeing, over judges and both orders

Nothing here asks a model or reads a file.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trillium.strategies.judging import Opinion, combine_orders

# Of the coefficients; a pilot has hundreds of pairs and twenty-one features.
_RIDGE = 1.0
_LEAST = 1e-6
_N_STEPS = 100
_POINTS = 10.0


def fit_errors(features: NDArray[np.float64], is_wrong: Sequence[bool]) -> NDArray[np.float64]:
    """Return a weight per feature and a last one for none: logistic, ridge 1 on the features.

    By Newton's method: gradient X'(p - y) + R w, curvature X' p(1-p) X + R.
    """
    x = np.hstack([features, np.ones((len(features), 1))])
    ridge = np.append(np.full(features.shape[1], _RIDGE), _LEAST)
    weights = np.zeros(x.shape[1])
    for _ in range(_N_STEPS):
        chance = predict_errors(features, weights)
        slope = x.T @ (chance - np.asarray(is_wrong)) + ridge * weights
        curvature = (x.T * (chance * (1 - chance))) @ x + np.diag(ridge)
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < 1e-10:
            break
    return weights


def predict_errors(
    features: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the chance that the model's label of each pair is wrong."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-(features @ weights[:-1] + weights[-1])))
    return found


def fit_performance(
    features: NDArray[np.float64], is_human: NDArray[np.bool_], results: Sequence[float]
) -> NDArray[np.float64]:
    """Return what one more person's label of each feature adds to the result, by ridge regression.

    `is_human` has a row per mixture and a column per pair. Counts and results are centred, counts
    scaled to a standard deviation of one before the ridge.
    """
    counts = is_human.astype(np.float64) @ features
    spread = counts.std(0)
    kept = spread > 0
    x = (counts - counts.mean(0))[:, kept] / spread[kept]
    y = np.asarray(results) - np.mean(results)
    solved = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y)
    weights = np.zeros(features.shape[1])
    weights[kept] = solved / spread[kept]
    return weights


def doubt(opinions: Sequence[tuple[Opinion, Opinion]]) -> float:
    """Return in [0, 2] how little judges settle a pair; each opines in both orders.

    One less the size of the mean vote, plus one less the size of the mean preference over ten: a
    split jury comes first, among equal votes the narrower one. 2 when nothing could be read.
    """
    votes = [combine_orders(forward, backward) for forward, backward in opinions]
    known = [vote for vote in votes if vote.preference is not None]
    if not known:
        return 2.0
    # A judge that changes sides with the order has not voted.
    sides = [float(np.sign(v.preference or 0.0)) if v.is_consistent else 0.0 for v in known]
    preferences = [vote.preference or 0.0 for vote in known]
    return 2.0 - abs(float(np.mean(sides))) - abs(float(np.mean(preferences))) / _POINTS


def choose(gains: Sequence[float], budget: int, *, seed: int) -> NDArray[np.bool_]:
    """Return which pairs have the largest gains; equal ones are drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(gains))
    ranked = order[np.argsort(-np.asarray(gains)[order], kind="stable")]
    chosen = np.zeros(len(gains), dtype=np.bool_)
    chosen[ranked[:budget]] = True
    return chosen


def label_accuracy(is_wrong: NDArray[np.bool_], is_human: NDArray[np.bool_]) -> float:
    """Return the share of right labels when people, who are right, take the chosen pairs."""
    return 1.0 - float((is_wrong & ~is_human).mean())


def random_accuracies(
    is_wrong: NDArray[np.bool_], budget: int, *, n_draws: int, seed: int
) -> NDArray[np.float64]:
    """Return what `n_draws` random choices of as many pairs give, for comparison."""
    n = len(is_wrong)
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        is_human = np.zeros(n, dtype=np.bool_)
        is_human[random.choice(n, size=min(budget, n), replace=False)] = True
        draws.append(label_accuracy(is_wrong, is_human))
    return np.array(draws)
