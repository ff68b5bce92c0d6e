"""One frozen configuration per objective: its hyper-parameters, their bounds and defaults.

The fields of a configuration are the keyword arguments of the objective's function, except the
few that choose what it reads (`table.CHOOSES_INPUTS`). The objectives of plain pairs and KTO are
here, the others in `recipe_configs`. A run file is checked against the union `ObjectiveConfig`, by
`name`.
"""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trillium.objectives import recipe_configs as recipe
from trillium.objectives.config_fields import (
    Beta,
    FrozenConfig,
    Link,
    Scale,
    Smoothing,
    Weight,
)


class DPOConfig(FrozenConfig):
    """Configure `pairwise.dpo`."""

    name: Literal["dpo"] = "dpo"
    beta: Beta = 0.1
    label_smoothing: Smoothing = 0.0
    smoothing_from: Literal["config", "row"] = Field(
        default="config",
        description="One smoothing for all pairs, or the column label_smoothing of each.",
    )
    reference_free: bool = Field(default=False, description="Compare without a reference.")

    @property
    def saturates(self) -> bool:
        """True unless a smoothed label pulls back."""
        return self.smoothing_from == "config" and self.label_smoothing == 0


class IPOConfig(FrozenConfig):
    """Configure `pairwise.ipo`."""

    name: Literal["ipo"] = "ipo"
    tau: float = Field(default=0.1, gt=0, description="The target margin is 1 / (2 tau).")
    normalize: Literal["none", "tokens"] = Field(
        default="tokens", description="Sums, or means per token, of the log-ratios."
    )


class HingeConfig(FrozenConfig):
    """Configure `pairwise.hinge`."""

    name: Literal["hinge"] = "hinge"
    beta: Beta = 0.05
    normalize_by_ref: bool = Field(default=True, description="Compare relative to the reference.")


class RDPOConfig(FrozenConfig):
    """Configure `pairwise.rdpo`."""

    name: Literal["rdpo"] = "rdpo"
    beta: Beta = 0.1
    epsilon: float = Field(default=0.1, ge=0, lt=0.5, description="Known share of flipped labels.")


class FDPOConfig(FrozenConfig):
    """Configure `pairwise.fdpo`."""

    name: Literal["fdpo"] = "fdpo"
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = Field(
        default="reverse_kl", description="What keeps the policy near the reference."
    )
    alpha: float = Field(
        default=0.5, gt=0, lt=1, description="Between reverse KL (0) and forward KL (1)."
    )
    beta: Beta = 0.1

    @property
    def saturates(self) -> bool:
        """Always true."""
        return True


class LNDPOConfig(FrozenConfig):
    """Configure `pairwise.ln_dpo`."""

    name: Literal["ln_dpo"] = "ln_dpo"
    beta: Beta = 2.0

    @property
    def saturates(self) -> bool:
        """Always true."""
        return True


class RPOConfig(FrozenConfig):
    """Configure `pairwise.rpo`."""

    name: Literal["rpo"] = "rpo"
    beta: Beta = 0.01
    eta: Weight = 0.005
    sft: Literal["sum_beta", "mean"] = Field(
        default="sum_beta", description="Likelihood as a sum times beta, or as a mean per token."
    )


class SimPOConfig(FrozenConfig):
    """Configure `reference_free.simpo`."""

    name: Literal["simpo"] = "simpo"
    beta: Scale = 2.0
    gamma_beta_ratio: float = Field(default=0.25, ge=0, description="Target margin over beta.")
    label_smoothing: Smoothing = 0.0
    loss_type: Link = "sigmoid"

    @model_validator(mode="after")
    def _hinge_has_no_smoothing(self) -> "SimPOConfig":
        if self.loss_type == "hinge" and self.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing:g} and loss_type hinge has none; "
                "set label_smoothing=0, or loss_type=sigmoid"
            )
        return self


class ORPOConfig(FrozenConfig):
    """Configure `reference_free.orpo`."""

    name: Literal["orpo"] = "orpo"
    lam: Weight = 0.1
    nll: Literal["response", "batch", "sequence"] = Field(
        default="response",
        description="Likelihood per response, or one mean over all tokens, or with prompts.",
    )


class CPOConfig(FrozenConfig):
    """Configure `reference_free.cpo`."""

    name: Literal["cpo"] = "cpo"
    beta: Scale = 0.1
    alpha: Weight = 1.0
    loss_type: Link = "sigmoid"

    @property
    def saturates(self) -> bool:
        """True without the likelihood."""
        return self.loss_type == "sigmoid" and self.alpha == 0


