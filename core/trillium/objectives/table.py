"""The literal table of objectives: function, configuration, needs, paper and one line of each.

The README, `trillium objectives list` and the tests come from here; `evaluate` calls any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

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
from trillium.objectives.batch import Needs
from trillium.objectives.config_fields import FrozenConfig
from trillium.objectives.configs import ObjectiveConfig


@dataclass(frozen=True)
class Objective:
    """Describe one objective.

    `needs` is the most that any configuration of it reads, but for columns in place of an option;
    `needs_of` is exact. `trl` says whether
    TRL 1.16 has the same loss (same), another one under this name (differs) or none (absent); the
    function's docstring says how it differs. `is_trainable` says that the trainer supplies all of
    `needs` from rows of a file; `recipe` names the module that trains with one of the others.
    """

    name: str
    function: Callable[..., object]
    config: type[FrozenConfig]
    needs: Needs
    arxiv: str
    trl: Literal["same", "differs", "absent"]
    help: str
    recipe: str | None = None

    @property
    def is_trainable(self) -> bool:
        """Say whether the trainer can supply everything this objective reads."""
        return self.needs.shape not in ("rollout", "embedding") and not self.needs.further


_PAIR = Needs("pair", reference=True)
_COUNTED = Needs("pair", reference=True, lengths=True)
_FREE = Needs("pair", lengths=True)

REVISIONS = (
    "chosen_given_chosen",
    "rejected_given_chosen",
    "chosen_given_rejected",
    "rejected_given_rejected",
)
"""The paths of SRPO beyond the pair: each response as a revision of each."""


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
    Objective("orpo", reference_free.orpo, cfg.ORPOConfig,
              Needs("pair", lengths=True, batch_tokens=True, prompts=True,
                    computed=("policy_prompt",)), "2403.07691", "differs",
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
              Needs("single", lengths=True, columns=("aligned_mean_logps",)),
              "2412.12865", "absent",
              "Supervised fine-tuning weighted by what aligned models find likely."),
    Objective("meet", unpaired.meet, recipe.MEETConfig,
              Needs("single", lengths=True, further=("good", "bad")), "2310.00819", "absent",
              "One control adapter for good and one for bad responses.",
              recipe="recipes/control.py"),
    Objective("dove", companions.dove, recipe.DOVEConfig,
              Needs("pair", reference=True, prompts=True,
                    computed=("policy_prompt", "reference_prompt")), "2404.00530", "absent",
              "DPO over instruction and response together; prompts may differ."),
    Objective("slic", companions.slic, recipe.SLiCConfig,
              Needs("pair", paths=("target",), computed=("target",)), "2305.10425", "absent",
              "A calibration margin plus the likelihood of a supervised target."),
    Objective("tpo_triple", companions.tpo_triple, recipe.TripleConfig,
              Needs("pair", lengths=True, paths=("gold",),
                    computed=("gold", "tokens_per_gold")),
              "2405.16681", "same",
              "A pair without reference plus the likelihood of a gold response."),
    Objective("rationale_dpo", companions.rationale_dpo, recipe.RationaleConfig,
              Needs("pair", reference=True, paths=("rationale",), computed=("rationale",)),
              "2407.14477", "absent",
              "DPO plus the likelihood of a rationale for the preference."),
    Objective("xpo", companions.xpo, recipe.XPOConfig,
              Needs("pair", reference=True, computed=("reference_sample",),
                    behind=("reference_is_chosen",)),
              "2405.21046", "absent",
              "Online DPO with a bonus for leaving the reference's samples."),
    Objective("srpo", companions.srpo, recipe.SRPOConfig,
              Needs("pair", reference=True, logratios=True, columns=("p_win",), paths=REVISIONS,
                    computed=("given_chosen", "given_rejected")), "2406.01660", "absent",
              "A generator and its own reviser, robust to where samples come from."),
    Objective("c3po", companions.c3po, recipe.C3POConfig,
              Needs("pair", reference=True, paths=("near_scope", "out_of_scope"),
                    computed=("near_scope", "out_of_scope", "tokens_per_near", "tokens_per_out")),
              "2402.10893", "absent",
              "Verbal feedback in scope by DPO, unchanged behaviour out of scope."),
    Objective("curry_dpo", iterations.curry_dpo, recipe.CurryConfig,
              Needs("list", further=("ratings",)), "2403.07230", "absent",
              "A curriculum of pairs from easy to hard, then DPO in stages.",
              recipe="recipes/curriculum.py"),
    Objective("ofs_dpo", iterations.ofs_dpo, recipe.OFSConfig,
              _pair("fast", "slow"), "2406.05534", "absent",
              "A fast and a slow adapter that chase each other, for streams of domains.",
              recipe="recipes/fast_slow.py"),
    Objective("rso", iterations.rso, recipe.RSOConfig,
              Needs("rollout", further=("rewards", "uniforms")), "2309.06657", "absent",
              "Rejection sampling of candidates towards the optimal policy.",
              recipe="recipes/rejection.py"),
    Objective("apo_accelerated", iterations.apo_accelerated, recipe.APOConfig,
              Needs("rollout", further=("current", "previous")), "2410.06293", "absent",
              "Extrapolate between the policies of successive rounds.",
              recipe="recipes/acceleration.py"),
    Objective("lipo", listwise.lipo, recipe.LiPOConfig,
              Needs("list", reference=True, labels=("label",)), "2402.01878", "absent",
              "Learning to rank: lambda weights and six other listwise losses."),
    Objective("pro", listwise.pro, recipe.PROConfig,
              Needs("list", lengths=True, labels=("reward",)), "2306.17492", "absent",
              "Each response against all worse ones, with rewards as temperatures."),
    Objective("tree_tpo", tree.tree_tpo, recipe.TreeTPOConfig,
              Needs("steps", reference=True, labels=("label",), computed=("step_weight",)),
              "2410.12854", "absent",
              "Listwise learning over the paths of a tree of steps."),
    Objective("tdpo", tokens.tdpo, recipe.TDPOConfig,
              Needs("pair_token", reference=True, computed=("kl",)), "2404.11999", "absent",
              "DPO with the divergence of every token held on both sides."),
    Objective("sparsepo", tokens.sparsepo, recipe.SparsePOConfig,
              Needs("pair_token", reference=True, computed=("kl", "mask_u", "mask_d")),
              "2410.05102", "absent",
              "Token-level DPO in which sparse masks choose what matters."),
    Objective("oreo", tokens.oreo, recipe.OREOConfig,
              Needs("token", reference=True, labels=("reward",),
                    computed=("values", "scored", "starts", "reverse_kl", "forward_kl")),
              "2412.16145", "absent",
              "Offline reinforcement learning of steps with a value head."),
    Objective("rto", rollouts.rto, recipe.RTOConfig,
              Needs("rollout", reference=True,
                    further=("aligned", "scored", "reward", "values")), "2404.18922", "absent",
              "Token rewards from a DPO model, to be followed by PPO.",
              recipe="recipes/token_ppo.py"),
    Objective("hypo", rollouts.hypo, recipe.HyPOConfig,
              _pair("policy_sample", "reference_sample"), "2406.01462", "absent",
              "Offline DPO with the KL to the reference controlled online.",
              recipe="recipes/hybrid.py"),
    Objective("p3o", rollouts.p3o, recipe.P3OConfig,
              Needs("rollout", further=("first", "second", "old_first", "old_second",
                                        "reward_first", "reward_second")),
              "2310.00212", "absent",
              "Policy gradient on reward differences of two samples.",
              recipe="recipes/pairwise_ppo.py"),
    Objective("gpm", embeddings.gpm, recipe.GPMConfig,
              Needs("embedding", further=("chosen", "rejected")), "2410.02197", "absent",
              "A preference model of embeddings that can hold cycles."),
    Objective("spo_degree", embeddings.spo_degree, recipe.DegreeConfig,
              Needs("pair", reference=True, columns=("degree_label",),
                    computed=("degree_logits",)), "2409.17791", "absent",
              "DPO plus a head that tells degrees of degradation apart."),
    Objective("oppo", embeddings.oppo, recipe.OPPOConfig,
              Needs("embedding", further=("z_star", "preferred", "other", "recon")),
              "2305.16217", "absent",
              "Offline control from preferences between trajectory embeddings."),
)
# fmt: on

OBJECTIVES: dict[str, Objective] = {row.name: row for row in _ROWS}
"""Every objective by name, in the order of the README."""

CHOOSES_INPUTS = frozenset(
    {
        "name",
        "reference_free",
        "smoothing_from",
        "normalize_by_ref",
        "imitate",
        "revision",
        "labels_from",
        "step_weights",
        "masks",
        "mask_dropout",
        "mask_weight_decay",
        "n_degrees",
        "level",
        "value_learning_rate",
    }
)
"""Fields of a configuration that choose inputs; all others are arguments of the function."""


def needs_of(config: ObjectiveConfig) -> Needs:
    """Return what this configuration reads: the row's needs, less what its options make unused."""
    needs = OBJECTIVES[config.name].needs
    match config:
        case cfg.DPOConfig():
            columns = ("label_smoothing",) if config.smoothing_from == "row" else ()
            return replace(needs, columns=columns, reference=not config.reference_free)
        case cfg.HingeConfig(normalize_by_ref=False):
            return replace(needs, reference=False)
        case cfg.ORPOConfig(nll="response"):
            return replace(needs, batch_tokens=False, prompts=False, computed=())
        case cfg.ORPOConfig(nll="batch"):
            return replace(needs, prompts=False, computed=())
        case recipe.OREOConfig():
            unread = {"starts"} if config.level == "token" else set()
            read = {f"{config.divergence}_kl"} if config.alpha else set()
            unread |= {"reverse_kl", "forward_kl"} - read
            return replace(needs, computed=tuple(x for x in needs.computed if x not in unread))
        case cfg.IPOConfig(normalize="none") | cfg.RPOConfig(sft="sum_beta"):
            return replace(needs, lengths=False)
        case recipe.TripleConfig(variant="tpo"):
            return replace(needs, lengths=False)
        case recipe.SLiCConfig(imitate="chosen"):
            return replace(needs, paths=())
    return needs
