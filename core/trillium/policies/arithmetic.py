"""Arithmetic on LoRA adapters: set one from a folder, extrapolate between two, add several up.

An adapter changes a layer by its update, scaling * B A. Updates are what is extrapolated and added,
never A and B by themselves: a sum of factors is not the factors of a sum.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor

from trillium.errors import ConfigError
from trillium.policies.adapters import (
    POLICY_ADAPTER,
    adapter_parameters,
    copy_adapter,
    read_adapter_config,
)


@torch.no_grad()
def restore_adapter(policy: PeftModel, folder: Path, *, name: str = POLICY_ADAPTER) -> None:
    """Set every entry of adapter `name` to what is saved in `folder`.

    The policy's own adapter goes on training from there; any other name is made a frozen adapter
    of the same shape when it is new. Raises ConfigError when the folder's tensors do not fit.
    """
    if name not in policy.peft_config:
        copy_adapter(policy, POLICY_ADAPTER, name)
    saved = load_file(folder / "adapter_model.safetensors")
    entries = adapter_parameters(policy, name)
    differing = sorted(
        key
        for key in saved.keys() | entries.keys()
        if key not in saved or key not in entries or saved[key].shape != entries[key].shape
    )
    if differing:
        raise ConfigError(
            f"{folder}: does not fit adapter {name} ({len(differing)} tensors differ, the first is "
            f"{differing[0]}); give an adapter of the same layers and rank"
        )
    for key, entry in entries.items():
        entry.copy_(saved[key])


@torch.no_grad()
def add_combination(policy: PeftModel, parts: Sequence[tuple[Path, float]], *, name: str) -> None:
    """Put sum of weight * update over saved adapters on the model, frozen, as adapter `name`.

        A = the As below one another        B = weight * scaling * B, the Bs side by side

    Exact: the rank is the sum of the ranks, the scaling 1. Replaces an adapter of that name.
    Raises ConfigError when a folder does not fit the base or the other folders.
    """
    base_name = str(policy.peft_config[POLICY_ADAPTER].base_model_name_or_path)
    configs = [read_adapter_config(folder, base_name=base_name) for folder, _ in parts]
    saved = [load_file(folder / "adapter_model.safetensors") for folder, _ in parts]
    for (folder, _), tensors in zip(parts, saved, strict=True):
        if tensors.keys() != saved[0].keys():
            raise ConfigError(
                f"{folder}: adapts other layers than {parts[0][0]} (all parts of a combination "
                "need the same ones); combine adapters of one configuration"
            )
    config = copy(policy.peft_config[POLICY_ADAPTER])
    assert isinstance(config, LoraConfig)
    config.r = sum(each.r for each in configs)
    config.lora_alpha, config.use_rslora, config.inference_mode = config.r, False, True
    if name in policy.peft_config:
        policy.delete_adapter(name)
    with torch.random.fork_rng():
        policy.add_adapter(name, config)
    for key, entry in adapter_parameters(policy, name).items():
        if "lora_A" in key:
            entry.copy_(torch.cat([tensors[key] for tensors in saved], dim=0))
        else:
            scales = [
                weight * scaling_of(each) for (_, weight), each in zip(parts, configs, strict=True)
            ]
            lefts = [scale * each[key] for scale, each in zip(scales, saved, strict=True)]
            entry.copy_(torch.cat(lefts, dim=1))
        entry.requires_grad_(False)


def scaling_of(config: LoraConfig) -> float:
    """Return what PEFT multiplies B A by."""
    return float(config.lora_alpha) / (math.sqrt(config.r) if config.use_rslora else config.r)


@dataclass(frozen=True)
class LowRank:
    """Hold a matrix as left @ right; sums of such matrices only get longer in the middle."""

    left: Float[Tensor, "out rank"]
    right: Float[Tensor, "rank in"]

    def plus(self, other: "LowRank", *, times: float = 1.0) -> "LowRank":
        """Return self + times * other."""
        left = torch.cat([self.left, times * other.left], dim=1)
        return LowRank(left, torch.cat([self.right, other.right], dim=0))

    def norm(self) -> float:
        """Return the Frobenius norm, without writing the matrix out."""
        square = ((self.left.T @ self.left) * (self.right @ self.right.T)).sum().item()
        return math.sqrt(max(square, 0.0))

    def left_for(self, right: Float[Tensor, "other in"]) -> Float[Tensor, "out other"]:
        """Return the left factor that, with another right one, comes closest to this matrix."""
        weights: Tensor = torch.linalg.lstsq(right.T, self.right.T).solution
        return self.left @ weights.T


def paired_factors(
    entries: Mapping[str, Tensor],
) -> Iterator[tuple[str, LowRank]]:
    """Yield each layer's name and its B and A in float64, from the entries of one adapter."""
    for key in sorted(entries):
        if "lora_A" in key:
            left, right = entries[key.replace("lora_A", "lora_B")], entries[key]
            yield key, LowRank(left.detach().double(), right.detach().double())
