"""Merging LoRA adapters by what they compute: the update scaling * B A of each layer.

Linear and SLERP are exact: a sum of low-rank updates is a low-rank update of the summed ranks. TIES
and DARE change single entries, so their result has full rank and is cut back to the best adapter of
a given rank; `kept` says how much of it, as squared size, that adapter holds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from trillium.errors import ConfigError
from trillium.files import write_atomically
from trillium.merging.config import MergeConfig
from trillium.merging.methods import merge_updates, slerp_weights
from trillium.policies.adapters import read_adapter_config
from trillium.policies.arithmetic import scaling_of

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """Hold a saved adapter: its configuration and its factors by layer, scaling included in B."""

    folder: Path
    config: LoraConfig
    tensors: Mapping[str, Tensor]
    scaling: float

    def factors(self, key: str) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]:
        """Return scaling * B and A of the layer whose A is `key`, in float32."""
        b = self.tensors[key.replace("lora_A", "lora_B")]
        return self.scaling * b.float(), self.tensors[key].float()


@dataclass(frozen=True)
class MergedAdapter:
    """Hold the tensors and settings of a merged adapter; `kept` is 1 where the merge is exact."""

    tensors: dict[str, Tensor]
    settings: dict[str, object]
    kept: float

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format; the same adapter gives the same bytes."""
        write_atomically(folder / _WEIGHTS, save(self.tensors, metadata={"format": "pt"}))
        text = json.dumps(self.settings, indent=2, sort_keys=True) + "\n"
        write_atomically(folder / _CONFIG, text)


def load_adapters(folders: Sequence[Path]) -> list[Adapter]:
    """Read adapters of one base that adapt the same layers; raises ConfigError for others."""
    first = read_settings(folders[0])
    base = str(first.get("base_model_name_or_path") or "")
    found: list[Adapter] = []
    for folder in folders:
        config = read_adapter_config(folder, base_name=base)
        _check_plain(folder, config)
        tensors = _read_tensors(folder)
        if found:
            _check_same_layers(folder, tensors, found[0])
        found.append(Adapter(folder, config, tensors, scaling_of(config)))
    return found


def merge_adapters(config: MergeConfig, adapters: Sequence[Adapter]) -> MergedAdapter:
    """Merge; a weight of 1 among zeros gives that adapter, bit by bit, for linear and SLERP."""
    is_exact = config.method in ("linear", "slerp")
    settings = read_settings(adapters[0].folder)
    alone = [place for place, weight in enumerate(config.shares) if weight]
    if is_exact and len(alone) == 1 and config.shares[alone[0]] == 1:
        end = adapters[alone[0]]
        return MergedAdapter(dict(end.tensors), read_settings(end.folder), 1.0)
    keys = sorted(key for key in adapters[0].tensors if "lora_A" in key)
    tensors: dict[str, Tensor] = {}
    kept_energy = energy = 0.0
    rank = config.rank or sum(adapter.config.r for adapter in adapters)
    generator = torch.Generator().manual_seed(config.seed)
    for key in keys:
        if is_exact:
            b, a = _concatenate(config, adapters, key)
        else:
            merged = _merge_full(config, adapters, key, generator)
            b, a = _best_factors(merged, rank)
            energy += float(merged.double().square().sum())
            kept_energy += float(a.double().square().sum())
        tensors[key], tensors[key.replace("lora_A", "lora_B")] = a.contiguous(), b.contiguous()
    settings |= {"r": tensors[keys[0]].shape[0], "lora_alpha": tensors[keys[0]].shape[0]}
    settings |= {"use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
    return MergedAdapter(tensors, settings, kept_energy / energy if energy else 1.0)


def read_settings(folder: Path) -> dict[str, object]:
    """Return what an adapter's configuration file holds; raises ConfigError when there is none."""
    path = folder / _CONFIG
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{folder}: holds no readable {_CONFIG} (needs a LoRA adapter); give the folder that "
            "training wrote"
        )
    return found


def _concatenate(
    config: MergeConfig, adapters: Sequence[Adapter], key: str
) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]:
    """Return factors whose product is the weighted sum: As below one another, Bs side by side."""
    pairs = [adapter.factors(key) for adapter in adapters]
    weights: Sequence[float] = config.shares
    if config.method == "slerp":
        (b0, a0), (b1, a1) = [(b.double(), a.double()) for b, a in pairs]
        dot = float(((b0.T @ b1) * (a0 @ a1.T)).sum())
        sizes = [float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt()) for b, a in pairs]
        weights = slerp_weights(dot, sizes[0], sizes[1], config.shares[1])
    lefts = [weight * b for weight, (b, _) in zip(weights, pairs, strict=True)]
    return torch.cat(lefts, dim=1), torch.cat([a for _, a in pairs])


def _merge_full(
    config: MergeConfig, adapters: Sequence[Adapter], key: str, generator: torch.Generator
) -> Float[Tensor, "out in"]:
    updates = [b @ a for b, a in (adapter.factors(key) for adapter in adapters)]
    return merge_updates(
        config.method, updates, config.shares, density=config.density, generator=generator
    )


def _best_factors(
    update: Float[Tensor, "out in"], rank: int
) -> tuple[Float[Tensor, "out rank"], Float[Tensor, "rank in"]]:
    """Return the closest product of that rank (Eckart and Young), B with orthonormal columns.

    The left singular vectors are the eigenvectors of X X^T; a rank beyond full is filled with 0.
    """
    x = update.double()
    vectors = torch.linalg.eigh(x @ x.T).eigenvectors.flip(1)[:, :rank]
    b, a = vectors, vectors.T @ x
    missing = rank - b.shape[1]
    if missing > 0:
        b = torch.nn.functional.pad(b, (0, missing))
        a = torch.nn.functional.pad(a, (0, 0, 0, missing))
    return b.float(), a.float()


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{folder / _WEIGHTS}: cannot be read ({str(error).splitlines()[0]}); train or copy "
            "the adapter again"
        ) from error
    others = [key for key in sorted(found) if ".lora_A." not in key and ".lora_B." not in key]
    if others:
        raise ConfigError(
            f"{folder}: holds {others[0]} ({len(others)} tensors that are no factors of a linear "
            "layer; merging knows plain LoRA of such layers); merge whole models instead"
        )
    for key, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigError(
                f"{folder}: {key} holds NaN or infinity (needs finite numbers); train the adapter "
                "again with a lower learning rate"
            )
    return found


def _check_plain(folder: Path, config: LoraConfig) -> None:
    """Raise for what is more than scaling * B A with one rank."""
    odd = [
        name
        for name in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
        if getattr(config, name, None)
    ]
    if odd:
        raise ConfigError(
            f"{folder}: sets {', '.join(odd)} (merging knows plain LoRA, one rank for all layers); "
            "merge whole models instead"
        )


def _check_same_layers(folder: Path, tensors: Mapping[str, Tensor], first: Adapter) -> None:
    differing = sorted(tensors.keys() ^ first.tensors.keys())
    if differing:
        raise ConfigError(
            f"{folder}: adapts other layers than {first.folder} ({len(differing)} tensors differ, "
            f"the first is {differing[0]}); merge adapters of one base and one choice of layers"
        )
    for key, tensor in tensors.items():
        side = 1 if "lora_A" in key else 0
        if tensor.shape[side] != first.tensors[key].shape[side]:
            raise ConfigError(
                f"{folder}: {key} is {tuple(tensor.shape)} and in {first.folder} it is "
                f"{tuple(first.tensors[key].shape)}; merge adapters of one base"
            )