class ASFTConfig(FrozenConfig):
    """Configure `reference_free.asft`."""

    name: Literal["asft"] = "asft"
    lam: Weight = 0.1
    beta: float = Field(default=1.0, gt=0, description="Tempering of the log-odds; 1 is the paper.")


class KTOConfig(FrozenConfig):
    """Configure `unpaired.kto`."""

    name: Literal["kto"] = "kto"
    beta: Beta = 0.1
    w_desirable: float = Field(default=1.0, ge=0, description="Weight of responses labelled 1.")
    w_undesirable: float = Field(default=1.0, ge=0, description="Weight of responses labelled 0.")


class FlexDPOConfig(FrozenConfig):
    """Configure `targets.flex_dpo`."""

    name: Literal["flex_dpo"] = "flex_dpo"
    beta_pos: float = Field(default=0.1, gt=0, description="Hold on the chosen response.")
    beta_neg: float = Field(default=0.05, gt=0, description="Hold on the rejected response.")
    sft_coef: Weight = 0.0

    @property
    def saturates(self) -> bool:
        """True without the likelihood."""
        return self.sft_coef == 0


class MODPOConfig(FrozenConfig):
    """Configure `targets.modpo`."""

    name: Literal["modpo"] = "modpo"
    beta: Beta = 0.1
    w: tuple[float, ...] = Field(
        default=(0.5, 0.5),
        min_length=2,
        description="Weights that sum to 1; the first is the objective of these pairs.",
    )
    loss_type: Link = "sigmoid"

    @field_validator("w")
    @classmethod
    def _weights_sum_to_one(cls, w: tuple[float, ...]) -> tuple[float, ...]:
        if w[0] <= 0 or min(w) < 0 or abs(sum(w) - 1) > 1e-6:
            raise ValueError(
                "weights must be at least 0 (the first above 0) and sum to 1, "
                f"these sum to {sum(w):g}"
            )
        return w


class SPPOConfig(FrozenConfig):
    """Configure `targets.sppo`."""

    name: Literal["sppo"] = "sppo"
    beta: Beta = 0.001
    reduction: Literal["half", "sum"] = Field(
        default="half", description="Half the sum of the two sides, or the sum (TRL's scale)."
    )


class GPOConfig(FrozenConfig):
    """Configure `targets.gpo`."""

    name: Literal["gpo"] = "gpo"
    beta: Beta = 0.001


PairConfig = (
    DPOConfig
    | IPOConfig
    | HingeConfig
    | RDPOConfig
    | FDPOConfig
    | LNDPOConfig
    | RPOConfig
    | SimPOConfig
    | ORPOConfig
    | CPOConfig
    | ASFTConfig
    | FlexDPOConfig
    | MODPOConfig
    | SPPOConfig
    | GPOConfig
)
"""Configurations of the objectives that take pairs."""


def _refuse_recipes(value: object) -> object:
    """Explain an objective that exists, but that the trainer cannot feed."""
    fed = {kind.model_fields["name"].default for kind in get_args(RowConfig)}
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str) or name in fed:
        return value
    # The table imports this module, and torch with every function.
    from trillium.objectives.describe import describe_needs
    from trillium.objectives.table import OBJECTIVES

    row = OBJECTIVES.get(name)
    if row is None or row.is_trainable:
        return value
    choices = ", ".join(name for name, each in OBJECTIVES.items() if each.is_trainable)
    raise ValueError(
        f"{row.name} is a function the trainer cannot feed by itself (it needs "
        f"{describe_needs(row.needs)}); choose one of {choices}"
    )


RowConfig = (
    PairConfig
    | KTOConfig
    | recipe.PoFTConfig
    | recipe.DOVEConfig
    | recipe.SLiCConfig
    | recipe.TripleConfig
    | recipe.RationaleConfig
    | recipe.XPOConfig
    | recipe.SRPOConfig
    | recipe.C3POConfig
    | recipe.LiPOConfig
    | recipe.PROConfig
    | recipe.TreeTPOConfig
    | recipe.TDPOConfig
    | recipe.SparsePOConfig
    | recipe.OREOConfig
    | recipe.DegreeConfig
)
"""Configurations of the objectives that train from rows of a file."""

ObjectiveConfig = Annotated[
    RowConfig, Field(discriminator="name"), BeforeValidator(_refuse_recipes)
]
"""The configuration of any objective that the trainer can feed; the field `name` says which."""
