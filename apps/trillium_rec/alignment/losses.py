"""One loss per prompt from the log-probabilities of codes: the core's objectives, and two more.

The recommender's codes are the tokens: an objective of the core gets the same `PairLogps` or
`ListLogps` that a language model would fill, sums over scored codes in nats.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trillium.objectives.batch import ListLogps, PairLogps
from trillium.objectives.evaluate import evaluate
from trillium.objectives.table import needs_of

from trillium_rec.alignment.config import GroupConfig, ImitateConfig, Objective

Codes = Float[Tensor, "prompt session place level"]


@dataclass(frozen=True)
class SessionScores:
    """Hold the log-probabilities of codes by prompt and session, the winner first.

    `reference` are those of the snapshot that drew the sessions, without gradients; `is_scored`
    says which codes count; `rewards` are the reward model's.
    """

    policy: Codes
    reference: Codes
    is_scored: Bool[Tensor, "prompt session place level"]
    rewards: Float[Tensor, "prompt session"]


def preference_losses(config: Objective, scores: SessionScores) -> Float[Tensor, " prompt"]:
    """Return one loss per prompt.

    Pairs take the first loser; lists compare the winner with all: `lipo` with variant softmax is
    S-DPO (arXiv 2406.09215, Eq. 6), because its label is all on the winner.
    """
    if isinstance(config, ImitateConfig):
        return imitate(scores)
    if isinstance(config, GroupConfig):
        return group_policy(scores, config)
    policy, reference = (_sums(each, scores) for each in (scores.policy, scores.reference))
    lengths = scores.is_scored.sum(dim=(2, 3))
    if needs_of(config).shape == "list":
        return evaluate(
            config,
            _as_lists(policy, lengths),
            _as_lists(reference, lengths),
            labels={name: _labels(policy) for name in needs_of(config).labels},
        )
    return evaluate(config, _as_pairs(policy, lengths), _as_pairs(reference, lengths))


def imitate(scores: SessionScores) -> Float[Tensor, " prompt"]:
    """Return -log P of the winner, a mean over its items as in the loss on the log."""
    return -scores.policy[:, 0].sum(dim=(1, 2)) / scores.policy.shape[2]


def group_policy(scores: SessionScores, config: GroupConfig) -> Float[Tensor, " prompt"]:
    """Return the loss of group relative policy optimisation (arXiv 2402.03300, Eq. 3 and 4).

        A_i  = (r_i - mean r) / std r
        loss = -mean_i mean_t [min(q A_i, clip(q, 1 +- clip) A_i) - kl_weight * (e^-u + u - 1)]

    with q = exp(u) the ratio of a code's probability to that when the session was drawn; the
    snapshot is old policy and reference at once. Reading: the group are beams, not samples, as
    others do for semantic ids; the sessions are the likeliest, and no importance weight mends that.
    """
    advantage = scores.rewards - scores.rewards.mean(dim=1, keepdim=True)
    spread = advantage.square().mean(dim=1, keepdim=True).sqrt()
    advantage = (advantage / spread.clamp(min=1e-6))[:, :, None, None]
    u = scores.policy - scores.reference
    ratio = u.exp()
    clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
    gain = torch.minimum(ratio * advantage, clipped * advantage)
    divergence = torch.expm1(-u) + u
    by_code = (gain - config.kl_weight * divergence) * scores.is_scored
    lengths = scores.is_scored.sum(dim=(2, 3)).clamp(min=1)
    return -(by_code.sum(dim=(2, 3)) / lengths).mean(dim=1)


def scored_codes(
    codes: Int[Tensor, "prompt session place level"], *, mask_shared: bool
) -> Bool[Tensor, "prompt session place level"]:
    """Return which codes count: all, or those after the prefix that items of a place share.

    Where winner and loser have the same first codes at a place, their gradients nearly cancel on
    these, and what is left moves mass to third codes. A code is left out when it and all codes
    before it at its place are those of the winner, for losers; for the winner when every loser
    shares them.
    """
    everything = torch.ones_like(codes, dtype=torch.bool)
    if not mask_shared:
        return everything
    same = (codes == codes[:, :1]).cumprod(dim=3).bool()
    shared_by_all = same[:, 1:].all(dim=1, keepdim=True)
    return ~torch.cat([shared_by_all, same[:, 1:]], dim=1)


def _sums(codes: Codes, scores: SessionScores) -> Float[Tensor, "prompt session"]:
    return (codes * scores.is_scored).sum(dim=(2, 3))


def _as_pairs(
    logps: Float[Tensor, "prompt session"], lengths: Int[Tensor, "prompt session"]
) -> PairLogps:
    return PairLogps(logps[:, 0], logps[:, 1], lengths[:, 0], lengths[:, 1])


def _as_lists(
    logps: Float[Tensor, "prompt session"], lengths: Int[Tensor, "prompt session"]
) -> ListLogps:
    n_prompts, n_sessions = logps.shape
    group = torch.arange(n_prompts, device=logps.device).repeat_interleave(n_sessions)
    return ListLogps(logps.flatten(), group, lengths.flatten())


def _labels(logps: Float[Tensor, "prompt session"]) -> Float[Tensor, " response"]:
    labels = torch.zeros_like(logps)
    labels[:, 0] = 1.0
    return labels.flatten()
