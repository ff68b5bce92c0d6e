"""Objectives on single responses with a verdict each: no pairs needed.

One loss per response, not reduced, unless the responses share a normalisation. Log-probabilities
are sums over scored tokens, in nats.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from trillium.errors import ShapeError
from trillium.objectives.batch import SingleLogps


def kto(
    policy: SingleLogps,
    reference: SingleLogps,
    *,
    label: Float[Tensor, " row"],
    kl: Float[Tensor, ""],
    beta: float = 0.1,
    w_desirable: float = 1.0,
    w_undesirable: float = 1.0,
) -> Float[Tensor, " row"]:
    """Score each response with KTO, as a gain or a loss (arXiv 2402.01306).

        u = policy - reference
        desirable (label 1):    loss = w_desirable   * sigmoid(beta * (kl - u))
        undesirable (label 0):  loss = w_undesirable * sigmoid(beta * (u - kl))

    `kl` is the reference point z0, one constant for the optimizer batch (`kto_reference_point`).
    Keep w_desirable * n_desirable : w_undesirable * n_undesirable between 1:1 and 4:3.
    Raises ShapeError when policy and reference disagree on the number of responses.
    """
    u = _logratio(policy, reference)
    is_desirable = label > 0.5
    weight = torch.where(is_desirable, u.new_tensor(w_desirable), u.new_tensor(w_undesirable))
    z = beta * torch.where(is_desirable, kl - u, u - kl)
    # 1 - sigmoid(x) = sigmoid(-x), and exp(logsigmoid) has a gradient that does not cancel.
    return weight * torch.exp(logsigmoid(z))


def kto_reference_point(policy: SingleLogps, reference: SingleLogps) -> Float[Tensor, ""]:
    """Estimate KTO's z0 = max(0, mean log-ratio) from responses paired with other prompts.

    Both models must have scored the same mismatched (prompt, response) rows. The estimate is biased
    but cheap, and the paper lets no gradient through it. Raises ShapeError when there is no row.
    """
    if not policy.logps.numel():
        raise ShapeError(
            "kto: no mismatched response to estimate the reference point from (needs one or more); "
            "pass the rows of the batch"
        )
    # The reference point is a constant of the loss.
    return _logratio(policy, reference).detach().mean().clamp(min=0)


def _logratio(policy: SingleLogps, reference: SingleLogps) -> Float[Tensor, " row"]:
    if len(policy.logps) != len(reference.logps):
        raise ShapeError(
            f"policy has {len(policy.logps)} responses, reference has {len(reference.logps)}; "
            "both must come from the same batch"
        )
    return policy.logps - reference.logps


def poft(
    policy: SingleLogps,
    *,
    aligned_mean_logps: Float[Tensor, "row *model"],
    beta: float = 1.0,
    gamma: float = 0.0,
) -> Float[Tensor, " row"]:
    """Score supervised targets against what aligned models think of them (arXiv 2412.12865).

        loss = -log sigmoid(beta * (S/n - mean over models of aligned_mean_logps) + gamma)

    Each model's value is a mean per token under its own tokenizer and template, prepared once. The
    policy learns most from targets that aligned models already find likely.
    """
    if policy.lengths is None:
        raise ShapeError("poft: the counts of scored tokens are missing; pass policy.lengths")
    aligned = aligned_mean_logps.reshape(len(aligned_mean_logps), -1).mean(-1)
    return -logsigmoid(beta * (policy.logps / policy.lengths - aligned) + gamma)


def meet(
    good: SingleLogps, bad: SingleLogps, *, reduction: Literal["pooled", "sum"] = "pooled"
) -> Float[Tensor, ""]:
    """Return the loss of MEET, one control adapter per kind of response (arXiv 2310.00819).

        pooled:  loss = -(sum S_good + sum S_bad) / (sum n_good + sum n_bad)
        sum:     loss = -(sum S_good + sum S_bad)

    `good` are preferred responses scored with the good adapter on, `bad` the others with the bad
    one; the good adapter serves. A scalar: the two kinds need not be paired.
    Reading: the paper leaves the reduction open; `pooled` weighs every token alike.
    """
    total = -(good.logps.sum() + bad.logps.sum())
    if reduction == "sum":
        return total
    if good.lengths is None or bad.lengths is None:
        raise ShapeError("meet: the counts of scored tokens are missing; pass lengths")
    return total / (good.lengths.sum() + bad.lengths.sum())
