"""The arms of the alignment experiment: OneRec's rows of Table 1, and what must be beaten.

Every arm changes the same base configuration; all draw the same number of sessions for the same
prompts, so that what differs is what is made of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trillium.objectives.configs import (
    CPOConfig,
    DPOConfig,
    IPOConfig,
    RDPOConfig,
    SimPOConfig,
)
from trillium.objectives.recipe_configs import LiPOConfig

from trillium_rec.alignment.config import (
    AlignConfig,
    GroupConfig,
    ImitateConfig,
    SelectionConfig,
)


@dataclass(frozen=True)
class Arm:
    """Describe one arm: what it changes, and one line of help.

    `is_trained` is false for the seed model and for re-ranking, which only choose sessions.
    """

    help: str
    changes: Mapping[str, object]
    is_trained: bool = True

    def configure(self, base: AlignConfig) -> AlignConfig:
        """Return the configuration of this arm; its beta, or tau, is that of the base's DPO."""
        config = base.model_copy(update=dict(self.changes))
        if not isinstance(base.objective, DPOConfig):
            return config
        beta, objective = base.objective.beta, config.objective
        changed: dict[str, object] = {}
        if isinstance(objective, DPOConfig | RDPOConfig | CPOConfig | LiPOConfig):
            changed = {"objective": objective.model_copy(update={"beta": beta})}
        elif isinstance(objective, IPOConfig):
            changed = {"objective": objective.model_copy(update={"tau": beta})}
        return config.model_copy(update=changed)


_SAFE = SelectionConfig(winner=0.9, loser=0.25, margin=0.05, distinct_sets=True)
_IMITATING: dict[str, object] = {"objective": None, "imitates_log": True}

ARMS: Mapping[str, Arm] = {
    "seed": Arm("The model before any alignment.", _IMITATING, is_trained=False),
    "rerank": Arm(
        "The best by the reward model of the N sessions of the seed model; no training.",
        _IMITATING,
        is_trained=False,
    ),
    "ntp": Arm("Goes on imitating the log.", _IMITATING),
    "best_of_n": Arm("Imitates the best of N beside the log.", {"objective": ImitateConfig()}),
    "random_loser": Arm(
        "DPO of the best of N against another at random.",
        {"selection": SelectionConfig(loser="random")},
    ),
    "ipa": Arm("Algorithm 2: best against worst of N, beside the log.", {}),
    "ipa_no_log": Arm("The same without the log.", {"imitates_log": False}),
    "ipa_safe": Arm(
        "Quantiles with a margin, distinct sets, diverse beams, shared prefixes masked.",
        {"selection": _SAFE, "mask_shared": True, "n_groups": 4},
    ),
    "s_dpo": Arm(
        "The best against the three worst in one softmax.",
        {
            "objective": LiPOConfig(variant="softmax"),
            "selection": SelectionConfig(n_losers=3),
        },
    ),
    "ipo": Arm("A fixed margin.", {"objective": IPOConfig(normalize="none")}),
    "cdpo": Arm(
        "DPO with a tenth of the labels in doubt.",
        {"objective": DPOConfig(label_smoothing=0.1)},
    ),
    "rdpo": Arm(
        "DPO made unbiased under a tenth of flipped labels.",
        {"objective": RDPOConfig(epsilon=0.1)},
    ),
    "cpo": Arm("DPO without reference, plus the winner.", {"objective": CPOConfig()}),
    "simpo": Arm("Means with a target margin, no reference.", {"objective": SimPOConfig()}),
    "grpo": Arm("Advantages within the N, clipped.", {"objective": GroupConfig()}),
}
"""Every arm by name, in the order of the table."""
