"""Pairwise objectives against a frozen reference: DPO and its closest relatives.

Each function is two steps: compare the log-ratios of the two responses, then turn that number into
a loss. Log-probabilities are sums over scored tokens, in nats; each function returns one loss per
pair, not reduced. The notation of the docstrings, with w for chosen and l for rejected:

    u_w = policy.chosen - reference.chosen      u_l = policy.rejected - reference.rejected
    n_w, n_l = counts of scored tokens          ls(z) = log sigmoid(z)
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from trillium.objectives.batch import PairLogps
from trillium.objectives.numerics import largest_exponent, one_minus_exp

Divergence = Literal["reverse_kl", "forward_kl", "js", "alpha"]


def dpo(
    policy: PairLogps,
    reference: PairLogps | None,
    *,
    beta: float = 0.1,
    label_smoothing: float | Float[Tensor, " pair"] = 0.0,
) -> Float[Tensor, " pair"]:
    """Score each pair with the DPO loss (arXiv 2305.18290, Eq. 7).

        z    = beta * (u_w - u_l)
        loss = -(1-eps) ls(z) - eps ls(-z)        eps = label_smoothing (the authors' cDPO note)

    One smoothing per pair is that of MCTS-DPO (arXiv 2405.00451, Eq. 6), from visit counts.
    Without a reference, u is the policy's own log-probability (`reference_free`).
    TRL 1.16 has the same loss as `sigmoid`, but ignores `label_smoothing` there and has no
    reference-free form.
    Raises ShapeError when policy and reference disagree on the number of pairs.
    """
    u = policy.against(reference)
    z = beta * (u.chosen - u.rejected)
    return -(1 - label_smoothing) * logsigmoid(z) - label_smoothing * logsigmoid(-z)


def ipo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    tau: float = 0.1,
    normalize: Literal["none", "tokens"] = "tokens",
) -> Float[Tensor, " pair"]:
    """Score each pair by its squared distance from a fixed margin (arXiv 2310.12036, Eq. 17).

        none:    loss = (u_w - u_l - 1/(2 tau))^2
        tokens:  loss = (u_w/n_w - u_l/n_l - 1/(2 tau))^2

    Reading: the paper writes sums; we default to means, which TRL 1.16 reports as confirmed by the
    authors, because one tau then serves responses of any length.
    """
    u = policy.against(reference)
    if normalize == "tokens":
        u = u.per_token()
    return (u.chosen - u.rejected - 1 / (2 * tau)).square()


def hinge(
    policy: PairLogps, reference: PairLogps | None, *, beta: float = 0.05
) -> Float[Tensor, " pair"]:
    """Score each pair by how far its margin falls short of one (arXiv 2309.06657, Eq. 10).

        loss = max(0, 1 - beta * (u_w - u_l))

    Without a reference, u is the policy's own log-probability: the form of SLiC, Eq. 9 there
    (`normalize_by_ref=False`).
    """
    u = policy.against(reference)
    return relu(1 - beta * (u.chosen - u.rejected))


def rdpo(
    policy: PairLogps, reference: PairLogps, *, beta: float = 0.1, epsilon: float = 0.1
) -> Float[Tensor, " pair"]:
    """Score each pair with DPO, unbiased under flipped labels (rDPO, arXiv 2403.00409).

        z    = beta * (u_w - u_l)
        loss = (-(1-epsilon) ls(z) + epsilon ls(-z)) / (1 - 2 epsilon)

    When a share epsilon of the labels is flipped, its expectation is the DPO loss on clean labels.
    A single loss can be negative and has no lower bound; it must not be clamped.
    """
    u = policy.against(reference)
    z = beta * (u.chosen - u.rejected)
    return (-(1 - epsilon) * logsigmoid(z) + epsilon * logsigmoid(-z)) / (1 - 2 * epsilon)


def fdpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    divergence: Divergence = "reverse_kl",
    alpha: float = 0.5,
    beta: float = 0.1,
) -> Float[Tensor, " pair"]:
    """Score each pair with DPO under a chosen f-divergence (arXiv 2309.16240).

        loss = -ls(beta * (f'(u_w) - f'(u_l)))

    `f_prime` lists the divergences. Differs from TRL 1.16: its `f_alpha_divergence_coef` is
    1 - alpha, and its forward KL is not clamped, so in float32 it is infinite below u = -89.
    """
    u = policy.against(reference)
    chosen, rejected = (f_prime(side, divergence, alpha) for side in (u.chosen, u.rejected))
    return -logsigmoid(beta * (chosen - rejected))


def f_prime(
    u: Float[Tensor, " response"], divergence: Divergence, alpha: float
) -> Float[Tensor, " response"]:
    """Return f'(exp(u)) up to a constant; beta times it is the reward of a response.

        reverse_kl   u                    forward_kl   -exp(-u)
        js           ls(u) (+ log 2)      alpha        (1 - exp(-alpha u)) / alpha

    alpha near 0 is reverse KL; at 1 it is forward KL plus a constant. The two exponents are clamped
    at 80 in float32 (700 in float64): beyond, the value stays finite and the gradient is zero.
    """
    match divergence:
        case "reverse_kl":
            return u
        case "js":
            return logsigmoid(u)
        case "forward_kl":
            return -torch.exp((-u).clamp(max=largest_exponent(u.dtype)))
        case "alpha":
            return one_minus_exp((-alpha * u).clamp(max=largest_exponent(u.dtype))) / alpha


def ln_dpo(policy: PairLogps, reference: PairLogps, *, beta: float = 2.0) -> Float[Tensor, " pair"]:
    """Score each pair with DPO on log-ratios per token (arXiv 2407.15229, LN-DPO).

        loss = -ls(beta * (u_w/n_w - u_l/n_l))

    A mean is smaller than a sum, so beta is ten to a hundred times that of DPO.
    """
    u = policy.against(reference).per_token()
    return -logsigmoid(beta * (u.chosen - u.rejected))


def rpo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    beta: float = 0.01,
    eta: float = 0.005,
    sft: Literal["sum_beta", "mean"] = "sum_beta",
) -> Float[Tensor, " pair"]:
    """Score each pair with DPO plus likelihood of the chosen response (arXiv 2405.16436).

        sum_beta:  loss = -ls(beta * (u_w - u_l)) - eta * beta * S_w
        mean:      loss = -ls(beta * (u_w - u_l)) - eta * S_w/n_w          S_w = policy.chosen

    `sum_beta` is the paper's main form; `mean` is the default of the released code, with beta 0.5
    and eta 0.2. Differs from TRL 1.16: its `sft` term is one mean over all tokens of the batch, in
    which long responses weigh more.
    """
    losses = dpo(policy, reference, beta=beta)
    if sft == "sum_beta":
        return losses - eta * beta * policy.chosen
    return losses - eta * policy.per_token().chosen
