"""The policy of a run, named before it is loaded, and loaded once, when something is due."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from trillium.assets import ASSETS, find_model
from trillium.files import hash_json, hash_path
from trillium.policies.config import PolicyConfig
from trillium.policies.tokenizer import explain_loading, load_tokenizer

if TYPE_CHECKING:
    import trillium.policies.load


class RunPolicy:
    """Name, tokenizer, length and weights of what a run file calls `policy`, each when asked."""

    def __init__(self, config: PolicyConfig, *, seed: int) -> None:
        """Remember what to load; `seed` draws a new adapter.

        Raises ConfigError for a folder that holds no adapter of the base.
        """
        self.config = config
        self.seed = seed
        if config.adapter is not None:
            from trillium.policies.adapters import read_adapter_config

            read_adapter_config(config.adapter, base_name=config.base)

    @cached_property
    def identity(self) -> str:
        """Name the policy by content: base, precision and adapter."""
        config = self.config
        asset, folder = ASSETS.get(config.base), Path(config.base).expanduser()
        if asset is not None:
            base = asset.wheel.sha256
        else:
            base = hash_path(folder) if folder.is_dir() else config.base
        adapter = config.adapter and hash_path(config.adapter)
        return hash_json([base, config.dtype, config.quantisation, adapter])

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer; this loads no weights."""
        if "loaded" in self.__dict__:
            return self.loaded.tokenizer
        return load_tokenizer(find_model(self.config.base))

    @cached_property
    def context_length(self) -> int | None:
        """Return how many tokens the model can attend to; None when it does not say."""
        from transformers import AutoConfig

        source = find_model(self.config.base)
        with explain_loading(source, "model"):
            config = AutoConfig.from_pretrained(source)
        length = getattr(config, "max_position_embeddings", None)
        return length if isinstance(length, int) else None

    @cached_property
    def loaded(self) -> "trillium.policies.load.Policy":
        """Return the policy with the adapter that training changes."""
        from trillium.policies.load import load_policy

        return load_policy(self.config, seed=self.seed)
