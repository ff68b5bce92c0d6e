"""How the inputs of a case file become the arguments of an objective, one binding per method.

The keys are those of the case format (`policy_chosen_logps`, `chosen_lens`, ...). A binding
computes losses and the intermediate values (`extras`) that the files list; it holds no formula that
an objective already has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.functional import logsigmoid

from trillium.errors import DataError
from trillium.objectives import configs
from trillium.objectives.batch import PairLogps, SingleLogps
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.metrics import pair_rewards
from trillium.objectives.numerics import log_odds
from trillium.objectives.reference_free import absolute_odds_loss
from trillium.objectives.table import evaluate, needs_of
from trillium.objectives.unpaired import kto_reference_point


@dataclass(frozen=True)
class Outcome:
    """Hold what one case computed; `loss` is None when it is the mean of the losses."""

    losses: Tensor | None = None
    loss: Tensor | None = None
    extras: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseInputs:
    """Give the inputs of one case as tensors; asking twice for a real one gives the same leaf."""

    where: str
    raw: Mapping[str, object]
    leaves: dict[str, Tensor] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        """Say whether the case has this input."""
        return name in self.raw

    def real(self, name: str) -> Float[Tensor, "*shape"]:
        """Return an input as float64 that collects a gradient."""
        if name not in self.leaves:
            self.leaves[name] = self._tensor(name, torch.float64).requires_grad_()
        return self.leaves[name]

    def whole(self, name: str) -> Int[Tensor, "*shape"]:
        """Return an input of counts, token ids or flags as int64."""
        return self._tensor(name, torch.int64)

    def _tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        if name not in self.raw:
            raise DataError(f'{self.where} has no input "{name}"; add it to "inputs"')
        try:
            return torch.tensor(self.raw[name], dtype=dtype)
        except (TypeError, ValueError) as error:
            raise DataError(
                f'{self.where}: input "{name}" is not numbers of one shape ({error}); correct it'
            ) from error


Binding = Callable[[Mapping[str, object], CaseInputs], Outcome]


def configure(method: str, hparams: Mapping[str, object], inputs: CaseInputs) -> ObjectiveConfig:
    """Return the configuration a case describes, or raise DataError that names what is wrong."""
    try:
        config: ObjectiveConfig = _CONFIG.validate_python({"name": method, **hparams})
    except ValidationError as error:
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        raise DataError(
            f'{inputs.where} is no configuration of {method} ({wrong}); correct "hparams"'
        ) from error
    return config


_CONFIG: TypeAdapter[ObjectiveConfig] = TypeAdapter(ObjectiveConfig)


def bind_pairs(method: str) -> Binding:
    """Return the binding of an objective that takes plain pairs."""

    def bind(hparams: Mapping[str, object], inputs: CaseInputs) -> Outcome:
        config = configure(method, hparams, inputs)
        needs = needs_of(config)
        policy = _pair_logps("policy", inputs, lengths=needs.lengths)
        reference = None
        if needs.reference:
            reference = _pair_logps("ref", inputs, lengths=needs.lengths)
        columns = {name: inputs.real(name) for name in needs.columns}
        losses = evaluate(config, policy, reference, columns=columns)
        return Outcome(losses, extras=_pair_extras(config, inputs, policy, reference))

    return bind


def bind_kto(hparams: Mapping[str, object], inputs: CaseInputs) -> Outcome:
    """Compute KTO with the reference point of the mismatched rows."""
    policy, reference, policy_kl, reference_kl = (
        SingleLogps(inputs.real(name))
        for name in ("policy_logps", "ref_logps", "policy_kl_logps", "ref_kl_logps")
    )
    kl = kto_reference_point(policy_kl, reference_kl)
    label = inputs.whole("labels").to(torch.float64)
    config = configure("kto", hparams, inputs)
    losses = evaluate(config, policy, reference, labels={"label": label}, kl=kl)
    return Outcome(losses, extras={"kl": kl})


def _pair_logps(model: str, inputs: CaseInputs, *, lengths: bool) -> PairLogps:
    chosen = inputs.real(f"{model}_chosen_logps")
    rejected = inputs.real(f"{model}_rejected_logps")
    if not lengths:
        return PairLogps(chosen, rejected)
    n_chosen = inputs.whole("chosen_lens")
    # A file may leave out the rejected counts when its method reads only those of the chosen side.
    n_rejected = inputs.whole("rejected_lens") if "rejected_lens" in inputs else n_chosen
    return PairLogps(chosen, rejected, n_chosen, n_rejected)


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
    return {}


BINDINGS: dict[str, Binding] = {
    **{
        name: bind_pairs(name)
        for name in (
            "dpo",
            "ipo",
            "hinge",
            "rdpo",
            "fdpo",
            "ln_dpo",
            "rpo",
            "simpo",
            "orpo",
            "cpo",
            "asft",
        )
    },
    "kto": bind_kto,
}
"""The binding of every method that can be checked, by name."""
