"""Bindings of the objectives that the trainer feeds: plain pairs and labelled responses."""

from collections.abc import Mapping

from pydantic import TypeAdapter
from torch import Tensor
from torch.nn.functional import logsigmoid

from trillium.objectives import configs
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.bindings.inputs import (
    Binding,
    CaseInputs,
    Outcome,
    configure,
    pair_logps,
)
from trillium.objectives.config_fields import FrozenConfig
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.evaluate import evaluate
from trillium.objectives.metrics import pair_rewards
from trillium.objectives.numerics import log_odds
from trillium.objectives.reference_free import absolute_odds_loss
from trillium.objectives.table import OBJECTIVES, needs_of
from trillium.objectives.targets import modpo_rewards
from trillium.objectives.unpaired import kto_reference_point


def bind_pairs(method: str) -> Binding:
    """Return the binding of an objective that takes plain pairs."""

    def bind(hparams: Mapping[str, object], inputs: CaseInputs) -> Outcome:
        config = _trainable(configure(OBJECTIVES[method].config, hparams, inputs))
        needs = needs_of(config)
        policy = pair_logps("policy", inputs, lengths=needs.lengths)
        reference = None
        if needs.reference:
            reference = pair_logps("ref", inputs, lengths=needs.lengths)
        columns = {name: inputs.real(name) for name in needs.columns}
        computed = {"policy_prompt": _prompt_logps(inputs)} if needs.prompts else {}
        losses = evaluate(config, policy, reference, columns=columns, computed=computed)
        return Outcome(losses, extras=_pair_extras(config, inputs, policy, reference))

    return bind


def _prompt_logps(inputs: CaseInputs) -> PairLogps:
    """Return the policy's log-probabilities of the prompts; both sides of a pair have the same."""
    logps, counts = inputs.real("policy_prompt_logps"), inputs.whole("prompt_lens")
    return PairLogps(logps, logps, counts, counts)


_TRAINABLE: TypeAdapter[ObjectiveConfig] = TypeAdapter(ObjectiveConfig)


def _trainable(config: FrozenConfig) -> ObjectiveConfig:
    checked: ObjectiveConfig = _TRAINABLE.validate_python(config)
    return checked


def bind_kto(hparams: Mapping[str, object], inputs: CaseInputs) -> Outcome:
    """Compute KTO with the reference point of the mismatched rows."""
    policy, reference, policy_kl, reference_kl = (
        SingleLogps(inputs.real(name))
        for name in ("policy_logps", "ref_logps", "policy_kl_logps", "ref_kl_logps")
    )
    kl = kto_reference_point(policy_kl, reference_kl)
    label = inputs.whole("labels").to(inputs.dtype)
    config = configure(configs.KTOConfig, hparams, inputs)
    losses = evaluate(config, policy, reference, labels={"label": label}, kl=kl)
    return Outcome(losses, extras={"kl": kl})


def _pair_extras(
    config: ObjectiveConfig, inputs: CaseInputs, policy: PairLogps, reference: PairLogps | None
) -> dict[str, Tensor]:
    """Return the intermediate values that published case files list beside the losses."""
    match config:
        case configs.DPOConfig():
            rewards = pair_rewards(config, policy, reference)
            return {"chosen_rewards": rewards.chosen, "rejected_rewards": rewards.rejected}
        case configs.ORPOConfig():
            mean = policy.per_token()
            ratio = log_odds(mean.chosen) - log_odds(mean.rejected)
            return {"or_losses": -logsigmoid(ratio), "log_odds": ratio}
        case configs.CPOConfig():
            contrast = config.model_copy(update={"alpha": 0.0})
            nll = -policy.chosen.sum() / inputs.whole("chosen_lens").sum()
            return {"prefer_losses": evaluate(contrast, policy), "nll": nll}
        case configs.ASFTConfig():
            return {"align_losses": absolute_odds_loss(policy.per_token(), beta=config.beta)}
        case configs.MODPOConfig():
            margins = inputs.real("margin_chosen"), inputs.real("margin_rejected")
            u = policy.against(reference)
            chosen, rejected = modpo_rewards(u, *margins, beta=config.beta, w=config.w)
            return {"chosen_rewards": chosen, "rejected_rewards": rejected}
    return {}
