"""Accelerated preference optimisation: a step beyond what each round trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file

from trillium.objectives.iterations import apo_accelerated
from trillium.objectives.recipe_configs import APOConfig
from trillium.policies.adapters import adapter_parameters
from trillium.policies.arithmetic import paired_factors
from trillium.training.recipes.recipe import Recipe

_APO = APOConfig()


@dataclass(frozen=True)
class Extrapolate:
    """Move the update of every layer on by alpha times its change since the round before.

        target = update_t + alpha * (update_t - update_t-1)        update = scaling * B A

    The target has a higher rank than the adapter. A moves on by the same rule, entry by entry, and
    B is what brings B A closest to the target; what is lost is of second order in the change. Where
    A did not move nothing is lost.
    """

    config: APOConfig

    @property
    def identity(self) -> str:
        """Name the rule and its length."""
        return f"extrapolate {self.config.alpha}"

    @torch.no_grad()
    def promote(self, policy: PeftModel, earlier: Sequence[Path]) -> Mapping[str, float]:
        """Extrapolate in place; the first round, which has no predecessor, is left as it is.

        Returns `lost`, the distance from the target as a share of the step beyond what was trained.
        """
        if not earlier:
            return {}
        alpha, entries = self.config.alpha, adapter_parameters(policy)
        before = dict(paired_factors(load_file(earlier[-1] / "adapter_model.safetensors")))
        lost = step = 0.0
        for key, trained in paired_factors(entries):
            change = trained.plus(before[key], times=-1.0)
            target = trained.plus(change, times=alpha)
            right = apo_accelerated(trained.right, before[key].right, alpha=alpha)
            left = target.left_for(right)
            lost += target.plus(replace(trained, left=left, right=right), times=-1.0).norm() ** 2
            step += (alpha * change.norm()) ** 2
            entries[key].copy_(right)
            entries[key.replace("lora_A", "lora_B")].copy_(left)
        return {"lost": (lost / step) ** 0.5 if step else 0.0}


def accelerated(recipe: Recipe, *, config: APOConfig = _APO) -> Recipe:
    """Return `recipe` with Nesterov's momentum over its rounds (arXiv 2410.06293, Alg. 1).

    The reference of each round is the extrapolated policy that it starts from, and every round
    begins with a fresh optimizer. Works around any preference step: DPO, IPO, SPPO.
    """
    return replace(
        recipe,
        name=f"{recipe.name} accelerated",
        reference="snapshot",
        promotion=Extrapolate(config),
    )
