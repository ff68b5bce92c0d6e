"""The clipped losses of PPO, for methods whose own part is the reward of a token.

One loss per response, a mean over its scored tokens. What was computed when the samples were drawn
(old log-probabilities and values, advantages, returns) carries no gradient.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trillium.objectives.numerics import largest_exponent


def ppo_policy(
    policy: Float[Tensor, "row token"],
    *,
    old: Float[Tensor, "row token"],
    advantages: Float[Tensor, "row token"],
    scored: Bool[Tensor, "row token"],
    clip: float = 0.2,
) -> Float[Tensor, " row"]:
    """Score each response with PPO's clipped surrogate (arXiv 1707.06347, Eq. 7).

        q    = exp(policy - old)
        loss = -mean over tokens of min(A q, A clip(q, 1 - clip, 1 + clip))

    On fresh samples q = 1 and the gradient is that of -A * policy. The log of a ratio is clamped
    where its exponential would overflow.
    """
    limit = largest_exponent(policy.dtype)
    ratio = (policy - old).clamp(-limit, limit).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -_mean(torch.minimum(advantages * ratio, advantages * clipped), scored)


def ppo_value(
    values: Float[Tensor, "row token"],
    *,
    old: Float[Tensor, "row token"],
    returns: Float[Tensor, "row token"],
    scored: Bool[Tensor, "row token"],
    clip: float = 0.2,
) -> Float[Tensor, " row"]:
    """Score each response with the clipped value loss of PPO's implementations.

        loss = 1/2 mean over tokens of max((V - R)^2, (clip(V, old - clip, old + clip) - R)^2)

    Not in the PPO paper; the released code of RTO has it (zkshan2002/RTO, value_clip = 0.2).
    """
    near = torch.minimum(torch.maximum(values, old - clip), old + clip)
    worse = torch.maximum((values - returns).square(), (near - returns).square())
    return _mean(worse, scored) / 2


def whiten(advantages: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Return advantages of mean 0 and variance 1; equal ones give 0."""
    some = advantages.double()
    centred = some - some.mean()
    # What is left of equal advantages is rounding, and must not be blown up to variance 1.
    rounding = torch.finfo(torch.float32).eps * some.abs().max()
    spread = torch.maximum(some.std(correction=0), rounding)
    return torch.where(spread > 0, centred / spread, 0.0).to(advantages.dtype)


def _mean(
    losses: Float[Tensor, "row token"], scored: Bool[Tensor, "row token"]
) -> Float[Tensor, " row"]:
    return torch.where(scored, losses, 0.0).sum(-1) / scored.sum(-1)
