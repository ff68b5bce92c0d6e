"""Bindings of the objectives that read further sequences beside a pair, or single rows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trillium.objectives import companions, embeddings, iterations, recipe_configs, unpaired
from trillium.objectives.batch import PairLogps, SideStream, SingleLogps
from trillium.objectives.bindings.inputs import (
    CaseInputs,
    Outcome,
    configure,
    pair_logps,
)
from trillium.objectives.numerics import token_kl
from trillium.objectives.pairwise import dpo

HParams = Mapping[str, object]


def bind_dove(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute DOVE from the log-probabilities of responses and of their prompts."""
    policy, reference = pair_logps("policy", inputs), pair_logps("ref", inputs)
    policy_prompt, reference_prompt = (
        PairLogps(
            inputs.real(f"{model}_chosen_prompt_logps"),
            inputs.real(f"{model}_rejected_prompt_logps"),
        )
        for model in ("policy", "ref")
    )
    config = configure(recipe_configs.DOVEConfig, hparams, inputs)
    return Outcome(
        companions.dove(
            policy,
            reference,
            policy_prompt=policy_prompt,
            reference_prompt=reference_prompt,
            beta=config.beta,
        )
    )


def bind_slic(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute SLiC-HF; the target is an input of its own even where it is the chosen response."""
    config = configure(recipe_configs.SLiCConfig, hparams, inputs)
    target = inputs.real("policy_target_logps")
    policy = pair_logps("policy", inputs)
    return Outcome(companions.slic(policy, target=target, delta=config.delta, lam=config.lam))


def bind_tpo_triple(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute triple preference optimisation; files say gold_lens for the counts of gold tokens."""
    config = configure(recipe_configs.TripleConfig, hparams, inputs)
    policy = pair_logps("policy", inputs, lengths=True)
    gold = SingleLogps(inputs.real("policy_gold_logps"), inputs.whole("gold_lens"))
    losses = companions.tpo_triple(
        policy,
        gold=gold,
        variant=config.variant,
        beta=config.beta,
        alpha=config.alpha,
        gamma=config.gamma,
    )
    contrast = companions.triple_contrast(
        policy, variant=config.variant, beta=config.beta, gamma=config.gamma
    )
    nll = -gold.logps.sum() / inputs.whole("gold_lens").sum()
    return Outcome(losses, extras={"prefer_losses": contrast, "nll": nll})


def bind_rationale_dpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute DPO with the likelihood of a rationale."""
    config = configure(recipe_configs.RationaleConfig, hparams, inputs)
    policy, reference = pair_logps("policy", inputs), pair_logps("ref", inputs)
    rationale = inputs.real("policy_rationale_logps")
    return Outcome(
        companions.rationale_dpo(
            policy,
            reference,
            rationale=rationale,
            beta=config.beta,
            gamma=config.gamma,
            form=config.form,
        )
    )


def bind_xpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute XPO; the reference's sample is an input of its own, whichever response it is."""
    config = configure(recipe_configs.XPOConfig, hparams, inputs)
    policy, reference = pair_logps("policy", inputs), pair_logps("ref", inputs)
    sample = inputs.real("policy_logps_of_ref_sample")
    return Outcome(
        companions.xpo(
            policy, reference, reference_sample=sample, beta=config.beta, alpha=config.alpha
        )
    )


def bind_srpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute SRPO from log-ratios named lr_<response>[_given_<context>]."""
    config = configure(recipe_configs.SRPOConfig, hparams, inputs)
    direct, given_chosen, given_rejected = (
        PairLogps(inputs.real(f"lr_w{context}"), inputs.real(f"lr_l{context}"))
        for context in ("", "_given_w", "_given_l")
    )
    p_win, beta = inputs.real("p_win"), config.beta
    losses = companions.srpo(
        direct,
        given_chosen=given_chosen,
        given_rejected=given_rejected,
        p_win=p_win,
        beta=beta,
        alpha=config.alpha,
    )
    improvement = companions.srpo_improvement(given_chosen, given_rejected, p_win, beta=beta)
    generative = companions.srpo_generative(direct, given_chosen, given_rejected, p_win, beta=beta)
    return Outcome(losses, extras={"improvement": improvement, "generative": generative})


def bind_c3po(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute C3PO; files call the near-scope stream hard and the out-of-scope stream soft."""
    config = configure(recipe_configs.C3POConfig, hparams, inputs)
    near_scope, out_of_scope = (
        _side_stream(inputs, stream, temp=config.temp) for stream in ("hard", "soft")
    )
    return Outcome(
        companions.c3po(
            pair_logps("policy", inputs),
            pair_logps("ref", inputs),
            near_scope=near_scope,
            out_of_scope=out_of_scope,
            **config.model_dump(exclude={"name"}),
        )
    )


def bind_spo_degree(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute DPO with a degree head."""
    config = configure(recipe_configs.DegreeConfig, hparams, inputs)
    policy, reference = pair_logps("policy", inputs), pair_logps("ref", inputs)
    logits, label = inputs.real("degree_logits"), inputs.whole("degree_labels")
    losses = embeddings.spo_degree(
        policy,
        reference,
        degree_logits=logits,
        degree_label=label,
        beta=config.beta,
        gamma=config.gamma,
    )
    degree = torch.nn.functional.cross_entropy(logits, label)
    align = dpo(policy, reference, beta=config.beta).mean()
    return Outcome(losses, extras={"align": align, "degree_ce": degree})


def bind_ofs_dpo(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute the losses of a fast and a slow adapter."""
    config = configure(recipe_configs.OFSConfig, hparams, inputs)
    fast, slow, reference = (pair_logps(model, inputs) for model in ("fast", "slow", "ref"))
    losses = iterations.ofs_losses(fast, slow, reference, beta=config.beta, alpha=config.alpha)
    extras: dict[str, Tensor] = {"fast_losses": losses.fast, "slow_losses": losses.slow}
    total = iterations.ofs_dpo(fast, slow, reference, beta=config.beta, alpha=config.alpha)
    return Outcome(total, extras=extras)


def bind_poft(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute PoFT from one mean per aligned model."""
    config = configure(recipe_configs.PoFTConfig, hparams, inputs)
    policy = SingleLogps(inputs.real("policy_logps"), inputs.whole("lens"))
    aligned = inputs.real("aligned_mean_logps")
    return Outcome(
        unpaired.poft(policy, aligned_mean_logps=aligned, beta=config.beta, gamma=config.gamma)
    )


def bind_meet(hparams: HParams, inputs: CaseInputs) -> Outcome:
    """Compute MEET, a scalar."""
    config = configure(recipe_configs.MEETConfig, hparams, inputs)
    good, bad = (
        SingleLogps(inputs.real(f"{kind}_logps"), inputs.whole(f"{kind}_lens"))
        for kind in ("good", "bad")
    )
    return Outcome(loss=unpaired.meet(good, bad, reduction=config.reduction))


def _side_stream(inputs: CaseInputs, stream: str, *, temp: float) -> SideStream:
    """Return the statistics of one stream from full logits, as a scorer would."""
    student, teacher = (inputs.real(f"{stream}_{who}_logits") for who in ("student", "teacher"))
    scored = inputs.whole(f"{stream}_mask").bool()
    target = inputs.whole(f"{stream}_labels")[..., None]
    logps = student.log_softmax(-1).gather(-1, target).squeeze(-1)
    sums = (
        torch.where(scored, each, 0.0).sum(-1)
        for each in (logps, token_kl(teacher / temp, student / temp))
    )
    return SideStream(next(sums), scored.sum(-1), next(sums))
