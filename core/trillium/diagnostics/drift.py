"""How far training moved pairs: displacement, the three 3D-properties, saturation, coverage.

Pure functions of log-probabilities under policy and reference, in nats.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.objectives.batch import PairLogps


@dataclass(frozen=True)
class Displacement:
    """Say what became of responses since the reference: mean changes in nats, share that fell.

    `both_fell` is the share of pairs in which chosen and rejected fell together.
    """

    chosen: float
    rejected: float
    chosen_fell: float
    both_fell: float


def displacement(policy: PairLogps, reference: PairLogps) -> Displacement:
    """Return likelihood displacement (arXiv 2410.08847, Section 3): did log pi(chosen) fall?"""
    u = policy.against(reference)
    fell, both = u.chosen < 0, (u.chosen < 0) & (u.rejected < 0)
    return Displacement(
        chosen=float(u.chosen.mean()),
        rejected=float(u.rejected.mean()),
        chosen_fell=float(fell.double().mean()),
        both_fell=float(both.double().mean()),
    )


def gradient_log_ratio(policy: PairLogps) -> Float[Tensor, " pair"]:
    """Return the log of |d loss/d pi_l| / |d loss/d pi_w|, which for DPO is log pi_w / pi_l.

    arXiv 2406.07327: the derivative by a probability is the one by its logarithm divided by the
    probability, and the two logarithms weigh the same. The further rejected falls, the more of the
    gradient goes into suppressing it.
    """
    return policy.chosen - policy.rejected


def pair_weight(policy: PairLogps, reference: PairLogps, *, beta: float) -> Float[Tensor, " pair"]:
    """Return sigmoid(-beta (u_w - u_l)), what DPO's gradient of a pair is multiplied by.

    arXiv 2305.18290, Section 4. A half at the start; near 0 a pair no longer moves the policy.
    """
    u = policy.against(reference)
    return torch.sigmoid(-beta * (u.chosen - u.rejected))


@dataclass(frozen=True)
class Coverage:
    """Say how far the policy's own samples lie from what the reference, and the data, cover.

    `kl` is the mean of log pi(y)/pi_ref(y) over samples y of the policy, an unbiased estimate of
    KL(pi || pi_ref) in nats; `top` is that log-ratio's 99 % quantile, `outside` the share of
    samples that the reference finds less likely per token than 99 % of the data's responses.
    """

    kl: float
    top: float
    outside: float


def coverage(
    logps: Float[Tensor, " sample"],
    reference_logps: Float[Tensor, " sample"],
    lengths: Float[Tensor, " sample"],
    data_per_token: Float[Tensor, " response"],
) -> Coverage:
    """Return the coverage of samples that the policy drew at temperature 1 (arXiv 2406.01462).

    The paper bounds DPO by the largest pi/pi_ref, and shows that offline losses control it only
    where the data lie. Reading: the paper has no test for a sample outside the data; we call it
    outside when its mean reference log-probability is below the 1 % quantile of the data's.
    """
    logratio = (logps - reference_logps).double()
    floor = torch.quantile(data_per_token.double(), 0.01)
    per_token = reference_logps.double() / lengths.double()
    return Coverage(
        kl=float(logratio.mean()),
        top=float(torch.quantile(logratio, 0.99)),
        outside=float((per_token < floor).double().mean()),
    )


def largest_optimal_logratio(beta: float, reward_range: float = 1.0) -> float:
    """Return reward_range / beta: how far an optimum moves log pi/pi_ref of one response.

    From pi = pi_ref exp(r / beta) / Z (arXiv 2305.18290, Eq. 4) with rewards within the range.
    """
    return reward_range / beta if beta > 0 else math.inf
