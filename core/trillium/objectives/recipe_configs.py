"""Configurations of the objectives that read more than the log-probabilities of a pair.

Further responses, lists, steps, single tokens, hidden states, samples or embeddings. The fields are
the keyword arguments of the functions, except the few that choose what is read
(`table.CHOOSES_INPUTS`).
"""

from typing import Literal

from pydantic import Field

from trillium.objectives.config_fields import Beta, FrozenConfig, Scale, Weight


class SLiCConfig(FrozenConfig):
    """Configure `companions.slic`."""

    name: Literal["slic"] = "slic"
    delta: float = Field(default=1.0, gt=0, description="Margin in nats.")
    lam: Weight = 0.1
    imitate: Literal["target", "chosen"] = Field(
        default="target", description="Each row's own supervised target, or the chosen response."
    )


class DOVEConfig(FrozenConfig):
    """Configure `companions.dove`."""

    name: Literal["dove"] = "dove"
    beta: Beta = 0.1


class TripleConfig(FrozenConfig):
    """Configure `companions.tpo_triple`."""

    name: Literal["tpo_triple"] = "tpo_triple"
    variant: Literal["tpo", "tpo_l"] = Field(default="tpo", description="Sums, or means.")
    beta: Scale = 0.2
    alpha: Weight = 0.9
    gamma: float = Field(default=0.5, ge=0, description="Target margin of tpo_l.")


class RationaleConfig(FrozenConfig):
    """Configure `companions.rationale_dpo`."""

    name: Literal["rationale_dpo"] = "rationale_dpo"
    beta: Beta = 0.1
    gamma: Weight = 0.1
    form: Literal["logsigmoid", "nll"] = Field(
        default="nll", description="The paper's likelihood, or the released code's."
    )


class XPOConfig(FrozenConfig):
    """Configure `companions.xpo`."""

    name: Literal["xpo"] = "xpo"
    beta: Beta = 0.1
    alpha: Weight = 1e-5


class SRPOConfig(FrozenConfig):
    """Configure `companions.srpo`."""

    name: Literal["srpo"] = "srpo"
    beta: Beta = 0.1
    alpha: float = Field(default=0.5, ge=0, le=1, description="Share of the reviser's loss.")
    revision: str = Field(
        default="Write a better reply.",
        min_length=1,
        description="What the reviser is told after a response.",
    )


class C3POConfig(FrozenConfig):
    """Configure `companions.c3po`."""

    name: Literal["c3po"] = "c3po"
    beta: Beta = 0.1
    kd_lambda: float = Field(default=0.0, ge=0, le=1, description="Share of distillation.")
    temp: float = Field(default=1.0, gt=0, description="Temperature of the distillation.")
    sigma_soft: float = Field(default=0.2, ge=0, description="Weight of the out-of-scope stream.")
    sigma_hard: float = Field(default=0.1, ge=0, description="Weight of the near-scope stream.")


class PoFTConfig(FrozenConfig):
    """Configure `unpaired.poft`."""

    name: Literal["poft"] = "poft"
    beta: Scale = 1.0
    gamma: float = Field(default=0.0, description="Margin added to the difference.")


class MEETConfig(FrozenConfig):
    """Configure `unpaired.meet`."""

    name: Literal["meet"] = "meet"
    reduction: Literal["pooled", "sum"] = Field(
        default="pooled", description="One mean over all tokens, or the sum."
    )


class LiPOConfig(FrozenConfig):
    """Configure `listwise.lipo`."""

    name: Literal["lipo"] = "lipo"
    variant: Literal[
        "lambda",
        "lambda_rax",
        "list_mle",
        "pair_logistic",
        "pair_hinge",
        "point_mse",
        "point_sigmoid",
        "softmax",
    ] = Field(default="lambda", description="Which listwise loss.")
    beta: Beta = 0.05
    labels_from: Literal["labels", "rewards", "ranks"] = Field(
        default="labels",
        description="The rows' own labels in [0, 1], or made of their rewards or ranks.",
    )


class PROConfig(FrozenConfig):
    """Configure `listwise.pro`."""

    name: Literal["pro"] = "pro"
    sft_weight: Weight = 0.05
    eps: float = Field(default=0.0, ge=0, description="Inside the logarithm; 1e-10 as released.")


class TreeTPOConfig(FrozenConfig):
    """Configure `tree.tree_tpo`."""

    name: Literal["tree_tpo"] = "tree_tpo"
    variant: Literal["intended", "official"] = Field(
        default="intended", description="The paper, or the released code with its inverted sign."
    )
    beta: Beta = 0.5
    normalize_steps: bool = Field(default=False, description="Divide by the weights of the steps.")
    step_weights: Literal["similarity", "uniform"] = Field(
        default="similarity", description="1 + cosine to the best path's step, or 1."
    )


class TDPOConfig(FrozenConfig):
    """Configure `tokens.tdpo`."""

    name: Literal["tdpo"] = "tdpo"
    variant: Literal["tdpo1", "tdpo2"] = Field(
        default="tdpo2", description="Both divergences, or the rejected one alone."
    )
    beta: Beta = 0.1
    alpha: float = Field(default=0.5, ge=0, description="Weight of the divergence in tdpo2.")


