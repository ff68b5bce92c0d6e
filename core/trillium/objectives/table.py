"""The literal table of objectives, and the one call that evaluates any of them.

A row says what the function reads (`needs`), and `evaluate` hands it exactly that: a field that was
not declared never reaches it. The README, `trillium objectives list` and the tests come from here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from trillium.errors import DataError, ShapeError
from trillium.objectives import (
    companions,
    embeddings,
    iterations,
    listwise,
    pairwise,
    reference_free,
    rollouts,
    targets,
    tokens,
    tree,
    unpaired,
)
from trillium.objectives import configs as cfg
from trillium.objectives import recipe_configs as recipe
from trillium.objectives.batch import Needs, PairLogps, SingleLogps
from trillium.objectives.configs import FrozenConfig, ObjectiveConfig

Logps = PairLogps | SingleLogps
"""The log-probabilities of one model, in the shape the trainer passes."""


@dataclass(frozen=True)
class Objective:
    """Describe one objective.

    `needs` is the most that any configuration of it reads; `needs_of` is exact. `trl` says whether
    TRL 1.16 has the same loss (same), another one under this name (differs) or none (absent); the
    function's docstring says how it differs. `is_trainable` says that the trainer can supply all of
    `needs` by itself and the function returns losses; the others are for recipes.
    """

    name: str
    function: Callable[..., object]
    config: type[FrozenConfig]
    needs: Needs
    arxiv: str
    trl: Literal["same", "differs", "absent"]
    help: str

    @property
    def is_trainable(self) -> bool:
        """Say whether the trainer can supply everything this objective reads."""
        return self.needs.shape in ("pair", "single") and not self.needs.further


_PAIR = Needs("pair", reference=True)
_COUNTED = Needs("pair", reference=True, lengths=True)
_FREE = Needs("pair", lengths=True)


def _pair(*further: str) -> Needs:
    return Needs("pair", reference=True, further=further)


# fmt: off
_ROWS = (
    Objective("dpo", pairwise.dpo, cfg.DPOConfig, _PAIR, "2305.18290", "same",
              "Prefer chosen over rejected, relative to a frozen reference."),
    Objective("ipo", pairwise.ipo, cfg.IPOConfig, _COUNTED, "2310.12036", "same",
              "Regress the margin to a fixed target, so that it cannot grow for ever."),
    Objective("hinge", pairwise.hinge, cfg.HingeConfig, _PAIR, "2309.06657", "same",
              "Push each margin to one and then leave the pair alone."),
    Objective("rdpo", pairwise.rdpo, cfg.RDPOConfig, _PAIR, "2403.00409", "same",
              "DPO made unbiased under a known share of flipped labels."),
    Objective("fdpo", pairwise.fdpo, cfg.FDPOConfig, _PAIR, "2309.16240", "differs",
              "DPO under forward KL, Jensen-Shannon or alpha divergence."),
    Objective("ln_dpo", pairwise.ln_dpo, cfg.LNDPOConfig, _COUNTED, "2407.15229", "same",
              "DPO on means per token, so that length earns nothing."),
    Objective("rpo", pairwise.rpo, cfg.RPOConfig, _COUNTED, "2405.16436", "differs",
              "DPO plus the likelihood of the chosen response, against over-optimisation."),
    Objective("flex_dpo", targets.flex_dpo, cfg.FlexDPOConfig, _PAIR, "2406.07327", "absent",
              "DPO with its own beta for each side, against falling likelihoods."),
    Objective("modpo", targets.modpo, cfg.MODPOConfig,
              Needs("pair", reference=True, columns=("margin_chosen", "margin_rejected")),
              "2310.03708", "absent",
              "DPO for a weighted sum of objectives, the others entering as margins."),
    Objective("sppo", targets.sppo, cfg.SPPOConfig,
              Needs("pair", reference=True, columns=("p_win_chosen", "p_win_rejected")),
              "2405.00675", "differs",
              "Regress log-ratios to win probabilities against the last policy."),
    Objective("gpo", targets.gpo, cfg.GPOConfig,
              Needs("pair", reference=True, columns=("score_chosen", "score_rejected")),
              "2410.02197", "absent",
              "Regress log-ratios to general preference scores, cycles included."),
    Objective("simpo", reference_free.simpo, cfg.SimPOConfig, _FREE, "2405.14734", "same",
              "Mean log-probabilities with a target margin; no reference model."),
    Objective("orpo", reference_free.orpo, cfg.ORPOConfig, _FREE, "2403.07691", "differs",
              "Supervised fine-tuning with an odds-ratio penalty, in one stage."),
    Objective("cpo", reference_free.cpo, cfg.CPOConfig,
              Needs("pair", lengths=True, batch_tokens=True), "2401.08417", "same",
              "DPO with a uniform reference plus the likelihood of the chosen response."),
    Objective("asft", reference_free.asft, cfg.ASFTConfig, _FREE, "2409.10571", "absent",
              "Likelihood of the chosen response, absolute odds against the rejected one."),
    Objective("kto", unpaired.kto, cfg.KTOConfig,
              Needs("single", reference=True, mismatched=True, labels=("label",)),
              "2402.01306", "same",
              "Thumbs up or down on single responses; no pairs needed."),
    Objective("poft", unpaired.poft, recipe.PoFTConfig,
              Needs("single", lengths=True, further=("aligned_mean_logps",)),
              "2412.12865", "absent",
              "Supervised fine-tuning weighted by what aligned models find likely."),
    Objective("meet", unpaired.meet, recipe.MEETConfig,
              Needs("single", lengths=True, further=("good", "bad")), "2310.00819", "absent",
              "One control adapter for good and one for bad responses."),
    Objective("dove", companions.dove, recipe.DOVEConfig,
              _pair("policy_prompt", "reference_prompt"), "2404.00530", "absent",
              "DPO over instruction and response together; prompts may differ."),
    Objective("slic", companions.slic, recipe.SLiCConfig,
              Needs("pair", further=("target",)), "2305.10425", "absent",
              "A calibration margin plus the likelihood of a supervised target."),
    Objective("tpo_triple", companions.tpo_triple, recipe.TripleConfig,
              Needs("pair", lengths=True, further=("gold", "tokens_per_gold")),
              "2405.16681", "same",
              "A pair without reference plus the likelihood of a gold response."),
    Objective("rationale_dpo", companions.rationale_dpo, recipe.RationaleConfig,
              _pair("rationale"), "2407.14477", "absent",
              "DPO plus the likelihood of a rationale for the preference."),
    Objective("xpo", companions.xpo, recipe.XPOConfig,
              _pair("reference_sample"), "2405.21046", "absent",
              "Online DPO with a bonus for leaving the reference's samples."),
    Objective("srpo", companions.srpo, recipe.SRPOConfig,
              Needs("pair", further=("direct", "given_chosen", "given_rejected", "p_win")),
              "2406.01660", "absent",
              "A generator and its own reviser, robust to where samples come from."),
    Objective("c3po", companions.c3po, recipe.C3POConfig,
              _pair("near_scope", "out_of_scope"), "2402.10893", "absent",
              "Verbal feedback in scope by DPO, unchanged behaviour out of scope."),
    Objective("curry_dpo", iterations.curry_dpo, recipe.CurryConfig,
              Needs("list", further=("ratings",)), "2403.07230", "absent",
              "A curriculum of pairs from easy to hard, then DPO in stages."),
    Objective("ofs_dpo", iterations.ofs_dpo, recipe.OFSConfig,
              _pair("fast", "slow"), "2406.05534", "absent",
              "A fast and a slow adapter that chase each other, for streams of domains."),
    Objective("rso", iterations.rso, recipe.RSOConfig,
              Needs("rollout", further=("rewards", "uniforms")), "2309.06657", "absent",
              "Rejection sampling of candidates towards the optimal policy."),
    Objective("apo_accelerated", iterations.apo_accelerated, recipe.APOConfig,
              Needs("rollout", further=("current", "previous")), "2410.06293", "absent",
              "Extrapolate between the policies of successive rounds."),
    Objective("lipo", listwise.lipo, recipe.LiPOConfig,
              Needs("list", reference=True, labels=("label",)), "2402.01878", "absent",
              "Learning to rank: lambda weights and six other listwise losses."),
    Objective("pro", listwise.pro, recipe.PROConfig,
              Needs("list", lengths=True, labels=("reward",)), "2306.17492", "absent",
              "Each response against all worse ones, with rewards as temperatures."),
    Objective("tree_tpo", tree.tree_tpo, recipe.TreeTPOConfig,
              Needs("list", reference=True, labels=("label",), further=("step_weight",)),
              "2410.12854", "absent",
              "Listwise learning over the paths of a tree of steps."),
    Objective("tdpo", tokens.tdpo, recipe.TDPOConfig,
              Needs("token", reference=True, further=("kl",)), "2404.11999", "absent",
              "DPO with the divergence of every token held on both sides."),
    Objective("sparsepo", tokens.sparsepo, recipe.SparsePOConfig,
              Needs("token", reference=True, further=("kl", "mask_u", "mask_d")),
              "2410.05102", "absent",
              "Token-level DPO in which sparse masks choose what matters."),
    Objective("oreo", tokens.oreo, recipe.OREOConfig,
              Needs("token", reference=True, further=("values", "scored", "reward")),
              "2412.16145", "absent",
              "Offline reinforcement learning of steps with a value head."),
    Objective("rto", rollouts.rto, recipe.RTOConfig,
              Needs("rollout", reference=True,
                    further=("aligned", "scored", "reward", "values")), "2404.18922", "absent",
              "Token rewards from a DPO model, to be followed by PPO."),
    Objective("hypo", rollouts.hypo, recipe.HyPOConfig,
              _pair("policy_sample", "reference_sample"), "2406.01462", "absent",
              "Offline DPO with the KL to the reference controlled online."),
    Objective("p3o", rollouts.p3o, recipe.P3OConfig,
              Needs("rollout", further=("first", "second", "old_first", "old_second",
                                        "reward_first", "reward_second")),
              "2310.00212", "absent",
              "Policy gradient on reward differences of two samples."),
    Objective("gpm", embeddings.gpm, recipe.GPMConfig,
              Needs("embedding", further=("chosen", "rejected")), "2410.02197", "absent",
              "A preference model of embeddings that can hold cycles."),
    Objective("spo_degree", embeddings.spo_degree, recipe.DegreeConfig,
              _pair("degree_logits", "degree_label"), "2409.17791", "absent",
              "DPO plus a head that tells degrees of degradation apart."),
    Objective("oppo", embeddings.oppo, recipe.OPPOConfig,
              Needs("embedding", further=("z_star", "preferred", "other", "recon")),
              "2305.16217", "absent",
              "Offline control from preferences between trajectory embeddings."),
)
# fmt: on

OBJECTIVES: dict[str, Objective] = {row.name: row for row in _ROWS}
"""Every objective by name, in the order of the README."""

# These fields of a configuration choose inputs; all others are keyword arguments of the function.
_CHOOSES_INPUTS = {"name", "reference_free", "normalize_by_ref"}


def needs_of(config: ObjectiveConfig) -> Needs:
    """Return what this configuration reads: the row's needs, less what its options make unused."""
    needs = OBJECTIVES[config.name].needs
    match config:
        case cfg.DPOConfig(reference_free=True) | cfg.HingeConfig(normalize_by_ref=False):
            return replace(needs, reference=False)
        case cfg.IPOConfig(normalize="none") | cfg.RPOConfig(sft="sum_beta"):
            return replace(needs, lengths=False)
    return needs


