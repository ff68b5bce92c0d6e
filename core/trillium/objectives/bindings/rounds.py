"""Bindings of what iterative recipes compute: samplers, schedules, steps, embeddings, samples."""

from collections.abc import Mapping

import torch

from trillium.errors import DataError
from trillium.objectives import embeddings, iterations, recipe_configs, rollouts
from trillium.objectives.bindings.inputs import (
    CaseInputs,
    Outcome,
    configure,
    pair_logps,
)

HParams = Mapping[str, object]


def bind_rso(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute first-pass acceptance, and what is kept where the case fixes the uniforms."""
    renamed = {"num_samples": "n_samples"}
    rest = {renamed.get(key, key): value for key, value in hparams.items()}
    config = configure(recipe_configs.RSOConfig, rest, inputs)
    rewards = inputs.real("rewards")
    accept = iterations.rso_acceptance(rewards, beta=config.beta)
    extras = {"accept_prob_round1": accept}
    if "uniforms" in inputs:
        kept = iterations.rso(
            rewards, inputs.real("uniforms"), n_samples=config.n_samples, beta=config.beta
        )
        extras["accepted"] = torch.tensor(kept)
    return Outcome(extras=extras)


def bind_curry_dpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute the curriculum of one prompt from its ratings."""
    rest = {key: value for key, value in hparams.items() if key != "gap"}
    if hparams.get("gap", "rating") != "rating":
        raise DataError(
            f'{inputs.where}: gap is {hparams["gap"]} (only "rating" is an input); pass the numbers'
            " to compare as ratings"
        )
    config = configure(recipe_configs.CurryConfig, rest, inputs)
    pairs = iterations.curry_dpo(inputs.real("ratings"), order=config.order)
    return Outcome(
        extras={
            "pairs_chosen_rejected": torch.tensor([[pair.chosen, pair.rejected] for pair in pairs]),
            "gaps": torch.tensor([pair.gap for pair in pairs], dtype=inputs.dtype),
        }
    )


def bind_apo_accelerated(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute the extrapolation on distributions and on parameters."""
    config = configure(recipe_configs.APOConfig, hparams, inputs)
    log_pi = iterations.extrapolated_policy(
        inputs.real("log_pi_hat_t"), inputs.real("log_pi_hat_tm1"), alpha=config.alpha
    )
    theta = iterations.apo_accelerated(
        inputs.real("theta_hat_t"), inputs.real("theta_hat_tm1"), alpha=config.alpha
    )
    return Outcome(extras={"log_pi_next": log_pi, "theta_next": theta})


def bind_hypo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute HyPO; only the gradient of its online term has a meaning."""
    config = configure(recipe_configs.HyPOConfig, hparams, inputs)
    return Outcome(
        rollouts.hypo(
            pair_logps("policy", inputs),
            pair_logps("ref", inputs),
            policy_sample=inputs.real("policy_sample_logps"),
            reference_sample=inputs.real("ref_sample_logps"),
            **config.model_dump(exclude={"name"}),
        )
    )


def bind_p3o(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute the pairwise policy gradient of two samples."""
    config = configure(recipe_configs.P3OConfig, hparams, inputs)
    return Outcome(
        rollouts.p3o(
            inputs.real("policy_logps_1"),
            inputs.real("policy_logps_2"),
            old_first=inputs.real("old_logps_1"),
            old_second=inputs.real("old_logps_2"),
            reward_first=inputs.real("rewards_1"),
            reward_second=inputs.real("rewards_2"),
            **config.model_dump(exclude={"name"}),
        )
    )


def bind_gpm(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute the general preference model on given embeddings."""
    config = configure(recipe_configs.GPMConfig, hparams, inputs)
    chosen, rejected = inputs.real("v_chosen"), inputs.real("v_rejected")
    losses = embeddings.gpm(chosen, rejected, tau=config.tau, scales=config.scales)
    scores = embeddings.gpm_scores(chosen, rejected, scales=config.scales)
    return Outcome(losses, extras={"scores": scores})


def bind_oppo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute OPPO, a scalar, and its two embedding terms."""
    config = configure(recipe_configs.OPPOConfig, hparams, inputs)
    z_star = inputs.real("z_star")
    preferred, other = inputs.real("phi_preferred"), inputs.real("phi_other")
    loss = embeddings.oppo(
        z_star, preferred, other, recon=inputs.real("recon"), **config.model_dump(exclude={"name"})
    )
    triplet = embeddings.oppo_triplet(
        z_star, preferred, other, margin=config.margin, pd_eps=config.pd_eps
    )
    norm = embeddings.oppo_norm(preferred, other)
    return Outcome(loss=loss, extras={"triplet": triplet, "norm": norm})
