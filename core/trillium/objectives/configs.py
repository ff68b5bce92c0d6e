"""One frozen configuration per objective: its hyper-parameters, their bounds and defaults.

The fields of a configuration are the keyword arguments of the objective's function, except the
few that choose what it reads (`reference_free`, `normalize_by_ref`). A run file is checked against
the union `ObjectiveConfig`, by `name`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Beta = Annotated[float, Field(gt=0, description="Strength of the pull towards the reference.")]
Scale = Annotated[float, Field(gt=0, description="Scale of the compared scores.")]
Smoothing = Annotated[
    float,
    Field(ge=0, lt=0.5, description="Share of the loss that believes the label flipped."),
]
Weight = Annotated[float, Field(ge=0, description="Weight of the objective's second term.")]
Link = Annotated[
    Literal["sigmoid", "hinge"], Field(description="What turns the compared scores into a loss.")
]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DPOConfig(_Config):
    """Configure `pairwise.dpo`."""

    name: Literal["dpo"] = "dpo"
    beta: Beta = 0.1
    label_smoothing: Smoothing = 0.0
    reference_free: bool = Field(default=False, description="Compare without a reference.")


class IPOConfig(_Config):
    """Configure `pairwise.ipo`."""

    name: Literal["ipo"] = "ipo"
    tau: float = Field(default=0.1, gt=0, description="The target margin is 1 / (2 tau).")
    normalize: Literal["none", "tokens"] = Field(
        default="tokens", description="Sums, or means per token, of the log-ratios."
    )


class HingeConfig(_Config):
    """Configure `pairwise.hinge`."""

    name: Literal["hinge"] = "hinge"
    beta: Beta = 0.05
    normalize_by_ref: bool = Field(default=True, description="Compare relative to the reference.")


class RDPOConfig(_Config):
    """Configure `pairwise.rdpo`."""

    name: Literal["rdpo"] = "rdpo"
    beta: Beta = 0.1
    epsilon: float = Field(default=0.1, ge=0, lt=0.5, description="Known share of flipped labels.")


class FDPOConfig(_Config):
    """Configure `pairwise.fdpo`."""

    name: Literal["fdpo"] = "fdpo"
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = Field(
        default="reverse_kl", description="What keeps the policy near the reference."
    )
    alpha: float = Field(
        default=0.5, gt=0, lt=1, description="Between reverse KL (0) and forward KL (1)."
    )
    beta: Beta = 0.1


class LNDPOConfig(_Config):
    """Configure `pairwise.ln_dpo`."""

    name: Literal["ln_dpo"] = "ln_dpo"
    beta: Beta = 2.0


class RPOConfig(_Config):
    """Configure `pairwise.rpo`."""

    name: Literal["rpo"] = "rpo"
    beta: Beta = 0.01
    eta: Weight = 0.005
    sft: Literal["sum_beta", "mean"] = Field(
        default="sum_beta", description="Likelihood as a sum times beta, or as a mean per token."
    )


class SimPOConfig(_Config):
    """Configure `reference_free.simpo`."""

    name: Literal["simpo"] = "simpo"
    beta: Scale = 2.0
    gamma_beta_ratio: float = Field(default=0.25, ge=0, description="Target margin over beta.")
    label_smoothing: Smoothing = 0.0
    loss_type: Link = "sigmoid"


class ORPOConfig(_Config):
    """Configure `reference_free.orpo`."""

    name: Literal["orpo"] = "orpo"
    lam: Weight = 0.1


class CPOConfig(_Config):
    """Configure `reference_free.cpo`."""

    name: Literal["cpo"] = "cpo"
    beta: Scale = 0.1
    alpha: Weight = 1.0
    loss_type: Link = "sigmoid"


class ASFTConfig(_Config):
    """Configure `reference_free.asft`."""

    name: Literal["asft"] = "asft"
    lam: Weight = 0.1
    beta: float = Field(default=1.0, gt=0, description="Tempering of the log-odds; 1 is the paper.")


class KTOConfig(_Config):
    """Configure `unpaired.kto`."""

    name: Literal["kto"] = "kto"
    beta: Beta = 0.1
    w_desirable: Weight = 1.0
    w_undesirable: Weight = 1.0


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
)
"""Configurations of the objectives that take pairs."""

ObjectiveConfig = Annotated[PairConfig | KTOConfig, Field(discriminator="name")]
"""Any configuration; the field `name` says which."""
