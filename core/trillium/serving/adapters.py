"""Adapters by name on one base: load, unload, and a forward pass whose rows may differ in adapter.

Names are what callers say; inside the model each loaded adapter has a key of its own, so that a
name may be unloaded and loaded anew while rows of the old one still finish. The model is touched by
the engine's thread alone; names may be read from any thread.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraModel, PeftModel
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from trillium.deployment.adapter_files import read_adapter
from trillium.deployment.portable import check_finite, check_portable
from trillium.errors import BackendError, ConfigError
from trillium.policies.adapters import POLICY_ADAPTER, add_adapter, load_second_adapter
from trillium.policies.config import LoraSettings

_BASE = "__base__"  # PEFT's own name for rows without an adapter


@dataclass(frozen=True)
class Served:
    """Hold what callers may ask for by name; `key` is None for the bare base."""

    name: str
    key: str | None
    tokenizer: PreTrainedTokenizerBase
    folder: Path | None = None
    created: int = field(default_factory=lambda: int(time.time()))


class Adapters:
    """The base model with the adapters that are loaded on it."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, base: str, name: str
    ) -> None:
        """Serve the bare base as `name`; `base` is what adapters call it."""
        self._model: PreTrainedModel | PeftModel = model.eval()
        self.base = base
        self._lock = threading.Lock()
        self._n_loaded = 0
        self._active: str | None = None
        self._served = {name: Served(name, None, tokenizer)}
        self.base_name = name
        self.config: PretrainedConfig = model.config
        self.device = model.device

    def served(self) -> list[Served]:
        """Return all that may be asked for, the base first."""
        with self._lock:
            return list(self._served.values())

    def find(self, name: str) -> Served | None:
        """Return what goes by `name`."""
        with self._lock:
            return self._served.get(name)

    def publish(self, served: Served) -> bool:
        """Let callers ask for `served`; False when its name is taken."""
        with self._lock:
            return self._served.setdefault(served.name, served) is served

    def withdraw(self, name: str) -> Served | None:
        """Let nobody new ask for `name`; rows under way keep it until `discard`."""
        with self._lock:
            return None if name == self.base_name else self._served.pop(name, None)

    def load(self, folder: Path) -> str:
        """Put the adapter of `folder` on the model and return its key; engine's thread only.

        Raises ConfigError when it is no portable LoRA adapter of this base.
        """
        problems = inspect(folder)
        if problems:
            raise ConfigError(
                f"{folder}: cannot be served ({problems}); ask `trillium deploy check {folder}`"
            )
        if not isinstance(self._model, PeftModel):
            self._model = _wrap(self._model, folder, self.base)
        self._n_loaded += 1
        key = f"served_{self._n_loaded}"
        try:
            load_second_adapter(self._model, folder, key)
        except ConfigError:
            self.discard(key)
            raise
        finally:
            self._active = None
            self._activate(None)
        return key

    def discard(self, key: str) -> None:
        """Free the weights of an adapter that no row uses any more; engine's thread only."""
        assert isinstance(self._model, PeftModel)
        if key in self._model.peft_config:
            self._tuner.set_adapter(POLICY_ADAPTER, inference_mode=True)
            self._active = None
            self._model.delete_adapter(key)

    def forward(
        self,
        keys: Sequence[str | None],
        *,
        input_ids: Tensor,
        past_key_values: object,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Return the logits [row, vocab] of each row's next token under its own adapter.

        Raises BackendError for an adapter that was discarded: PEFT would compute without it.
        """
        held = self._model.peft_config if isinstance(self._model, PeftModel) else {}
        gone = {key for key in keys if key is not None} - held.keys()
        if gone:
            raise BackendError(f"serve: adapter {min(gone)} is not on the model; load it again")
        mixed = {}
        if isinstance(self._model, PeftModel):
            if len(set(keys)) == 1:
                self._activate(keys[0])
            else:
                self._tuner.enable_adapter_layers()
                self._active = _BASE
                mixed = {"adapter_names": [key or _BASE for key in keys]}
        logits: Tensor = self._model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=True,
            logits_to_keep=1,
            **mixed,
        ).logits[:, -1]
        return logits

    @property
    def _tuner(self) -> LoraModel:
        assert isinstance(self._model, PeftModel)
        tuner = self._model.base_model
        assert isinstance(tuner, LoraModel)
        return tuner

    def _activate(self, key: str | None) -> None:
        """Compute with one adapter alone, which is faster than a forward with a name per row."""
        wanted = key or ""
        if self._active == wanted:
            return
        if key is None:
            self._tuner.disable_adapter_layers()
        else:
            self._tuner.enable_adapter_layers()
            self._tuner.set_adapter(key, inference_mode=True)
        self._active = wanted


def inspect(folder: Path) -> str:
    """Return what keeps the adapter of `folder` from being served, in one line; "" when nothing.

    Raises ConfigError when there is no LoRA adapter. Weights in any format but safetensors count
    as none: pickles are never opened.
    """
    adapter = read_adapter(folder)
    found = [*check_portable(adapter), *check_finite(adapter)]
    return "; ".join(each.sentence for each in found if each.kind == "problem")


def _wrap(model: nn.Module, folder: Path, base: str) -> PeftModel:
    """Make a model take adapters: PEFT wants a first one, which here is never switched on."""
    layers = sorted({layer.rpartition(".")[2] for layer in read_adapter(folder).layers()})
    lora = LoraSettings(r=1, alpha=1, targets=tuple(layers))
    wrapped = add_adapter(model, lora, base_name=base, seed=0)
    wrapped.requires_grad_(False)
    torch.nn.Module.train(wrapped, False)
    return wrapped
