"""`merge`: adapters into an adapter, or models into a model, by what the inputs are."""

from pathlib import Path

from trillium.assets import find_model
from trillium.errors import ConfigError
from trillium.merging.adapters import load_adapters, merge_adapters
from trillium.merging.config import MergeConfig, are_adapters
from trillium.merging.models import ModelFolder, merge_models, open_model, open_models


def open_base(config: MergeConfig) -> ModelFolder | None:
    """Return the base that whole models are compared with."""
    return None if config.base is None else open_model(Path(find_model(config.base)))


def merge(config: MergeConfig, output: Path) -> float:
    """Merge into `output`; return the share of the update that it holds (1 but for TIES and DARE).

    Raises ConfigError for inputs that do not belong together, and when `output` exists.
    """
    if not are_adapters(config):
        merge_models(config, open_models(config.inputs), open_base(config), output)
        return 1.0
    if output.exists():
        raise ConfigError(f"{output}: exists; choose another folder, or remove it")
    merged = merge_adapters(config, load_adapters(config.inputs))
    merged.save(output)
    return merged.kept
