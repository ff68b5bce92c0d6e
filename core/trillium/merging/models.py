"""Merging whole models, tensor by tensor: no more than one tensor of each input is in memory.

The result has the files, shards and precision of the first input. TIES and DARE merge what each
input differs by from a base, and add it to the base.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trillium.errors import ConfigError
from trillium.files import explain_failed_write, remove
from trillium.merging.config import MergeConfig
from trillium.merging.methods import linear, merge_updates, slerp
from trillium.progress import Progress

# Settings that may differ between models of one shape.
_FREE = frozenset({"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"})


@dataclass(frozen=True)
class ModelFolder:
    """Hold where each tensor of a saved model is."""

    folder: Path
    shards: Mapping[str, Path]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one tensor, from the header of its file."""
        with safe_open(self.shards[name], framework="pt") as weights:
            return tuple(weights.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """Return one tensor."""
        with safe_open(self.shards[name], framework="pt") as weights:
            found: Tensor = weights.get_tensor(name)
        return found


def open_model(folder: Path) -> ModelFolder:
    """Find the tensors of a model folder; raises ConfigError when there are none to read."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder}: holds no model (needs config.json and safetensors); give a folder that "
            "transformers saved"
        )
    shards: dict[str, Path] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as weights:
                shards |= dict.fromkeys(weights.keys(), path)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); fetch it again") from error
    return ModelFolder(folder, shards)


def open_models(folders: Sequence[Path]) -> list[ModelFolder]:
    """Open models of one architecture and shape; raises ConfigError naming the first difference."""
    models = [open_model(folder) for folder in folders]
    first = _settings(models[0].folder)
    for model in models[1:]:
        own = _settings(model.folder)
        differing = sorted(k for k in first.keys() | own.keys() if first.get(k) != own.get(k))
        if differing:
            name = differing[0]
            raise ConfigError(
                f"{model.folder}: {name} is {own.get(name)!r} and {models[0].folder} has "
                f"{first.get(name)!r}; merge models of one architecture and size"
            )
        names = sorted(model.shards.keys() ^ models[0].shards.keys())
        if names:
            raise ConfigError(
                f"{model.folder}: has other tensors than {models[0].folder} ({len(names)} differ, "
                f"the first is {names[0]}); merge models of one architecture"
            )
    return models


def merge_models(
    config: MergeConfig, models: Sequence[ModelFolder], base: ModelFolder | None, output: Path
) -> None:
    """Write the merged model to `output`, in one step at the end.

    Raises ConfigError for TIES or DARE without the base of the models, and when `output` exists.
    """
    if config.method not in ("linear", "slerp"):
        if base is None:
            raise ConfigError(
                f"merge: {config.method} merges what models differ by from a base, and none is "
                "given; set --base to the model that both were trained from"
            )
        _check_base(base, models[0])
    if output.exists():
        raise ConfigError(f"{output}: exists; choose another folder, or remove it")
    work = output.with_name(f".{output.name}.part")
    generator = torch.Generator().manual_seed(config.seed)
    first = models[0]
    with explain_failed_write(output), ExitStack() as stack:
        remove(work)
        work.mkdir(parents=True)
        stack.callback(remove, work)
        _copy_rest(first.folder, work)
        with Progress("merge", n_total=len(first.shards), unit="tensors") as progress:
            for shard in sorted(set(first.shards.values())):
                merged: dict[str, Tensor] = {}
                for name in sorted(n for n, path in first.shards.items() if path == shard):
                    merged[name] = _merge(config, models, base, name, generator)
                    progress.advance()
                save_file(merged, work / shard.name, metadata={"format": "pt"})
        work.replace(output)


def _check_base(base: ModelFolder, model: ModelFolder) -> None:
    """Raise ConfigError unless the base has every tensor of the model, in its shape."""
    for name in sorted(model.shards):
        own, theirs = model.shape(name), base.shape(name) if name in base.shards else "none"
        if own != theirs:
            raise ConfigError(
                f"{base.folder}: is not the base of {model.folder} ({name} is {theirs} there and "
                f"{own} in the model); set --base to the model that both were trained from"
            )


def _merge(
    config: MergeConfig,
    models: Sequence[ModelFolder],
    base: ModelFolder | None,
    name: str,
    generator: torch.Generator,
) -> Tensor:
    tensors = [model.read(name) for model in models]
    dtype = tensors[0].dtype
    if any(tensor.shape != tensors[0].shape for tensor in tensors):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise ConfigError(f"merge: {name} has shapes {shapes}; merge models of one size")
    if not dtype.is_floating_point:
        return tensors[0]
    if config.method == "linear":
        return linear(tensors, config.shares).to(dtype).contiguous()
    if config.method == "slerp":
        return slerp(tensors[0], tensors[1], config.shares[1]).to(dtype).contiguous()
    assert base is not None
    start = base.read(name).float()
    updates = [tensor.float() - start for tensor in tensors]
    update = merge_updates(
        config.method, updates, config.shares, density=config.density, generator=generator
    )
    return (start + update).to(dtype).contiguous()


def _copy_rest(source: Path, target: Path) -> None:
    """Copy everything but weights: configuration, tokenizer, template, index of shards."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)


def _settings(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{folder}/config.json: is no JSON ({error}); fetch it again") from error
    return {name: value for name, value in found.items() if name not in _FREE}
