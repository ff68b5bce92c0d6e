"""Listwise objectives: K ranked responses to one prompt, K from list to list.

One loss per list, not reduced. Responses of all lists stand one after another and `group` says
which list each belongs to; every sum over pairs is a sum over the pairs of one group.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from trillium.errors import ShapeError
from trillium.objectives.batch import ListLogps

LipoVariant = Literal[
    "lambda",
    "lambda_rax",
    "list_mle",
    "pair_logistic",
    "pair_hinge",
    "point_mse",
    "point_sigmoid",
    "softmax",
]


def lipo(
    policy: ListLogps,
    reference: ListLogps,
    *,
    label: Float[Tensor, " response"],
    variant: LipoVariant = "lambda",
    beta: float = 0.05,
) -> Float[Tensor, " list"]:
    """Score each list with one of the LiPO losses (arXiv 2402.01878, Eq. 5 to 11).

    s = beta * (policy - reference), psi = label in [0, 1], t = rank of s in its list (1 is best,
    ties by position, no gradient), ls(z) = log sigmoid(z). Pairs are those with psi_i > psi_j.

        lambda         sum |2^psi_i - 2^psi_j| |1/ln(1+t_i) - 1/ln(1+t_j)| * -ls(s_i - s_j)   Eq. 8
        lambda_rax     K * mean over pairs of the same with log2, as the authors ran it
        pair_logistic  sum -ls(s_i - s_j)                                                     Eq. 5
        pair_hinge     sum max(0, 1 - (s_i - s_j))                                            Eq. 6
        list_mle       -log of the Plackett-Luce probability of the order of psi              Eq. 7
        point_mse      sum (psi_i - s_i)^2                                                    Eq. 9
        point_sigmoid  sum -psi_i ls(s_i) - (1 - psi_i) ls(-s_i)                             Eq. 10
        softmax        sum -psi_i / (sum_j psi_j) * log softmax(s)_i                         Eq. 11
    """
    _check_groups(policy, reference)
    s, group, n_lists = beta * (policy.logps - reference.logps), policy.group, policy.n_lists
    match variant:
        case "lambda" | "lambda_rax" | "pair_logistic" | "pair_hinge":
            return pairwise_losses(s, label, group, n_lists, variant)
        case "list_mle":
            return plackett_luce(s, label, group, n_lists)
        case "point_mse":
            return per_list((label - s).square(), group, n_lists)
        case "point_sigmoid":
            return per_list(-label * logsigmoid(s) - (1 - label) * logsigmoid(-s), group, n_lists)
        case "softmax":
            share = label / per_list(label, group, n_lists)[group]
            rivals = same_list(group) & ~torch.eye(len(s), dtype=torch.bool, device=s.device)
            surprise = _log1p_sum_exp(s[None, :] - s[:, None], rivals)
            return per_list(share * surprise, group, n_lists)


def plackett_luce(
    s: Float[Tensor, " response"],
    label: Float[Tensor, " response"],
    group: Int[Tensor, " response"],
    n_lists: int,
) -> Float[Tensor, " list"]:
    """Return minus the log-probability of drawing each list in the order of its labels.

    loss = sum over i of log(1 + sum over j below i of exp(s_j - s_i))
    """
    below = same_list(group) & is_before(label)
    return per_list(_log1p_sum_exp(s[None, :] - s[:, None], below), group, n_lists)


def pro(
    policy: ListLogps,
    *,
    reward: Float[Tensor, " response"],
    sft_weight: float = 0.05,
    eps: float = 0.0,
) -> Float[Tensor, " list"]:
    """Score each list with preference ranking optimisation (arXiv 2306.17492).

    s = S/n, r = reward sorted from best to worst, d_ki = r_k - r_i, d_kk = max over i > k of d_ki:

        rank = sum over k < K of  logsumexp(s_k d_kk, {s_i d_ki : i > k}) - s_k d_kk
        loss = rank - sft_weight * (K - 1)^2 * S_best

    Rewards are inverse temperatures, so they need a sane scale; equal rewards give no signal. The
    released code adds eps = 1e-10 inside the logarithm and thereby drops far negatives; 0 is exact.
    """
    rank = pro_ranking(policy, reward, eps=eps)
    better = same_list(policy.group) & is_before(reward)
    size = per_list(torch.ones_like(reward), policy.group, policy.n_lists)
    is_best = ~better.any(dim=0)
    best = per_list(torch.where(is_best, policy.logps, 0.0), policy.group, policy.n_lists)
    return rank - sft_weight * (size - 1).square() * best


def pro_ranking(
    policy: ListLogps, reward: Float[Tensor, " response"], *, eps: float
) -> Float[Tensor, " list"]:
    """Return the ranking term of PRO."""
    if policy.lengths is None:
        raise ShapeError("pro: the counts of scored tokens are missing; pass policy.lengths")
    s = policy.logps / policy.lengths
    gap = reward[:, None] - reward[None, :]
    below = same_list(policy.group) & is_before(reward)
    largest_gap = gap.masked_fill(~below, 0.0).amax(dim=1)
    own = s * largest_gap
    exponents = s[None, :] * gap - own[:, None]
    if eps > 0:
        # One more term in the sum of every response that has others below it.
        exponents = torch.cat([exponents, (math.log(eps) - own)[:, None]], dim=1)
        below = torch.cat([below, below.any(dim=1, keepdim=True)], dim=1)
    return per_list(_log1p_sum_exp(exponents, below), policy.group, policy.n_lists)


def pairwise_losses(
    s: Float[Tensor, " response"],
    label: Float[Tensor, " response"],
    group: Int[Tensor, " response"],
    n_lists: int,
    variant: LipoVariant,
) -> Float[Tensor, " list"]:
    """Return the sum (lambda_rax: K times the mean) over the pairs of each list."""
    upper, lower = (same_list(group) & (label[:, None] > label[None, :])).nonzero(as_tuple=True)
    difference = s[upper] - s[lower]
    losses = relu(1 - difference) if variant == "pair_hinge" else -logsigmoid(difference)
    if variant in ("lambda", "lambda_rax"):
        discount = 1 / torch.log1p(_rank(s.detach(), group).to(s.dtype))
        if variant == "lambda_rax":
            discount = discount * math.log(2)
        gain = torch.exp2(label)
        weight = (gain[upper] - gain[lower]).abs() * (discount[upper] - discount[lower]).abs()
        losses = weight * losses
    total = per_list(losses, group[upper], n_lists)
    if variant != "lambda_rax":
        return total
    n_pairs = per_list(torch.ones_like(losses), group[upper], n_lists)
    size = per_list(torch.ones_like(s), group, n_lists)
    return size * total / n_pairs.clamp(min=1)


def per_list(
    values: Float[Tensor, " any"], group: Int[Tensor, " any"], n_lists: int
) -> Float[Tensor, " list"]:
    """Sum values by list, each value in the list its `group` names."""
    return values.new_zeros(n_lists).index_add(0, group, values)


def same_list(group: Int[Tensor, " response"]) -> Bool[Tensor, "response response"]:
    """Say which two responses belong to one list."""
    return group[:, None] == group[None, :]


def is_before(value: Float[Tensor, " response"]) -> Bool[Tensor, "response response"]:
    """Say where the row's response precedes the column's: by value, descending, then position."""
    position = torch.arange(len(value), device=value.device)
    is_tied_earlier = (value[:, None] == value[None, :]) & (position[:, None] < position[None, :])
    return (value[:, None] > value[None, :]) | is_tied_earlier


def _rank(
    s: Float[Tensor, " response"], group: Int[Tensor, " response"]
) -> Int[Tensor, " response"]:
    """Return the rank of each response in its list, 1 for the highest."""
    return 1 + (same_list(group) & is_before(s)).sum(dim=0)


def _log1p_sum_exp(
    x: Float[Tensor, "response term"], included: Bool[Tensor, "response term"]
) -> Float[Tensor, " response"]:
    """Return log(1 + sum of exp(x)) over the included terms of each row; exact near zero."""
    return -logsigmoid(-torch.where(included, x, -math.inf).logsumexp(dim=1))


def _check_groups(policy: ListLogps, reference: ListLogps) -> None:
    if not torch.equal(policy.group, reference.group):
        raise ShapeError(
            f"policy has {len(policy.logps)} responses, reference has {len(reference.logps)}, or "
            "their lists differ; both must come from the same batch"
        )
