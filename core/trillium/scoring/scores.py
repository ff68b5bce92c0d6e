"""`score`: the log-probabilities of the paths of a `TreeBatch` under one model.

The one log-probability function of the house: hidden states (`forward.py`), token statistics
(`head.py`), and here the sums over each path.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trillium.errors import BackendError, ConfigError
from trillium.scoring.forward import hidden_at_slots, open_model
from trillium.scoring.head import (
    DIVERGENCES,
    LOGP_ONLY,
    Statistic,
    TopTokens,
    precise_dtype,
    token_statistics,
)
from trillium.tree_batch import TreeBatch


@dataclass(frozen=True)
class Scores:
    """Hold one model's statistics for one batch, in float32 or better.

    `logps` are sums over the scored tokens of each path, in nats; `lengths` count those tokens.
    `token` holds the statistics asked for, one value per slot, and always "logp". `hidden` are the
    decoder's states that predict each slot, there only when they were asked for.
    """

    logps: Float[Tensor, " path"]
    lengths: Int[Tensor, " path"]
    token: Mapping[str, Float[Tensor, " slot"]]
    top: TopTokens | None = None
    hidden: Float[Tensor, "slot hidden"] | None = None


def score(
    model: nn.Module,
    batch: TreeBatch,
    *,
    statistics: frozenset[Statistic] = LOGP_ONLY,
    reference_hidden: Float[Tensor, "slot hidden"] | None = None,
    kl_temperature: float = 1.0,
    keep_hidden: bool = False,
    chunk: int | None = None,
) -> Scores:
    """Score every path of `batch`; the batch lies on the model's device.

    Divergences need `reference_hidden`, what the reference's decoder computed for the same slots
    (`ReferenceProvider.hidden`). Raises BackendError naming the trees whose log-probability is not
    a finite number.
    """
    parts = open_model(model)
    divergences = sorted(statistics & DIVERGENCES)
    if divergences and hasattr(parts.head.linear, "lora_A"):
        raise ConfigError(
            f"policy: {divergences[0]} needs the head that policy and reference share, and the "
            "head has an adapter of its own; leave lm_head out of the adapter's targets"
        )
    hidden = hidden_at_slots(parts, batch)
    found = token_statistics(
        parts.head,
        hidden,
        batch.target,
        statistics=statistics | LOGP_ONLY,
        reference_hidden=reference_hidden,
        kl_temperature=kl_temperature,
        chunk=chunk,
    )
    logps = sum_paths(found.values["logp"], batch)
    check_finite(logps, batch)
    kept = hidden if keep_hidden else None
    return Scores(logps, count_scored(batch), found.values, found.top, kept)


def sum_paths(values: Float[Tensor, " slot"], batch: TreeBatch) -> Float[Tensor, " path"]:
    """Return the sum of a slot statistic over each path.

    Added up in float64 and rounded once, so that the order in which a device adds does not show.
    """
    sums = torch.zeros(batch.n_paths, dtype=torch.float64, device=values.device)
    sums = sums.index_add(0, batch.entry_path, values[batch.entry_slot].double())
    return sums.to(precise_dtype(values.dtype))


def pad_paths(
    values: Float[Tensor, "slot *axis"], batch: TreeBatch
) -> Float[Tensor, "path token *axis"]:
    """Return a slot statistic path by path, token after token, with zeros after each path's end."""
    lengths = count_scored(batch)
    starts = lengths.cumsum(0) - lengths
    place = torch.arange(len(batch.entry_path), device=values.device) - starts[batch.entry_path]
    width = int(lengths.max())
    padded = values.new_zeros(batch.n_paths, width, *values.shape[1:])
    return padded.index_put((batch.entry_path, place), values[batch.entry_slot])


def scored_places(batch: TreeBatch) -> Bool[Tensor, "path token"]:
    """Return where `pad_paths` holds a token."""
    lengths = count_scored(batch)
    return torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]


def count_scored(batch: TreeBatch) -> Int[Tensor, " path"]:
    """Return how many scored tokens each path has."""
    return torch.bincount(batch.entry_path, minlength=batch.n_paths)


def check_finite(logps: Float[Tensor, " path"], batch: TreeBatch) -> None:
    """Raise BackendError that names the trees with a log-probability of NaN or infinity."""
    broken = (~torch.isfinite(logps.detach())).nonzero()[:, 0]
    if len(broken) == 0:
        return
    trees = dict.fromkeys(batch.tree_ids[index] for index in batch.path_tree[broken].tolist())
    raise BackendError(
        f"score: {len(broken)} of {batch.n_paths} log-probabilities are not finite, in "
        f"{_name(list(trees))} (expected finite numbers); the weights or the adapter are damaged "
        "or have diverged: lower the learning rate, or start from an earlier checkpoint"
    )


def _name(trees: list[str], limit: int = 8) -> str:
    shown = ", ".join(trees[:limit])
    return (
        f"trees {shown}" if len(trees) <= limit else f"trees {shown} and {len(trees) - limit} more"
    )
