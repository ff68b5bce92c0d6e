"""The policy of a run: one base model, and the adapters that its stages saved."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.errors import ConfigError
from trillium.generation import Generator
from trillium.policies.config import PolicyConfig
from trillium.policies.run_policy import RunPolicy

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trillium.policies.load import Policy

# A GPU decodes a small model in the time that its kernels take to be launched, and those of an
# adapter double their number; of a large model a copy costs more than it saves.
_MOST_MERGED_BYTES = 2 << 30


@dataclass(frozen=True)
class Weights:
    """Name the weights of a policy by content: a base, and an adapter where there is a folder."""

    hash: str
    folder: Path | None = None


class Models:
    """Open tokenizer and policy once, and put the adapter on it that a stage asks for."""

    def __init__(self, config: PolicyConfig, *, seed: int, max_rows: int) -> None:
        """Remember what to load; `max_rows` trajectories are sampled together."""
        self._policy = RunPolicy(config, seed=seed)
        self._max_rows = max_rows

    @cached_property
    def start(self) -> Weights:
        """Return the weights that the run starts from, without loading them."""
        return Weights(self._policy.identity, self._policy.config.adapter)

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the tokenizer; this loads no weights."""
        return self._policy.tokenizer

    @property
    def policy(self) -> "Policy":
        """Return the policy with the adapter that training changes."""
        return self._policy.loaded

    def check_length(self, max_tokens: int) -> None:
        """Raise ConfigError when trajectories may be longer than the model reads."""
        limit = self._policy.context_length
        if limit is not None and max_tokens > limit:
            raise ConfigError(
                f"agent.max_tokens={max_tokens}: is more than {self._policy.config.base} reads "
                f"({limit} tokens); lower it"
            )

    def place(self, weights: Weights) -> "PeftModel":
        """Return the model with the policy's adapter set to `weights`."""
        if weights.folder is not None:
            from trillium.policies.arithmetic import restore_adapter

            restore_adapter(self.policy.model, weights.folder)
        return self.policy.model

    def generator(self, weights: Weights) -> Generator:
        """Return a generator that samples from `weights`, until other weights are placed.

        On a GPU a small policy without quantisation samples from a copy with its adapter merged,
        which differs from it by the rounding of the weights.
        """
        from trillium.generation.in_process import TransformersGenerator
        from trillium.generation.with_adapter import AdapterGenerator
        from trillium.policies.adapters import POLICY_ADAPTER

        model = self.place(weights)
        tokenizer, max_rows = self.policy.tokenizer, self._max_rows
        if weights.folder is not None and self._is_merged(model):
            merged = merge_copy(model)
            return TransformersGenerator(merged, tokenizer, max_rows=max_rows)
        inner = TransformersGenerator(model, tokenizer, max_rows=max_rows)
        adapter = None if weights.folder is None else POLICY_ADAPTER
        return AdapterGenerator(inner, model, adapter)

    def _is_merged(self, model: "PeftModel") -> bool:
        n_bytes = sum(one.numel() * one.element_size() for one in model.parameters())
        on_gpu = next(model.parameters()).device.type == "cuda"
        return on_gpu and self.policy.quantisation == "none" and n_bytes <= _MOST_MERGED_BYTES


def merge_copy(model: "PeftModel") -> "PreTrainedModel":
    """Return a copy of the base with the policy's adapter merged; `model` stays as it is."""
    from transformers import PreTrainedModel
    from trillium.policies.adapters import POLICY_ADAPTER

    merged = copy.deepcopy(model).merge_and_unload(adapter_names=[POLICY_ADAPTER])
    assert isinstance(merged, PreTrainedModel)
    merged.eval()
    return merged
