"""Small modules that learn beside the policy: masks over tokens, a value head, a degree head.

They hang on the policy while it trains, under one name, so that optimizer, clipping, devices and
dropout treat them as part of it. They are saved in `heads.safetensors` beside the adapter. All
start from constants: nothing here is random. A run that starts from another run's adapter begins
with fresh heads, unless `align` is given the folder to take them from.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trillium.errors import ConfigError
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.recipe_configs import DegreeConfig, OREOConfig, SparsePOConfig
from trillium.policies.masks import LearnedMask
from trillium.scoring.forward import open_model

HEADS_FILE = "heads.safetensors"
_NAME = "trillium_heads"


class LinearHead(nn.Module):
    """Read numbers off hidden states: zero before the first step, in float32 or better."""

    def __init__(self, width: int, n_outputs: int) -> None:
        """Build a map from `width` numbers to `n_outputs`."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_outputs, width))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    def forward(self, hidden: Float[Tensor, "row width"]) -> Float[Tensor, "row output"]:
        """Return one row of outputs per hidden state."""
        return nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)


def build_heads(objective: ObjectiveConfig, policy: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that an objective trains beside the policy, by the argument they make."""
    config = open_model(policy).config
    width, n_layers = (
        int(getattr(config, name, 0)) for name in ("hidden_size", "num_hidden_layers")
    )

    def mask(settings: SparsePOConfig) -> nn.Module:
        return LearnedMask(n_layers, width, dropout=settings.mask_dropout)

    match objective:
        case SparsePOConfig(masks="common"):
            return {"mask": mask(objective)}
        case SparsePOConfig(masks="independent"):
            return {"mask_u": mask(objective), "mask_d": mask(objective)}
        case OREOConfig():
            return {"value": LinearHead(width, 1)}
        case DegreeConfig():
            return {"degree_logits": LinearHead(width, objective.n_degrees)}
    return {}


@contextmanager
def attached(policy: nn.Module, heads: Mapping[str, nn.Module]) -> Iterator[None]:
    """Make the heads part of `policy` inside; then it is as it was."""
    attach(policy, heads)
    try:
        yield
    finally:
        policy._modules.pop(_NAME, None)


def attach(policy: nn.Module, heads: Mapping[str, nn.Module]) -> None:
    """Make the heads part of `policy`, on its device."""
    if heads:
        device = next(policy.parameters()).device
        policy.add_module(_NAME, nn.ModuleDict(dict(heads)).to(device))


def heads_of(policy: nn.Module) -> nn.ModuleDict:
    """Return the heads attached to `policy`; empty when there are none."""
    found = policy._modules.get(_NAME)
    return found if isinstance(found, nn.ModuleDict) else nn.ModuleDict()


def save_heads(heads: nn.ModuleDict, folder: Path) -> None:
    """Write the heads beside an adapter; nothing when there are none."""
    if len(heads):
        tensors = {key: tensor.contiguous() for key, tensor in heads.state_dict().items()}
        save_file(tensors, folder / HEADS_FILE)


def load_heads(heads: nn.ModuleDict, folder: Path) -> None:
    """Set every entry of the heads to what is saved in `folder`.

    Raises ConfigError when the file is absent or holds other heads.
    """
    if not len(heads):
        return
    path = folder / HEADS_FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder}: holds no {HEADS_FILE} (this objective trains {', '.join(heads)} beside the "
            "policy); give the folder that training with this objective wrote"
        )
    saved, own = load_file(path), heads.state_dict()
    differing = sorted(
        key
        for key in saved.keys() | own.keys()
        if key not in saved or key not in own or saved[key].shape != own[key].shape
    )
    if differing:
        raise ConfigError(
            f"{path}: does not fit the heads {', '.join(heads)} ({len(differing)} tensors differ, "
            f"the first is {differing[0]}); give heads of the same objective and base"
        )
    heads.load_state_dict(saved)


def head_group(objective: ObjectiveConfig, heads: nn.ModuleDict) -> dict[str, object]:
    """Return the optimizer's group of the heads: a weight decay, maybe a rate, of their own."""
    decay = objective.mask_weight_decay if isinstance(objective, SparsePOConfig) else 0.0
    own = objective.value_learning_rate if isinstance(objective, OREOConfig) else None
    rate = {} if own is None else {"lr": own}
    return {"params": list(heads.parameters()), "weight_decay": decay, **rate}
