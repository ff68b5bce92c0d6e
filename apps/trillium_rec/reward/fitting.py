"""Build, train and calibrate a reward model on logged lists."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.errors import DataError

from trillium_rec.device import own_draws
from trillium_rec.fit import fit
from trillium_rec.models.batches import pad
from trillium_rec.reward.config import RewardConfig
from trillium_rec.reward.examples import RewardExamples
from trillium_rec.reward.logistic import fit_logistic
from trillium_rec.reward.model import RewardBatch, RewardModel, RewardModelConfig
from trillium_rec.reward.quality import predict

# Share of the users that are held back, for early stopping and for calibration.
_VALID_SHARE = 0.2


def build_reward_model(
    config: RewardConfig, n_items: int, content: NDArray[np.float32] | None, *, seed: int
) -> RewardModel:
    """Return a model in memory with random weights drawn from `seed`."""
    names = [head.column for head in config.heads]
    options = config.model_dump(
        include={"architecture", "pooling", "n_places", "d_model", "n_heads", "max_items"}
    )
    with own_draws(seed, torch.device("cpu")):
        model = RewardModel(
            RewardModelConfig(
                heads=names,
                weights=[head.weight for head in config.heads],
                rates=[0.5] * len(names),
                slopes=[1.0] * len(names),
                intercepts=[0.0] * len(names),
                n_items=n_items,
                n_content=0 if content is None else content.shape[1],
                dropout=config.dropout,
                **options,
            )
        )
    if content is not None:
        model.content = torch.from_numpy(content.copy())
    return model


def train_reward_model(
    config: RewardConfig, model: RewardModel, examples: RewardExamples, work: Path, *, seed: int
) -> list[Mapping[str, float]]:
    """Train in place on most of the users, then calibrate on the others; returns rows by epoch.

    Raises DataError when there are fewer than two users, or when a head never or always happens.
    """
    train, valid = split_users(examples, seed=seed)
    shares = train.labels[train.lists >= 0].mean(axis=0)
    for name, share in zip(model.config.heads or [], shares.tolist(), strict=True):
        if share in (0.0, 1.0):
            raise DataError(
                f"reward.heads: {name} happens in {'all' if share else 'none'} of "
                f"{train.n_examples} training lists (a reward needs both); leave the head out, or "
                "give a longer log"
            )
    rows = fit(
        model,
        lambda epoch_seed: _batches(train, config, epoch_seed),
        config.fit,
        work,
        validate=lambda: -_log_loss(model, valid),
        seed=seed,
        title=f"reward, {config.architecture}",
    )
    model.config.rates = shares.tolist()
    calibrate(model, valid)
    return rows


def split_users(examples: RewardExamples, *, seed: int) -> tuple[RewardExamples, RewardExamples]:
    """Return the lists of four users in five, and those of the others."""
    names = sorted(set(examples.users))
    if len(names) < 2:
        raise DataError(
            f"reward: {len(names)} user has lists (needs two at least, one to learn from and one "
            "to calibrate on); give a longer log"
        )
    n_valid = max(1, round(_VALID_SHARE * len(names)))
    chosen = np.random.default_rng(seed).choice(len(names), n_valid, replace=False)
    held_back = {names[number] for number in chosen.tolist()}
    is_valid = np.array([user in held_back for user in examples.users])
    return examples.take(np.flatnonzero(~is_valid)), examples.take(np.flatnonzero(is_valid))


def calibrate(model: RewardModel, examples: RewardExamples) -> None:
    """Set slope and intercept of every head by Platt's method; the model stays as it is.

    p = sigmoid(slope * logit + intercept), by maximum likelihood with a ridge too small to show
    unless the labels are separable. A head with few positives keeps slope 1 and intercept 0.
    """
    logits, labels = predict(model, examples)
    slopes, intercepts = [], []
    for head in range(logits.shape[1]):
        raw, truth = logits[:, head], labels[:, head]
        slope, intercept = _platt(raw, truth)
        slopes.append(slope)
        intercepts.append(intercept)
    model.config.slopes, model.config.intercepts = slopes, intercepts


def _platt(raw: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    """Fit slope and intercept; heads with fewer than ten of either kind keep 1 and 0."""
    if min(truth.sum(), (1 - truth).sum()) < 10:
        return 1.0, 0.0
    centre = float(raw.mean())
    features = np.stack([np.ones_like(raw), raw - centre], axis=1)
    intercept, slope = fit_logistic(features, truth, ridge=1e-6).tolist()
    # A negative slope would turn the ranking round: then the rate alone is believed.
    slope = max(slope, 0.0)
    return slope, intercept - slope * centre


def _batches(examples: RewardExamples, config: RewardConfig, seed: int) -> list[RewardBatch]:
    order = np.random.default_rng(seed).permutation(examples.n_examples)
    size = config.fit.batch_size
    return [
        reward_batch(examples.take(order[begin : begin + size]), config.max_items)
        for begin in range(0, len(order), size)
    ]


def reward_batch(examples: RewardExamples, max_items: int) -> RewardBatch:
    """Return examples as tensors."""
    return RewardBatch(
        pad(examples.histories, max_items),
        torch.from_numpy(examples.lists),
        torch.from_numpy(examples.labels),
    )


def _log_loss(model: RewardModel, examples: RewardExamples) -> float:
    logits, labels = predict(model, examples)
    return float((np.logaddexp(0, logits) - labels * logits).sum(axis=1).mean())
