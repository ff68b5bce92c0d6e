"""What an adapter folder says about itself, read without loading a model.

Only the configuration and the headers of the weights are read here; whether they can be served is
the business of `portable`, and whether they fit their base that of `check`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from trillium.errors import ConfigError
from trillium.files import hash_path

WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterFiles:
    """Hold the configuration of an adapter, and the shape of each tensor of its weights."""

    folder: Path
    config: Mapping[str, object]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def base(self) -> str:
        """Return the name of the base it was trained on; empty when it names none."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def revision(self) -> str | None:
        """Return the revision of the base that the adapter asks for."""
        found = self.config.get("revision")
        return str(found) if found else None

    @property
    def rank(self) -> int:
        """Return the largest rank of any layer, from the weights; 0 without any."""
        return max((shape[0] for name, shape in self.shapes.items() if "lora_A" in name), default=0)

    @property
    def scaling(self) -> float:
        """Return the factor of the update: alpha / r, for rsLoRA alpha / sqrt(r)."""
        alpha, rank = _number(self.config, "lora_alpha"), _number(self.config, "r")
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def layers(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Return the shapes of `A` and `B` by the name of the adapted layer in the base."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, shape in self.shapes.items():
            for part in ("A", "B"):
                ending = f".lora_{part}.weight"
                if name.startswith(_PREFIX) and name.endswith(ending):
                    layer = name.removeprefix(_PREFIX).removesuffix(ending)
                    found.setdefault(layer, {})[part] = shape
        return found

    def sha256(self) -> str:
        """Return the hash of the weights file."""
        return hash_path(self.folder / WEIGHTS)


def read_adapter(folder: Path) -> AdapterFiles:
    """Read an adapter folder; raises ConfigError when it holds no readable LoRA adapter."""
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{folder}: holds no adapter (needs {_CONFIG} and {WEIGHTS}); "
            "give the folder that training wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); train again") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise ConfigError(
            f"{path}: peft_type = {kind!r} (servers take LORA only); give a LoRA adapter"
        )
    for field in ("r", "lora_alpha"):
        if _number(config, field) <= 0:
            raise ConfigError(
                f"{path}: {field} = {config.get(field)!r} (a positive number); train again"
            )
    return AdapterFiles(folder, config, read_shapes(folder / WEIGHTS))


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a safetensors file, from its header alone."""
    try:
        with safe_open(path, framework="pt") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); "
            "copy the file again, or train again"
        ) from None


def _number(config: Mapping[str, object], field: str) -> float:
    found = config.get(field)
    return float(found) if isinstance(found, int | float) else 0.0