def evaluate(
    config: ObjectiveConfig,
    policy: Logps,
    reference: Logps | None = None,
    *,
    labels: Mapping[str, Tensor] | None = None,
    columns: Mapping[str, Tensor] | None = None,
    kl: Float[Tensor, ""] | None = None,
    tokens_per_pair: float | None = None,
) -> Float[Tensor, " example"]:
    """Return one loss per example, handing the objective what `needs_of(config)` says and no more.

    `kl` is KTO's reference point over the optimizer batch, `tokens_per_pair` the mean count of
    chosen tokens over it (None: over this batch).
    Raises DataError for a missing label or column, ShapeError for another shape or number.
    """
    needs, name = needs_of(config), config.name
    if needs.reference:
        _check_fit(name, policy, reference)
    arguments: dict[str, object] = config.model_dump(exclude=_CHOOSES_INPUTS)
    arguments |= {label: _declared(name, "label", label, labels) for label in needs.labels}
    arguments |= {column: _declared(name, "column", column, columns) for column in needs.columns}
    if needs.mismatched:
        arguments["kl"] = _declared(name, "reference point", "kl", {} if kl is None else {"kl": kl})
    if needs.batch_tokens:
        arguments["tokens_per_pair"] = tokens_per_pair
    models: list[Logps | None] = [_narrow(name, policy, needs)]
    if OBJECTIVES[name].needs.reference:
        models.append(_narrow(name, reference, needs) if reference and needs.reference else None)
    losses = OBJECTIVES[name].function(*models, **arguments)
    assert isinstance(losses, Tensor)  # every trainable objective returns losses
    return losses


