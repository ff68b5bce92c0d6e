"""CHES scores: which pairs will push the likelihood of their own chosen response down.

CHES (centred hidden embedding similarity) is computed from the hidden states of the model that
training starts from. Pure functions of sums over tokens; `passes` makes the sums.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trillium.diagnostics.config import check_share


def ches(
    chosen: Float[Tensor, "pair hidden"], rejected: Float[Tensor, "pair hidden"]
) -> Float[Tensor, " pair"]:
    """Return the CHES score of each pair (arXiv 2410.08847, Section 5).

        CHES = <S_w, S_l> - |S_w|^2

    S is the sum of the final hidden states, those that the head reads, at the positions that
    predict the response: the last prompt token to the last but one of the response. Higher: more
    displacement. Above 0 the leading term of the change of log pi(chosen) is negative.
    """
    return (chosen * rejected).sum(-1) - chosen.square().sum(-1)


def normalised_ches(
    chosen: Float[Tensor, "pair hidden"],
    rejected: Float[Tensor, "pair hidden"],
    n_chosen: Int[Tensor, " pair"],
    n_rejected: Int[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Return the length-normalised CHES score, by which pairs are filtered (arXiv 2410.08847).

    <S_w, S_l> / (n_w n_l) - |S_w|^2 / n_w^2        that is, CHES of means over tokens
    """
    return ches(chosen / n_chosen[:, None], rejected / n_rejected[:, None])


def keep_lowest(scores: Float[Tensor, " pair"], share: float) -> list[int]:
    """Return, in order, the indices of the `share` of pairs with the lowest scores; at least one.

    Equal scores are kept in the order of the file. Raises ConfigError for a share outside (0, 1].
    """
    check_share(share)
    n_kept = max(1, math.floor(share * len(scores) + 0.5))
    return sorted(torch.argsort(scores, stable=True)[:n_kept].tolist())
