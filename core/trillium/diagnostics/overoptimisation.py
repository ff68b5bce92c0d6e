"""Signs of likelihood over-optimisation in the policy's own samples, and when to stop.

After arXiv 2410.11677: while a policy improves, the entropy over its ten likeliest tokens falls;
when that entropy turns up (DPO, IPO) or the mass of the ten falls (hinge losses), it has begun to
over-optimise. Pure functions; `watch` applies them while a run trains.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

N_CONSIDERED = 10
"""Likeliest tokens that entropy and mass are taken over."""

PATIENCE = 2
"""Looks in a row that must show the sign before a run is stopped; ours."""

TOLERANCE = 0.05
"""Relative change that counts as a sign and not as noise; ours."""


def top_k_entropy(logps: Float[Tensor, "token top"]) -> float:
    """Return the mean over tokens of H = - sum_{i <= 10} p_i log2 p_i, in bits.

    `logps` are natural log-probabilities, best first. Reading: the paper does not say whether the
    ten are renormalised; we take them as they are, so that mass and entropy are two figures.
    """
    top = logps[:, :N_CONSIDERED].double()
    return float(-(top.exp() * top).nan_to_num(nan=0.0).sum(-1).mean() / math.log(2))


def top_k_mass(logps: Float[Tensor, "token top"]) -> float:
    """Return the mean over tokens of the probability of the ten likeliest tokens."""
    return float(logps[:, :N_CONSIDERED].double().exp().sum(-1).mean())


def distinct_n(samples: Sequence[Sequence[int]], *, n_vocab: int, longest: int = 5) -> float:
    """Return expectation-adjusted distinct-n, averaged over n = 1..5; 0 when there is no n-gram.

        EAD_n = distinct / (V (1 - ((V-1)/V)^C))        C n-grams in all (arXiv 2202.13587)

    Near 1 the samples repeat no more than chance; near 0 they are all alike.
    """
    values = []
    for n in range(1, longest + 1):
        grams = [
            tuple(sample[place : place + n])
            for sample in samples
            for place in range(len(sample) - n + 1)
        ]
        if grams:
            expected = -n_vocab * math.expm1(len(grams) * math.log1p(-1 / n_vocab))
            values.append(len(set(grams)) / expected)
    return sum(values) / len(values) if values else 0.0


def has_turned_up(entropies: Sequence[float]) -> bool:
    """Say whether the entropy fell from its start and has since risen, look after look.

    The last PATIENCE values must each exceed the lowest before them by more than TOLERANCE.
    """
    before, after = entropies[:-PATIENCE], entropies[-PATIENCE:]
    if len(before) < 2:
        return False
    lowest = min(before)
    has_fallen = lowest < before[0] * (1 - TOLERANCE)
    return has_fallen and all(value > lowest * (1 + TOLERANCE) for value in after)


def has_fallen(masses: Sequence[float]) -> bool:
    """Say whether the mass lies below its highest, by more than TOLERANCE, look after look."""
    before, after = masses[:-PATIENCE], masses[-PATIENCE:]
    return bool(before) and all(value < max(before) * (1 - TOLERANCE) for value in after)


def is_overoptimised(objective: str, entropies: Sequence[float], masses: Sequence[float]) -> bool:
    """Apply the sign that belongs to the objective: the mass for hinge losses, else the entropy."""
    if objective in ("hinge", "slic"):
        return has_fallen(masses)
    return has_turned_up(entropies)