def _narrow(name: str, logps: Logps, needs: Needs) -> Logps:
    """Drop the counts of tokens unless they were declared; raise ShapeError for another shape."""
    match logps, needs.shape:
        case PairLogps(), "pair":
            return logps if needs.lengths else replace(logps, n_chosen=None, n_rejected=None)
        case SingleLogps(), "single":
            return logps if needs.lengths else replace(logps, lengths=None)
    raise ShapeError(
        f"{name}: got {type(logps).__name__} (needs shape {needs.shape}); "
        "use an objective that fits the data, or convert the rows"
    )


def _check_fit(name: str, policy: Logps, reference: Logps | None) -> None:
    """Raise ShapeError when the reference is absent or of another number of examples."""
    if reference is None:
        raise ShapeError(
            f"{name}: the reference log-probabilities are missing (this objective compares with a "
            "reference); choose a reference, or an objective that needs none"
        )
    n_policy, n_reference = _n_examples(policy), _n_examples(reference)
    if n_policy != n_reference:
        raise ShapeError(
            f"{name}: policy has {n_policy} examples, reference has {n_reference}; "
            "both must come from the same batch"
        )


def _n_examples(logps: Logps) -> int:
    return len(logps.chosen) if isinstance(logps, PairLogps) else len(logps.logps)


def _declared(name: str, kind: str, key: str, given: Mapping[str, Tensor] | None) -> Tensor:
    """Return a declared tensor, or raise DataError that names what is there instead."""
    if not given or key not in given:
        present = ", ".join(sorted(given)) if given else "none"
        raise DataError(
            f'{name}: {kind} "{key}" is missing (the batch has: {present}); add it to every row'
        )
    return given[key]
