"""Name base weights by content: the part of a reference's identity that adapters do not change."""

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from trillium.files import hash_json
from trillium.policies.adapters import tensor_bytes
from trillium.scoring.cache import LogpCache

_WEIGHT_FILES = ("*.safetensors", "*.bin")
# What a configuration records about where and how it was saved or loaded, not what it computes.
_INCIDENTAL = {
    "_name_or_path",
    "_attn_implementation",
    "attn_implementation",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "quantization_config",
    "use_cache",
}


def fingerprint_base(
    model: nn.Module, *, folder: Path | None = None, cache: LogpCache | None = None
) -> str:
    """Return a sha256 that names base weights, architecture, quantisation and dtype.

    From the hashes of the weight files when `folder` is where the weights came from, else from the
    bytes of the parameters (about a second per 2 GB). Adapters never count.
    """
    base = _base_of(model)
    parameters = {name: p for name, p in base.named_parameters() if "lora_" not in name}
    names = sorted(path for pattern in _WEIGHT_FILES for path in _glob(folder, pattern))
    if names and cache is not None:
        weights: object = [[path.name, cache.file_hash(path)] for path in names]
    else:
        weights = _hash_parameters(parameters)
    kinds = {type(m).__name__ for m in base.modules() if "4bit" in type(m).__name__}
    return hash_json(
        {
            "weights": weights,
            "architecture": _describe(base),
            "quantised": sorted(kind for kind in kinds if not kind.startswith("Fast")),
            "dtypes": sorted({str(p.dtype) for p in parameters.values()}),
        }
    )


def _base_of(model: nn.Module) -> nn.Module:
    find_base = getattr(model, "get_base_model", None)
    base = find_base() if callable(find_base) else model
    assert isinstance(base, nn.Module)
    return base


def _glob(folder: Path | None, pattern: str) -> list[Path]:
    return [] if folder is None else list(folder.glob(pattern))


def _hash_parameters(parameters: dict[str, nn.Parameter]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parameters, key=_plain_name):
        parameter = parameters[name]
        digest.update(f"{_plain_name(name)} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        digest.update(tensor_bytes(parameter))
        scales = getattr(getattr(parameter, "quant_state", None), "absmax", None)
        if isinstance(scales, torch.Tensor):
            digest.update(tensor_bytes(scales))
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    """Return the parameter's name as it is without adapters around its layer."""
    return name.replace(".base_layer.", ".")


def _describe(base: nn.Module) -> object:
    config = getattr(base, "config", None)
    to_dict = getattr(config, "to_dict", None)
    fields = to_dict() if callable(to_dict) else {}
    kept = {key: value for key, value in fields.items() if key not in _INCIDENTAL}
    return json.loads(json.dumps(kept, sort_keys=True, default=str))
