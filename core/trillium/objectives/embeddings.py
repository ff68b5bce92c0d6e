"""Objectives on vectors: preference embeddings, degrees of preference, trajectory embeddings."""

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, relu

from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo


def gpm(
    chosen: Float[Tensor, "pair dimension"],
    rejected: Float[Tensor, "pair dimension"],
    *,
    tau: float = 0.1,
    scales: tuple[float, ...] | None = None,
) -> Float[Tensor, " pair"]:
    """Score each pair of embeddings with the general preference model (arXiv 2410.02197).

        loss = -log sigmoid(score / tau)        score as in `gpm_scores`

    A reward model that can hold cycles: a over b, b over c, c over a.
    """
    return -logsigmoid(gpm_scores(chosen, rejected, scales=scales) / tau)


def gpm_scores(
    first: Float[Tensor, "pair dimension"],
    second: Float[Tensor, "pair dimension"],
    *,
    scales: tuple[float, ...] | None = None,
) -> Float[Tensor, " pair"]:
    """Return how much the first response is preferred to the second, antisymmetric.

        score = sum over k of scales[k] * (v_2k v'_2k+1 - v_2k+1 v'_2k)

    The paper normalises embeddings to length one and lets the prompt choose the scales.
    Raises ShapeError when the numbers of an embedding do not come in planes of two.
    """
    if first.shape[1] % 2:
        raise ShapeError(
            f"gpm: an embedding has {first.shape[1]} numbers (needs an even count, two for each "
            "plane); give the model an even dimension"
        )
    area = first[:, 0::2] * second[:, 1::2] - first[:, 1::2] * second[:, 0::2]
    return area.sum(-1) if scales is None else area @ area.new_tensor(scales)


def spo_degree(
    policy: PairLogps,
    reference: PairLogps,
    *,
    degree_logits: Float[Tensor, "pair degree"],
    degree_label: Real[Tensor, " pair"],
    beta: float = 0.1,
    gamma: float = 0.1,
) -> Float[Tensor, " pair"]:
    """Score each pair with DPO while a head tells how degraded a response is (arXiv 2409.17791).

        loss = -ls(beta * (u_w - u_l)) + gamma * cross entropy(degree_logits, degree_label)

    Degree k means that k key phrases were deleted from the policy's own text; `degree_label` holds
    whole numbers that count from 0, and `n_degrees` is how many there are.
    Reading: the released repository is empty; only the idea of the degrees is confirmed.
    """
    degree = cross_entropy(degree_logits, degree_label.long(), reduction="none")
    return dpo(policy, reference, beta=beta) + gamma * degree


def oppo(
    z_star: Float[Tensor, " dimension"],
    preferred: Float[Tensor, "pair dimension"],
    other: Float[Tensor, "pair dimension"],
    *,
    recon: Float[Tensor, ""],
    margin: float = 1.0,
    pref_ratio: float = 0.1,
    norm_ratio: float = 0.1,
    pd_eps: float = 1e-6,
) -> Float[Tensor, ""]:
    """Return the loss of offline preference-guided policy optimisation (arXiv 2305.16217).

        loss = recon + pref_ratio * triplet + norm_ratio * norm

    `z_star` is the best trajectory's embedding, `recon` the error of the policy that follows
    embeddings. Alternate: train the encoder with z_star held still, then z_star with the encoder
    held still. Not a language method.
    """
    triplet = oppo_triplet(z_star, preferred, other, margin=margin, pd_eps=pd_eps)
    return recon + pref_ratio * triplet + norm_ratio * oppo_norm(preferred, other)


def oppo_triplet(
    z_star: Float[Tensor, " dimension"],
    preferred: Float[Tensor, "pair dimension"],
    other: Float[Tensor, "pair dimension"],
    *,
    margin: float,
    pd_eps: float,
) -> Float[Tensor, ""]:
    """Return mean max(0, |z - preferred| - |z - other| + margin), distances as torch has them.

    pd_eps is added to every coordinate of a difference, which keeps the gradient of a distance
    finite at zero.
    """
    near, far = (torch.linalg.norm(z_star - each + pd_eps, dim=-1) for each in (preferred, other))
    loss: Float[Tensor, ""] = relu(near - far + margin).mean()
    return loss


def oppo_norm(
    preferred: Float[Tensor, "pair dimension"], other: Float[Tensor, "pair dimension"]
) -> Float[Tensor, ""]:
    """Return the mean of (|phi| - 1)^2 over preferred embeddings, plus that over the others."""
    norms = (torch.linalg.norm(each, dim=-1) for each in (preferred, other))
    first, second = ((norm - 1).square().mean() for norm in norms)
    total: Float[Tensor, ""] = first + second
    return total
