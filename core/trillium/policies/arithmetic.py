"""Arithmetic on LoRA adapters: set one from a folder, extrapolate between two, add several up.

An adapter changes a layer by its update, scaling * B A. Updates are what is extrapolated and added,
never A and B by themselves: a sum of factors is not the factors of a sum.
"""

from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file

from trillium.errors import ConfigError
from trillium.policies.adapters import POLICY_ADAPTER, adapter_parameters, copy_adapter


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