class SparsePOConfig(FrozenConfig):
    """Configure `tokens.sparsepo`."""

    name: Literal["sparsepo"] = "sparsepo"
    beta: Beta = 0.1
    l1_u: float = Field(default=0.0, ge=0, description="Price of the masks on log-ratios.")
    l1_d: float = Field(default=0.0, ge=0, description="Price of the masks on divergences.")
    masks: Literal["common", "independent", "mapo"] = Field(
        default="common",
        description="Learned, one for both uses or one for each; or from activations.",
    )
    mask_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of learned masks.")
    mask_weight_decay: float = Field(default=0.01, ge=0, description="Of learned masks alone.")


class OREOConfig(FrozenConfig):
    """Configure `tokens.oreo`."""

    name: Literal["oreo"] = "oreo"
    beta: Beta = 0.03
    alpha: float = Field(
        default=0.01, ge=0, description="Weight of the divergence from the reference; 0: none."
    )
    divergence: Literal["reverse", "forward", "sampled"] = Field(
        default="reverse",
        description="D(policy || reference), D(reference || policy), or that of own tokens alone.",
    )
    level: Literal["token", "step", "response"] = Field(
        default="token", description="What a state comes before: every token, a step, the response."
    )
    value_learning_rate: float | None = Field(
        default=None, gt=0, description="Rate of the value head; null: that of the policy."
    )


class RTOConfig(FrozenConfig):
    """Configure `rollouts.rto`."""

    name: Literal["rto"] = "rto"
    beta1: float = Field(default=0.05, ge=0, description="Scale of the token rewards.")
    clip: float = Field(default=0.05, ge=0, description="Bound of a token reward; 0 means none.")
    kl_coef: float = Field(
        default=0.01, ge=0, description="Weight of the distance from the reference."
    )
    gamma: float = Field(default=1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(default=0.95, ge=0, le=1, description="Decay of the advantage estimate.")


class HyPOConfig(FrozenConfig):
    """Configure `rollouts.hypo`."""

    name: Literal["hypo"] = "hypo"
    beta: Beta = 0.1
    lam: Weight = 0.001
    rloo: bool = Field(default=False, description="Subtract the mean of the other samples.")


class P3OConfig(FrozenConfig):
    """Configure `rollouts.p3o`."""

    name: Literal["p3o"] = "p3o"
    variant: Literal["v1", "v2"] = Field(default="v2", description="Clip each ratio, or the pair.")
    eps: float = Field(default=0.2, gt=0, lt=1, description="Clip of the ratios.")
    delta: float = Field(default=0.2, gt=0, description="Clip of the log-probability gap, v2.")


class CurryConfig(FrozenConfig):
    """Configure `iterations.curry_dpo`."""

    name: Literal["curry_dpo"] = "curry_dpo"
    order: Literal["easy_to_hard", "hard_to_easy"] = Field(
        default="easy_to_hard", description="Largest gap first, or last."
    )


class RSOConfig(FrozenConfig):
    """Configure `iterations.rso`."""

    name: Literal["rso"] = "rso"
    n_samples: int = Field(default=8, ge=1, description="Candidates to keep.")
    beta: float = Field(default=0.5, gt=0, description="Temperature of the acceptance.")


class APOConfig(FrozenConfig):
    """Configure `iterations.apo_accelerated`."""

    name: Literal["apo_accelerated"] = "apo_accelerated"
    alpha: float = Field(default=0.3, ge=0, description="Length of the extrapolation.")


class OFSConfig(FrozenConfig):
    """Configure `iterations.ofs_dpo`."""

    name: Literal["ofs_dpo"] = "ofs_dpo"
    beta: Beta = 0.1
    alpha: Weight = 0.1


class GPMConfig(FrozenConfig):
    """Configure `embeddings.gpm`."""

    name: Literal["gpm"] = "gpm"
    tau: float = Field(default=0.1, gt=0, description="Temperature of the scores.")
    scales: tuple[float, ...] | None = Field(
        default=None, description="One weight per plane of the embedding; none means 1."
    )


class DegreeConfig(FrozenConfig):
    """Configure `embeddings.spo_degree`."""

    name: Literal["spo_degree"] = "spo_degree"
    beta: Beta = 0.1
    gamma: Weight = 0.1
    n_degrees: int = Field(default=3, ge=2, description="Degrees that the head tells apart.")


class OPPOConfig(FrozenConfig):
    """Configure `embeddings.oppo`."""

    name: Literal["oppo"] = "oppo"
    margin: float = Field(default=1.0, ge=0, description="Margin of the triplet.")
    pref_ratio: float = Field(default=0.1, ge=0, description="Weight of the triplet.")
    norm_ratio: float = Field(default=0.1, ge=0, description="Weight of the norms.")
    pd_eps: float = Field(default=1e-6, ge=0, description="Added to each coordinate difference.")
