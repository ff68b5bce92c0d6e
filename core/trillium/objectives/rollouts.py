"""Objectives on samples of the policy itself: exploration, hybrid, pairwise policy gradient, PPO.

What was computed when the samples were drawn (old log-probabilities, rewards) carries no gradient.
Log-probabilities are in nats, sums over a response unless a token axis is there.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo


def hypo(
    policy: PairLogps,
    reference: PairLogps,
    *,
    policy_sample: Float[Tensor, "prompt sample"],
    reference_sample: Float[Tensor, "prompt sample"],
    beta: float = 0.1,
    lam: float = 0.001,
    rloo: bool = False,
) -> Float[Tensor, " pair"]:
    """Score offline pairs with DPO and online samples with the reverse KL (arXiv 2406.01462).

        k    = stopped (policy_sample - reference_sample)
        loss = -ls(beta * (u_w - u_l)) + lam * mean over samples of (k - baseline) * policy_sample

    The baseline is 0, or with `rloo` the mean k of the prompt's other samples. The second term is
    one number for the batch, added to every pair; only its gradient has a meaning, lam times that
    of KL(policy || reference). Samples must be fresh from the policy.
    Reading: derived from the objective of the paper, which trains this KL online.
    Raises ShapeError when `rloo` finds no other sample.
    """
    # The score function: the log-ratio is the reward of a sample, not a path for gradients.
    k = (policy_sample - reference_sample).detach()
    if rloo:
        n_samples = k.shape[1]
        if n_samples < 2:
            raise ShapeError(
                f"hypo: {n_samples} sample per prompt and rloo subtracts the mean of the others "
                "(needs two or more); draw more samples, or set rloo=False"
            )
        k = k - (k.sum(1, keepdim=True) - k) / (n_samples - 1)
    return dpo(policy, reference, beta=beta) + lam * (k * policy_sample).mean()


def p3o(
    first: Float[Tensor, " pair"],
    second: Float[Tensor, " pair"],
    *,
    old_first: Float[Tensor, " pair"],
    old_second: Float[Tensor, " pair"],
    reward_first: Float[Tensor, " pair"],
    reward_second: Float[Tensor, " pair"],
    variant: Literal["v1", "v2"] = "v2",
    eps: float = 0.2,
    delta: float = 0.2,
) -> Float[Tensor, " pair"]:
    """Score two samples of one prompt with the pairwise policy gradient (arXiv 2310.00212).

    A = reward_first - reward_second (KL penalty included), q = exp(policy - old), c = q clipped to
    1 +- eps, l = first - second, c_l = l clipped to its old value +- delta. With A_1 = A, A_2 = -A:

        v1:  loss = -1/2 * sum_i min(A_i stopped(q_j) q_i, A_i stopped(c_j) c_i)      j is the other
        v2:  loss = -1/2 * min(A stopped(q_1 q_2) l, A stopped(clip(q_1 q_2)) c_l)

    On fresh samples the gradient is that of -(A/2)(first - second). The log of a ratio is clamped
    at +-20 in float32 (350 in float64) before it is exponentiated.
    Reading: the gradient is published; how the two variants clip is from memory.
    """
    log_q = first - old_first, second - old_second
    advantage = reward_first - reward_second
    if variant == "v1":
        q_1, q_2 = (_ratio(each) for each in log_q)
        c_1, c_2 = (each.clamp(1 - eps, 1 + eps) for each in (q_1, q_2))
        # Each sample is weighted by the other's ratio, a constant of the gradient.
        ours = torch.minimum(advantage * q_2.detach() * q_1, advantage * c_2.detach() * c_1)
        theirs = torch.minimum(-advantage * q_1.detach() * q_2, -advantage * c_1.detach() * c_2)
        return -(ours + theirs) / 2
    # The importance weight of the pair is a constant of the gradient.
    weight = _ratio(log_q[0] + log_q[1]).detach()
    gap, old_gap = first - second, old_first - old_second
    clipped = weight.clamp(1 - eps, 1 + eps) * gap.clamp(old_gap - delta, old_gap + delta)
    return -torch.minimum(advantage * weight * gap, advantage * clipped) / 2


@dataclass(frozen=True)
class PPOTargets:
    """Hold what PPO needs of each token; zero where no token is scored."""

    rewards: Float[Tensor, "row token"]
    advantages: Float[Tensor, "row token"]
    returns: Float[Tensor, "row token"]


def rto(
    aligned: Float[Tensor, "row token"],
    policy: Float[Tensor, "row token"],
    reference: Float[Tensor, "row token"],
    *,
    scored: Bool[Tensor, "row token"],
    reward: Float[Tensor, " row"],
    values: Float[Tensor, "row token"],
    beta1: float = 0.05,
    clip: float = 0.05,
    kl_coef: float = 0.01,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> PPOTargets:
    """Return the PPO targets of reinforced token optimisation (arXiv 2404.18922).

        r_t = clip(beta1 * (aligned - reference)_t, +-clip) - kl_coef * (policy - reference)_t
              + clamp(reward, +-10) at the last scored token

    `aligned` is a DPO model, `policy` the one that drew the samples; nothing here carries a
    gradient to them. clip = 0 means no clipping, which comes after scaling. `gae` turns rewards
    and `values` into advantages with gamma and lam. These are targets, not a loss.
    """
    rewards = rto_rewards(
        aligned,
        policy,
        reference,
        scored=scored,
        reward=reward,
        beta1=beta1,
        clip=clip,
        kl_coef=kl_coef,
    )
    return gae(rewards, values, scored, gamma=gamma, lam=lam)


def rto_rewards(
    aligned: Float[Tensor, "row token"],
    policy: Float[Tensor, "row token"],
    reference: Float[Tensor, "row token"],
    *,
    scored: Bool[Tensor, "row token"],
    reward: Float[Tensor, " row"],
    beta1: float,
    clip: float,
    kl_coef: float,
) -> Float[Tensor, "row token"]:
    """Return the token rewards of RTO."""
    dense = beta1 * (aligned - reference)
    if clip > 0:
        dense = dense.clamp(-clip, clip)
    rewards = torch.where(scored, dense - kl_coef * (policy - reference), 0.0)
    position = torch.arange(scored.shape[1], device=scored.device)
    last = torch.where(scored, position, -1).amax(1, keepdim=True)
    return rewards + torch.where(position == last, reward[:, None].clamp(-10, 10), 0.0)


def gae(
    rewards: Float[Tensor, "row token"],
    values: Float[Tensor, "row token"],
    scored: Bool[Tensor, "row token"],
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> PPOTargets:
    """Return generalised advantage estimates and returns over scored tokens (arXiv 1506.02438).

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}

    The value after the last scored token is zero; tokens between that are not scored are skipped.
    """
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(scored[:, t], advantage, next_advantage)
        next_value = torch.where(scored[:, t], values[:, t], next_value)
        advantages[:, t] = torch.where(scored[:, t], advantage, 0.0)
    return PPOTargets(rewards, advantages, torch.where(scored, advantages + values, 0.0))


def _ratio(log_q: Float[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    """Return exp(log_q), clamped where the product of two would overflow."""
    limit = 350.0 if log_q.dtype == torch.float64 else 20.0
    return log_q.clamp(-limit, limit).exp()
