"""Bindings of the token-level objectives; files hold logits, functions take statistics."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.objectives import recipe_configs, rollouts, tokens
from trillium.objectives.batch import PairTokens
from trillium.objectives.bindings.inputs import CaseInputs, Outcome, configure
from trillium.objectives.numerics import token_kl

HParams = Mapping[str, object]


@dataclass(frozen=True)
class _Statistics:
    """Hold what a scoring pass over full logits gives for the pairs of a case."""

    policy: PairTokens
    reference: PairTokens
    kl: PairTokens


def bind_tdpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute TDPO from full logits."""
    config = configure(recipe_configs.TDPOConfig, hparams, inputs)
    stats = _statistics(inputs)
    losses = tokens.tdpo(
        stats.policy,
        stats.reference,
        kl=stats.kl,
        variant=config.variant,
        beta=config.beta,
        alpha=config.alpha,
    )
    sums = {
        "seq_kl_chosen": stats.kl.chosen.sum(-1),
        "seq_kl_rejected": stats.kl.rejected.sum(-1),
    }
    return Outcome(losses, extras=sums)


def bind_sparsepo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute SparsePO from full logits and given masks."""
    config = configure(recipe_configs.SparsePOConfig, hparams, inputs)
    stats = _statistics(inputs)
    mask_u, mask_d = (
        PairTokens(*(_where_scored(inputs, side, f"{side}_mask_{use}") for side in _SIDES))
        for use in ("u", "d")
    )
    return Outcome(
        tokens.sparsepo(
            stats.policy,
            stats.reference,
            kl=stats.kl,
            mask_u=mask_u,
            mask_d=mask_d,
            **config.model_dump(include={"beta", "l1_u", "l1_d"}),
        )
    )


def bind_oreo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute OREO and its two parts; a case that names no alpha leaves the divergence out."""
    config = configure(recipe_configs.OREOConfig, {"alpha": 0.0, **hparams}, inputs)
    losses = tokens.oreo_losses(
        inputs.real("policy_logps"),
        inputs.real("ref_logps"),
        values=inputs.real("values"),
        scored=inputs.whole("mask").bool(),
        reward=inputs.real("reward"),
        beta=config.beta,
    )
    extras = {"value_losses": losses.value, "policy_losses": losses.policy}
    whole = tokens.oreo(
        inputs.real("policy_logps"),
        inputs.real("ref_logps"),
        values=inputs.real("values"),
        scored=inputs.whole("mask").bool(),
        reward=inputs.real("reward"),
        reverse_kl=_divergence(inputs, config, "reverse"),
        forward_kl=_divergence(inputs, config, "forward"),
        divergence=config.divergence,
        beta=config.beta,
        alpha=config.alpha,
    )
    return Outcome(whole, extras=extras)


def _divergence(inputs: CaseInputs, config: recipe_configs.OREOConfig, name: str) -> Tensor | None:
    is_read = config.alpha > 0 and config.divergence == name
    return inputs.real(f"{name}_kl") if is_read else None


def bind_rto(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute the PPO targets of RTO."""
    config = configure(recipe_configs.RTOConfig, hparams, inputs)
    targets = rollouts.rto(
        inputs.real("dpo_logps"),
        inputs.real("policy_logps"),
        inputs.real("ref_logps"),
        scored=inputs.whole("mask").bool(),
        reward=inputs.real("reward"),
        values=inputs.real("values"),
        **config.model_dump(exclude={"name"}),
    )
    return Outcome(
        extras={
            "token_rewards": targets.rewards,
            "advantages": targets.advantages,
            "returns": targets.returns,
        }
    )


_SIDES = ("chosen", "rejected")


def _statistics(inputs: CaseInputs) -> _Statistics:
    """Return token log-probabilities of both models and their divergence, as a scorer would."""
    policy, reference = (
        PairTokens(*(_token_logps(inputs, model, side) for side in _SIDES))
        for model in ("policy", "ref")
    )
    kl = PairTokens(*(_token_kl(inputs, side) for side in _SIDES))
    return _Statistics(policy, reference, kl)


def _token_logps(inputs: CaseInputs, model: str, side: str) -> Float[Tensor, "pair token"]:
    logps = inputs.real(f"{model}_{side}_logits").log_softmax(-1)
    target = inputs.whole(f"{side}_labels")[..., None]
    return torch.where(_scored(inputs, side), logps.gather(-1, target).squeeze(-1), 0.0)


def _token_kl(inputs: CaseInputs, side: str) -> Float[Tensor, "pair token"]:
    kl = token_kl(inputs.real(f"ref_{side}_logits"), inputs.real(f"policy_{side}_logits"))
    return torch.where(_scored(inputs, side), kl, 0.0)


def _where_scored(inputs: CaseInputs, side: str, name: str) -> Float[Tensor, "pair token"]:
    return torch.where(_scored(inputs, side), inputs.real(name), 0.0)


def _scored(inputs: CaseInputs, side: str) -> Tensor:
    return inputs.whole(f"{side}_mask").bool()
