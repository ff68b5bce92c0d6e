"""How good a reward model is on users it never saw: AUC, calibration, and what a table would do."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trillium_rec.models.batches import pad
from trillium_rec.reward.examples import RewardExamples
from trillium_rec.reward.logistic import fit_logistic, sigmoid
from trillium_rec.reward.model import RewardModel, list_labels

Floats = NDArray[np.float64]
_N_BINS = 10
_BATCH = 512


@dataclass(frozen=True)
class HeadQuality:
    """Hold what is known of one head: AUC is None where only one kind of label was there.

    `baseline_auc` is that of a logistic regression on the item's popularity and its place, over the
    same rows: items, or the means of lists where the model reads their sum; `ece`
    is the expected calibration error after calibration and `raw_ece` before, ten bins of equal
    size.
    """

    name: str
    rate: float
    auc: float | None
    baseline_auc: float | None
    ece: float
    raw_ece: float


@dataclass(frozen=True)
class RewardQuality:
    """Hold the quality of every head on lists of unseen users."""

    heads: tuple[HeadQuality, ...]
    n_lists: int
    n_users: int

    @property
    def auc_gain(self) -> float:
        """Return the mean gain in AUC over the baseline, over the heads where both are known."""
        known = [(h.auc, h.baseline_auc) for h in self.heads]
        gains = [a - b for a, b in known if a is not None and b is not None]
        return float(np.mean(gains)) if gains else 0.0


def measure_reward(
    model: RewardModel,
    examples: RewardExamples,
    *,
    train: RewardExamples,
    popularity: NDArray[np.int64],
) -> RewardQuality:
    """Judge a model on lists of unseen users; the baseline learns from `train` as the model did."""
    logits, labels = predict(model, examples)
    reads_items = model.config.pooling == "items"
    heads = []
    for number, name in enumerate(model.config.heads or []):
        raw, truth = logits[:, number], labels[:, number]
        slope, intercept = model.config.slopes[number], model.config.intercepts[number]
        heads.append(
            HeadQuality(
                name,
                float(truth.mean()),
                auc(raw, truth >= 0.5) if reads_items else auc_soft(raw, truth),
                _baseline(train, examples, number, popularity, reads_items=reads_items),
                expected_calibration_error(sigmoid(slope * raw + intercept), truth),
                expected_calibration_error(sigmoid(raw), truth),
            )
        )
    return RewardQuality(tuple(heads), examples.n_examples, len(set(examples.users)))


@torch.inference_mode()
def predict(model: RewardModel, examples: RewardExamples) -> tuple[Floats, Floats]:
    """Return uncalibrated logits and labels: a row per item (or list), a column per head."""
    model.train(False)
    logits, labels = [], []
    for begin in range(0, examples.n_examples, _BATCH):
        rows = np.arange(begin, min(begin + _BATCH, examples.n_examples))
        part = examples.take(rows)
        lists, truth = torch.from_numpy(part.lists), torch.from_numpy(part.labels)
        history = pad(part.histories, model.config.max_items).to(model.device)
        found = model.logits(history, lists[:, None].to(model.device))[:, 0].cpu()
        there = lists >= 0
        if model.config.pooling == "sum":
            truth, there = list_labels(truth, there), there.any(dim=1, keepdim=True)
        logits.append(found[there].double().numpy())
        labels.append(truth[there].double().numpy())
    return np.concatenate(logits), np.concatenate(labels)


def auc(scores: Floats, is_positive: NDArray[np.bool_]) -> float | None:
    """Return the chance that a positive scores above a negative, ties half; None without both."""
    n_positive = int(is_positive.sum())
    n_negative = len(scores) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    rank = counts.cumsum() - (counts - 1) / 2
    total = float(rank[inverse.reshape(-1)][is_positive].sum())
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auc_soft(scores: Floats, shares: Floats) -> float | None:
    """Return the AUC of telling lists whose share is above the mean share from the others."""
    return auc(scores, shares > shares.mean())


def expected_calibration_error(chances: Floats, labels: Floats) -> float:
    """Return the mean gap between predicted and observed rate over ten bins of equal size."""
    order = np.argsort(chances, kind="stable")
    bins = np.array_split(order, min(_N_BINS, len(order)))
    gaps = [len(b) * abs(float(chances[b].mean() - labels[b].mean())) for b in bins]
    return sum(gaps) / len(chances)


def _baseline(
    train: RewardExamples,
    examples: RewardExamples,
    head: int,
    popularity: NDArray[np.int64],
    *,
    reads_items: bool,
) -> float | None:
    """Return the AUC of a regression on popularity and place: per item, or of means per list."""
    weights = fit_logistic(_features(train, popularity), _labels(train, head))
    scores, labels = _features(examples, popularity) @ weights, _labels(examples, head)
    if reads_items:
        return auc(scores, labels >= 0.5)
    there = examples.lists >= 0
    return auc_soft(_list_means(scores, there), _list_means(labels, there))


def _list_means(values: Floats, there: NDArray[np.bool_]) -> Floats:
    """Return the mean over each list's items, of which every list has one at least."""
    by_place = np.zeros(there.shape)
    by_place[there] = values
    return np.asarray(by_place.sum(axis=1) / there.sum(axis=1), np.float64)


def _features(examples: RewardExamples, popularity: NDArray[np.int64]) -> Floats:
    there = examples.lists >= 0
    items = examples.lists[there]
    place = np.broadcast_to(np.arange(there.shape[1]), there.shape)[there]
    return np.stack([np.ones(len(items)), np.log1p(popularity[items]), place], axis=1)


def _labels(examples: RewardExamples, head: int) -> Floats:
    return examples.labels[..., head][examples.lists >= 0].astype(np.float64)
