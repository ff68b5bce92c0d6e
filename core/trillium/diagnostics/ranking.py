"""How many pairs a policy ranks right, how many it could at best, and why one stays wrong.

After arXiv 2405.19534. Everything is a function of sums of log-probabilities, in nats.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from trillium.errors import ConfigError
from trillium.objectives.batch import PairLogps

_CERTAIN = 1e-3


def is_ranked_right(policy: PairLogps) -> Bool[Tensor, " pair"]:
    """Say which pairs have pi(chosen) >= pi(rejected); the mean is the ranking accuracy."""
    return policy.chosen >= policy.rejected


def difficulty(reference: PairLogps) -> Float[Tensor, " pair"]:
    """Return c = log pi_ref(rejected) / pi_ref(chosen); above 0 the reference ranks it wrong."""
    return reference.rejected - reference.chosen


def loss_bound(reference: PairLogps, *, beta: float) -> Float[Tensor, " pair"]:
    """Return the DPO loss at or below which a pair is ranked right: -log sigmoid(beta c).

    arXiv 2405.19534, Section 4: a policy ranks a pair right if and only if the pair's DPO loss
    is at most this, so a difficult pair needs a loss near zero.
    """
    return softplus(-beta * difficulty(reference))


def is_ranked_right_ideally(
    reference: PairLogps, *, beta: float, agreement: float = 1.0
) -> Bool[Tensor, " pair"]:
    """Say which pairs the optimum of DPO ranks right (arXiv 2405.19534, Section 3).

        log pi_ref(w)/pi_ref(l) + log(a/(1-a)) / beta > 0        a: share of annotators that agree

    The mean is the idealised ranking accuracy. Agreement 1 counts as 0.999, as in the paper.
    Raises ConfigError for beta or an agreement out of range.
    """
    if not beta > 0 or not 0 < agreement <= 1:
        raise ConfigError(
            f"ranking: beta is {beta:g} and agreement {agreement:g} (beta above 0, agreement above "
            "0, at most 1); correct them"
        )
    a = min(agreement, 1 - _CERTAIN)
    return -difficulty(reference) + math.log(a / (1 - a)) / beta > 0


def rank_correlation(x: Float[Tensor, " pair"], y: Float[Tensor, " pair"]) -> float:
    """Return Spearman's correlation; equal values share their mean rank; NaN without variation."""
    ranks = torch.stack([_ranks(x), _ranks(y)])
    centred = ranks - ranks.mean(1, keepdim=True)
    norms = centred.norm(dim=1)
    if len(x) < 2 or not bool((norms > 0).all()):
        return math.nan
    return float((centred[0] @ centred[1]) / (norms[0] * norms[1]))


def _ranks(values: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    distinct, place = torch.unique(values, sorted=True, return_inverse=True)
    counts = torch.bincount(place, minlength=len(distinct)).double()
    return (counts.cumsum(0) - (counts - 1) / 2)[place]
