"""What a run logs about preferences: implicit rewards, margins and accuracy. Never part of a loss.

The reward of a response is the number the objective compares, so that accuracy counts the pairs the
objective itself would rank right. Nothing here carries a gradient.
"""

from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trillium.objectives import configs
from trillium.objectives import recipe_configs as recipe
from trillium.objectives.batch import ListLogps, ListSteps, PairLogps, SingleLogps
from trillium.objectives.listwise import per_list, same_list
from trillium.objectives.numerics import log_odds
from trillium.objectives.pairwise import f_prime

RewardedPairs = (
    configs.PairConfig
    | recipe.DOVEConfig
    | recipe.SLiCConfig
    | recipe.TripleConfig
    | recipe.RationaleConfig
    | recipe.XPOConfig
    | recipe.SRPOConfig
    | recipe.C3POConfig
    | recipe.DegreeConfig
    | recipe.TDPOConfig
    | recipe.SparsePOConfig
)
"""Configurations of the objectives that compare two responses, whatever else they read."""


@dataclass(frozen=True)
class PairRewards:
    """Hold the implicit rewards of chosen and rejected responses, detached."""

    chosen: Float[Tensor, " pair"]
    rejected: Float[Tensor, " pair"]

    @property
    def margins(self) -> Float[Tensor, " pair"]:
        """Return chosen minus rejected."""
        return self.chosen - self.rejected

    @property
    def is_right(self) -> Bool[Tensor, " pair"]:
        """Say which pairs are ranked right; their mean is the accuracy."""
        return self.margins > 0


def pair_rewards(
    config: RewardedPairs, policy: PairLogps, reference: PairLogps | None
) -> PairRewards:
    """Return the implicit rewards of each pair under a pairwise objective.

    dpo, hinge, rdpo, rpo   beta * u            u = log-ratio, or S where there is no reference
    modpo, sppo, gpo        beta * u            without the margins or targets of the rows
    flex_dpo                beta_pos * u_w and beta_neg * u_l
    ipo                     tau * u/n           (tau * u with normalize=none)
    fdpo                    beta * f'(u)
    ln_dpo                  beta * u/n
    simpo                   beta * S/n
    cpo, tpo_triple         beta * S            (tpo_l: beta * S/n)
    slic                    S
    orpo, asft              log(p/(1-p))        p = exp(S/n)
    dove, rationale_dpo, xpo, srpo, c3po, spo_degree, tdpo, sparsepo
                            beta * u            without masks, divergences and further terms
    """
    match config:
        case configs.DPOConfig(reference_free=True) | configs.HingeConfig(normalize_by_ref=False):
            return _scaled(policy, config.beta)
        case (
            configs.DPOConfig() | configs.HingeConfig() | configs.RDPOConfig() | configs.RPOConfig()
        ):
            return _scaled(policy.against(reference), config.beta)
        case configs.IPOConfig(normalize="none"):
            return _scaled(policy.against(reference), config.tau)
        case configs.IPOConfig():
            return _scaled(policy.against(reference).per_token(), config.tau)
        case configs.FDPOConfig():
            u = policy.against(reference)
            chosen = f_prime(u.chosen.detach(), config.divergence, config.alpha)
            rejected = f_prime(u.rejected.detach(), config.divergence, config.alpha)
            return PairRewards(config.beta * chosen, config.beta * rejected)
        case configs.LNDPOConfig():
            return _scaled(policy.against(reference).per_token(), config.beta)
        case configs.SimPOConfig():
            return _scaled(policy.per_token(), config.beta)
        case configs.CPOConfig():
            return _scaled(policy, config.beta)
        case configs.FlexDPOConfig():
            u = policy.against(reference)
            chosen, rejected = u.chosen.detach(), u.rejected.detach()
            return PairRewards(config.beta_pos * chosen, config.beta_neg * rejected)
        case configs.MODPOConfig() | configs.SPPOConfig() | configs.GPOConfig():
            return _scaled(policy.against(reference), config.beta)
        case configs.ORPOConfig() | configs.ASFTConfig():
            mean = policy.per_token()
            return PairRewards(log_odds(mean.chosen.detach()), log_odds(mean.rejected.detach()))
        case recipe.TripleConfig(variant="tpo_l"):
            return _scaled(policy.per_token(), config.beta)
        case recipe.TripleConfig():
            return _scaled(policy, config.beta)
        case recipe.SLiCConfig():
            return _scaled(policy, 1.0)
        case (
            recipe.DOVEConfig()
            | recipe.RationaleConfig()
            | recipe.XPOConfig()
            | recipe.SRPOConfig()
            | recipe.C3POConfig()
            | recipe.DegreeConfig()
            | recipe.TDPOConfig()
            | recipe.SparsePOConfig()
        ):
            return _scaled(policy.against(reference), config.beta)
        case _:
            assert_never(config)


def single_rewards(
    config: configs.KTOConfig, policy: SingleLogps, reference: SingleLogps
) -> Float[Tensor, " row"]:
    """Return beta times the log-ratio of each response."""
    return config.beta * (policy.logps - reference.logps).detach()


def _scaled(pair: PairLogps, factor: float) -> PairRewards:
    return PairRewards(factor * pair.chosen.detach(), factor * pair.rejected.detach())


def order_accuracy(
    s: Float[Tensor, " response"], label: Float[Tensor, " response"], policy: ListLogps | ListSteps
) -> Float[Tensor, " list"]:
    """Return the share of each list's pairs of different labels that the scores put in order.

    A list whose labels are all the same has NaN: it says nothing.
    """
    group = policy.group
    better = same_list(group) & (label[:, None] > label[None, :])
    upper, lower = better.nonzero(as_tuple=True)
    is_right = (s[upper] > s[lower]).to(s.dtype)
    n_pairs = per_list(torch.ones_like(is_right), group[upper], policy.n_lists)
    return per_list(is_right, group[upper], policy.n_lists) / n_pairs
