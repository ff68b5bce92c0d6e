"""Merging as pure functions of tensors: linear, SLERP, TIES and DARE.

Computed in float32 or better and returned so; callers round once. PEFT 0.21 has TIES and DARE for
adapters too, but divides weighted updates by their count and not by their weights, so that mixing
weights that add up to one shrink the result; where the weights are all 1 the two agree (a test).
"""

import math
from collections.abc import Sequence
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.errors import ConfigError, ShapeError
from trillium.merging.config import Method

METHODS: tuple[Method, ...] = get_args(Method)

# Beyond this cosine the two directions count as one, and the straight line is taken.
_COLINEAR = 0.9995


def linear(
    tensors: Sequence[Float[Tensor, "*shape"]], weights: Sequence[float]
) -> Float[Tensor, "*shape"]:
    """Return sum_i w_i x_i; a weight of 0 leaves its tensor out, so that ends come out bit by bit.

    arXiv 2203.05482 for whole models, 2212.04089 for updates.
    """
    _check(tensors, weights)
    parts = [(w, _precise(x)) for w, x in zip(weights, tensors, strict=True) if w]
    if not parts:
        return torch.zeros_like(_precise(tensors[0]))
    total = parts[0][1].clone() if parts[0][0] == 1 else parts[0][0] * parts[0][1]
    for weight, tensor in parts[1:]:
        total.add_(tensor, alpha=weight)
    return total


def slerp_weights(dot: float, norm_a: float, norm_b: float, t: float) -> tuple[float, float]:
    """Return the factors of a and b on the arc between them, t = 0 at a (mergekit's SLERP).

        cos W = <a, b> / |a| |b|        sin((1-t) W) / sin W,   sin(t W) / sin W

    Directions that are nearly the same or opposite, and zero vectors, take 1 - t and t.
    """
    if t in (0.0, 1.0):
        return 1.0 - t, t
    size = norm_a * norm_b
    cosine = min(1.0, max(-1.0, dot / size)) if size > 0 else 1.0
    if abs(cosine) > _COLINEAR:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def slerp(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], t: float
) -> Float[Tensor, "*shape"]:
    """Return the point at t on the arc from a to b; the ends are a and b, bit by bit."""
    x, y = a.double().flatten(), b.double().flatten()
    factors = slerp_weights(float(x @ y), float(x.norm()), float(y.norm()), t)
    return linear([a, b], factors)


def ties(
    updates: Sequence[Float[Tensor, "*shape"]], weights: Sequence[float], *, density: float
) -> Float[Tensor, "*shape"]:
    """Trim, elect signs, and average what agrees (arXiv 2306.01708, Algorithm 1).

        keep the `density` largest entries of each update, by size; the sign of an entry is that of
        sum_i w_i x_i; the result is the mean of the kept entries of that sign, weighted by w

    With equal weights this is the paper's. Scale the result for the paper's lambda.
    """
    _check(updates, weights)
    return _elect([_trim(_precise(x), density) for x in updates], weights)


def dare(
    updates: Sequence[Float[Tensor, "*shape"]],
    weights: Sequence[float],
    *,
    density: float,
    generator: torch.Generator,
    elects: bool,
) -> Float[Tensor, "*shape"]:
    """Drop entries at random, rescale the rest, and add up (arXiv 2311.03099, Eq. 1 to 3).

    each entry survives with probability `density` and is divided by it, so that its expectation
    stays; then linear, or with `elects` the signs and means of TIES
    """
    _check(updates, weights)
    kept = [_drop(_precise(x), density, generator) for x in updates]
    return _elect(kept, weights) if elects else linear(kept, weights)


def merge_updates(
    method: Method,
    updates: Sequence[Float[Tensor, "*shape"]],
    weights: Sequence[float],
    *,
    density: float,
    generator: torch.Generator,
) -> Float[Tensor, "*shape"]:
    """Merge updates by any of the methods; SLERP takes two, with weights 1 - t and t."""
    match method:
        case "linear":
            return linear(updates, weights)
        case "slerp":
            return slerp(updates[0], updates[1], weights[1])
        case "ties":
            return ties(updates, weights, density=density)
        case _:
            elects = method == "dare_ties"
            return dare(updates, weights, density=density, generator=generator, elects=elects)


def _precise(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return x if x.dtype == torch.float64 else x.float()


def _trim(x: Float[Tensor, "*shape"], density: float) -> Float[Tensor, "*shape"]:
    """Keep the largest entries by size, floor(density * n) of them; the first of equal ones."""
    n_kept = int(density * x.numel())
    order = torch.argsort(x.abs().flatten(), descending=True, stable=True)
    kept = torch.zeros_like(x.flatten())
    kept[order[:n_kept]] = x.flatten()[order[:n_kept]]
    return kept.view_as(x)


def _drop(
    x: Float[Tensor, "*shape"], density: float, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    draws = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    return torch.where(draws < density, x / density, torch.zeros_like(x))


def _elect(
    updates: Sequence[Float[Tensor, "*shape"]], weights: Sequence[float]
) -> Float[Tensor, "*shape"]:
    stacked = torch.stack(list(updates))
    w = stacked.new_tensor(list(weights)).view(-1, *[1] * updates[0].ndim)
    # A negative weight turns the update round, and its vote with it.
    stacked, w = stacked * w.sign(), w.abs()
    sign = torch.where((w * stacked).sum(0) >= 0, 1.0, -1.0).to(stacked.dtype)
    agrees = (stacked.sign() == sign).to(stacked.dtype)
    total = (w * agrees).sum(0)
    mean = (w * agrees * stacked).sum(0) / torch.where(total == 0, 1.0, total)
    return mean.to(stacked.dtype)


def _check(tensors: Sequence[Tensor], weights: Sequence[float]) -> None:
    if not tensors or len(tensors) != len(weights):
        raise ConfigError(
            f"merge: {len(tensors)} tensors and {len(weights)} weights (needs one weight each, at "
            "least one); give a weight per input"
        )
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise ShapeError(f"merge: tensors of shapes {sorted(shapes)}; merge models of one shape")
