"""Objectives that look at single tokens: divergences, masks, values and token rewards.

Statistics of pairs come as `PairTokens`, zero where no token is scored, so a sum over tokens is a
sum over the response. With w for chosen and l for rejected: u = policy - reference summed, K = sum
over tokens of D(reference || policy) over the whole vocabulary, ls(z) = log sigmoid(z).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from trillium.errors import ShapeError
from trillium.objectives.batch import PairTokens
from trillium.objectives.numerics import largest_exponent


def tdpo(
    policy: PairTokens,
    reference: PairTokens,
    *,
    kl: PairTokens,
    variant: Literal["tdpo1", "tdpo2"] = "tdpo2",
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Float[Tensor, " pair"]:
    """Score each pair with token-level DPO, which also holds the divergence (arXiv 2404.11999).

        tdpo1:  loss = -ls(beta * (u_w - u_l - (K_l - K_w)))
        tdpo2:  loss = -ls(beta * (u_w - u_l - alpha * (K_l - stopped K_w)))

    The default is the paper's second form; the released configuration uses the first.
    """
    u_chosen, u_rejected = _totals(policy, reference)
    k_chosen, k_rejected = kl.chosen.sum(-1), kl.rejected.sum(-1)
    if variant == "tdpo1":
        return -logsigmoid(beta * (u_chosen - u_rejected - (k_rejected - k_chosen)))
    # Only the divergence of the rejected side is to be shaped.
    gap = k_rejected - k_chosen.detach()
    return -logsigmoid(beta * (u_chosen - u_rejected - alpha * gap))


def sparsepo(
    policy: PairTokens,
    reference: PairTokens,
    *,
    kl: PairTokens,
    mask_u: PairTokens,
    mask_d: PairTokens,
    beta: float = 0.1,
    l1_u: float = 0.0,
    l1_d: float = 0.0,
) -> Float[Tensor, " pair"]:
    """Score each pair with TDPO in which masks choose the tokens that matter (arXiv 2410.05102).

        u    = sum over tokens of mask_u * (policy - reference)        K = sum of mask_d * kl
        loss = -ls(beta * (u_w - u_l - (K_l - K_w))) + l1_u * sum |mask_u| + l1_d * sum |mask_d|

    Masks of ones give tdpo1. A mask shared by both uses (mask_u = mask_d) is penalised twice unless
    both weights are halved. `mapo_mask` computes the masks that are not learned.
    """
    weighted = [
        PairTokens(mask.chosen * tokens.chosen, mask.rejected * tokens.rejected)
        for mask, tokens in ((mask_u, policy), (mask_u, reference), (mask_d, kl))
    ]
    penalties = (
        l1 * (mask.chosen.abs().sum(-1) + mask.rejected.abs().sum(-1))
        for l1, mask in ((l1_u, mask_u), (l1_d, mask_d))
    )
    return tdpo(weighted[0], weighted[1], kl=weighted[2], variant="tdpo1", beta=beta) + sum(
        penalties
    )


def mapo_mask(
    hidden: Float[Tensor, "row token layer width"], scored: Bool[Tensor, "row token"]
) -> Float[Tensor, "row token"]:
    """Return the masks of MaPO from the reference's hidden states, without gradient.

    Each layer's mean activation is standardised over the scored tokens of a response and rescaled
    to [0, 1]; the mask is the mean over layers (arXiv 2410.05102).
    """
    # The masks of MaPO are constants of the loss.
    activation = hidden.detach().mean(-1)
    is_scored = scored[..., None]
    count = is_scored.sum(1, keepdim=True)
    mean = torch.where(is_scored, activation, 0.0).sum(1, keepdim=True) / count
    spread = torch.where(is_scored, (activation - mean).square(), 0.0).sum(1, keepdim=True) / count
    z = (activation - mean) / spread.sqrt().clamp(min=torch.finfo(activation.dtype).tiny)
    low = z.masked_fill(~is_scored, torch.inf).amin(1, keepdim=True)
    high = z.masked_fill(~is_scored, -torch.inf).amax(1, keepdim=True)
    width = (high - low).clamp(min=torch.finfo(activation.dtype).tiny)
    return torch.where(is_scored, (z - low) / width, 0.0).mean(-1)


def oreo(
    policy: Float[Tensor, "row token"],
    reference: Float[Tensor, "row token"],
    *,
    values: Float[Tensor, "row token"],
    scored: Bool[Tensor, "row token"],
    reward: Float[Tensor, " row"],
    starts: Bool[Tensor, "row token"] | None = None,
    reverse_kl: Float[Tensor, "row token"] | None = None,
    forward_kl: Float[Tensor, "row token"] | None = None,
    divergence: Literal["reverse", "forward", "sampled"] = "reverse",
    beta: float = 0.03,
    alpha: float = 0.01,
) -> Float[Tensor, " row"]:
    """Score each trajectory with OREO, value and policy on one residual (arXiv 2412.16145).

        A_t    = sum over i >= t of log-ratio_i
        value  = mean_t (beta * stopped A_t + V_t - R)^2
        policy = mean_t (beta * (stopped A_{t+1} + log-ratio_t) + stopped V_t - R)^2
        loss   = value + policy + alpha * mean_t divergence_t          (Eq. 8 and 9)

    `starts` marks the tokens that begin a step: then t counts steps, a log-ratio is the sum over
    its step, and V_t the value before its first token (Section 3.3; with one step, the response
    level). Without it every scored token is a step. The divergence is a mean over tokens always.

    The divergence is that of Eq. 9, `reverse_kl`, D(policy || reference) over the whole vocabulary,
    as in the recipes of the released code (jwhj/OREO@6f7403b, --kl_reg 0.01 --unbiased_kl). Its
    --forward_kl is `forward_kl`, D(reference || policy). Without either flag its trainer has
    `sampled`, exp(-d) + d - 1 of the log-ratio d of the trajectory's own tokens, with the exponent
    clamped here; the policy did not sample those tokens, so it is no estimate of either.
    """
    losses = oreo_losses(
        policy, reference, values=values, scored=scored, reward=reward, starts=starts, beta=beta
    )
    total = losses.value + losses.policy
    if alpha == 0:
        return total
    each = {"reverse": reverse_kl, "forward": forward_kl, "sampled": None}[divergence]
    if divergence == "sampled":
        logratio = torch.where(scored, policy - reference, 0.0)
        exponent = (-logratio).clamp(max=largest_exponent(logratio.dtype))
        each = torch.expm1(exponent) + logratio
    if each is None:
        raise ShapeError(
            f"oreo: alpha is {alpha:g} and the divergence from the reference is missing; pass "
            f"{divergence}_kl, or alpha=0"
        )
    return total + alpha * torch.where(scored, each, 0.0).sum(-1) / scored.sum(-1)


@dataclass(frozen=True)
class OreoLosses:
    """Hold the two losses of OREO, one number per trajectory."""

    value: Float[Tensor, " row"]
    policy: Float[Tensor, " row"]


def oreo_losses(
    policy: Float[Tensor, "row token"],
    reference: Float[Tensor, "row token"],
    *,
    values: Float[Tensor, "row token"],
    scored: Bool[Tensor, "row token"],
    reward: Float[Tensor, " row"],
    beta: float,
    starts: Bool[Tensor, "row token"] | None = None,
) -> OreoLosses:
    """Return the value loss and the policy loss of OREO; the first scored token begins a step."""
    logratio = torch.where(scored, policy - reference, 0.0)
    if starts is not None:
        step = (starts.long().cumsum(-1) - 1).clamp(min=0)
        n_steps = starts.sum(-1)
        empty = logratio.new_zeros(len(logratio), int(n_steps.max()))
        logratio = empty.scatter_add(1, step, logratio)
        values = empty.to(values.dtype).scatter_add(1, step, torch.where(starts, values, 0.0))
        scored = torch.arange(empty.shape[1], device=empty.device) < n_steps[:, None]
    # Each side regresses on the other, which is held still (stopped) as in the paper.
    suffix = logratio.detach().flip(-1).cumsum(-1).flip(-1)
    goal = reward[:, None]
    value = (beta * suffix + values - goal).square()
    later = suffix - logratio.detach()
    now = (beta * (later + logratio) + values.detach() - goal).square()
    count = scored.sum(-1)
    return OreoLosses(
        value=torch.where(scored, value, 0.0).sum(-1) / count,
        policy=torch.where(scored, now, 0.0).sum(-1) / count,
    )


def _totals(
    policy: PairTokens, reference: PairTokens
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Return the summed log-ratios of chosen and rejected responses."""
    chosen = (policy.chosen - reference.chosen).sum(-1)
    return chosen, (policy.rejected - reference.rejected).sum(-1)
