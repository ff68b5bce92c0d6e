"""`merge`: adapters into an adapter, or models into a model, by what the inputs are."""

from pathlib import Path

from trillium.assets import find_model
from trillium.errors import ConfigError
from trillium.merging.adapters import load_adapters, merge_adapters
from trillium.merging.config import MergeConfig
from trillium.merging.models import ModelFolder, merge_models, open_model, open_models


def are_adapters(config: MergeConfig) -> bool:
    """Say whether the inputs are adapters; raises ConfigError for a mixture or a missing folder."""
    kinds = []
    for path in config.inputs:
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder (needs an adapter or a model)")
        kinds.append((path / "adapter_config.json").is_file())
    if len(set(kinds)) > 1:
        adapter, model = (config.inputs[kinds.index(kind)] for kind in (True, False))
        raise ConfigError(
            f"merge: {adapter} is an adapter and {model} is a model (needs inputs of one kind); "
            "merge the adapter into its base first"
        )
    return kinds[0]


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
