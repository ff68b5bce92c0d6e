"""Adapters on a policy: create, load, save, switch, copy, and name by content.

One base model carries several adapters under names: "default" is the policy that trains, a
reference or a snapshot is another. Folders are PEFT's, so whatever reads PEFT adapters reads ours.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, LoraModel, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trillium.errors import ConfigError
from trillium.files import explain_failed_write
from trillium.policies.config import LoraSettings
from trillium.policies.lora import use_fast_layers

POLICY_ADAPTER = "default"
_WEIGHTS = "adapter_model.safetensors"
# Mamba computes with the weights of these and never calls them: an adapter there would not learn.
_NEVER_CALLED = {"conv1d", "dt_proj", "out_proj"}


def add_adapter(model: nn.Module, lora: LoraSettings, *, base_name: str, seed: int) -> PeftModel:
    """Put a new adapter, float32 and without effect yet, on every chosen layer of `model`.

    Raises ConfigError when the model has no layers of the chosen names.
    """
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    use_fast_layers(config)
    # PEFT wraps layers until it meets one that it refuses, so the names are read before.
    remedy = _suggest_targets(model)
    with torch.random.fork_rng(devices=[]), _without_noise():
        torch.manual_seed(seed)
        try:
            policy = get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(
                f"policy.lora.targets: {lora.targets} does not fit {base_name} "
                f"({str(error).splitlines()[0][:160]}); {remedy}"
            ) from error
    config.base_model_name_or_path = base_name
    _widen(policy)
    return policy


def _suggest_targets(model: nn.Module) -> str:
    """Name the linear layers of `model` that an adapter can be put on."""
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    fitting = sorted(names - _NEVER_CALLED)
    if not fitting:
        return "it has no linear layers to adapt, choose another model"
    return f"set policy.lora.targets to some of its linear layers: {', '.join(fitting)}"


def load_adapter(model: nn.Module, folder: Path, *, base_name: str) -> PeftModel:
    """Put the adapter saved in `folder` on `model`, ready to train on.

    Raises ConfigError when the folder holds no LoRA adapter, or one of another base.
    """
    config = read_adapter_config(folder, base_name=base_name)
    use_fast_layers(config)
    with _explain_misfit(folder, base_name):
        policy = PeftModel.from_pretrained(model, str(folder), config=config, is_trainable=True)
        _check_layers(policy, folder, POLICY_ADAPTER)
    config.base_model_name_or_path = base_name
    _widen(policy)
    return policy


def load_second_adapter(policy: PeftModel, folder: Path, name: str) -> None:
    """Put the adapter saved in `folder` beside the others, frozen and not active, as `name`.

    One of that name makes room: PEFT would keep its scaling.
    """
    base_name = str(policy.peft_config[POLICY_ADAPTER].base_model_name_or_path)
    read_adapter_config(folder, base_name=base_name)
    if name in policy.peft_config:
        policy.delete_adapter(name)
    with _explain_misfit(folder, base_name):
        policy.load_adapter(str(folder), adapter_name=name, is_trainable=False)
        _check_layers(policy, folder, name)


def save_adapter(policy: PeftModel, folder: Path, *, name: str = POLICY_ADAPTER) -> None:
    """Write one adapter to `folder` in PEFT's format: adapter_config.json and safetensors."""
    with explain_failed_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        policy.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False)
        nested = folder / name
        if name != POLICY_ADAPTER and nested.is_dir():
            for path in nested.iterdir():
                path.replace(folder / path.name)
            nested.rmdir()
        _order_config(folder / "adapter_config.json")


def _order_config(path: Path) -> None:
    """Sort what PEFT writes in the order of this process's hashes: same weights, same bytes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in config.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[key] = sorted(value)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_adapter(policy: PeftModel, source: str, target: str) -> None:
    """Make `target` a frozen copy of `source`, creating it when needed."""
    mix_adapter(policy, source, target, decay=0.0)


@torch.no_grad()
def mix_adapter(policy: PeftModel, source: str, target: str, *, decay: float) -> None:
    """Set target = decay * target + (1 - decay) * source, entry by entry; `target` stays frozen."""
    if target not in policy.peft_config:
        with _without_noise(), torch.random.fork_rng(devices=[]):
            policy.add_adapter(target, policy.peft_config[source])
        decay = 0.0
    kept = adapter_parameters(policy, target)
    for key, parameter in adapter_parameters(policy, source).items():
        # The copy follows the device and precision of what it copies.
        kept[key].data = kept[key].data.to(parameter).mul_(decay).add_(parameter, alpha=1 - decay)
        kept[key].requires_grad_(False)


@contextmanager
def using_adapter(policy: nn.Module, name: str | None) -> Iterator[None]:
    """Compute with adapter `name` inside, None for the bare base; then all is as before.

    One may stand inside another. What trains stays what trains: PEFT's own switches would unfreeze
    the adapter they activate, and ask every parameter of the model for it, which on a GPU takes
    longer than the pass. So the two flags that its layers read are set here.
    """
    assert isinstance(policy, PeftModel)
    tuner = policy.base_model
    assert isinstance(tuner, LoraModel)
    kinds = BaseTunerLayer | AuxiliaryTrainingWrapper
    layers = [module for module in tuner.modules() if isinstance(module, kinds)]
    before = [(layer._disable_adapters, layer._active_adapter) for layer in layers]
    active = tuner.active_adapter
    try:
        for layer in layers:
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]
        tuner.active_adapter = name or active
        yield
    finally:
        for layer, (is_bare, names) in zip(layers, before, strict=True):
            layer._disable_adapters, layer._active_adapter = is_bare, names
        tuner.active_adapter = active


def adapter_parameters(policy: nn.Module, name: str = POLICY_ADAPTER) -> dict[str, nn.Parameter]:
    """Return the parameters of one adapter, under names that do not contain the adapter's."""
    marker = f".{name}"
    return {
        key.replace(marker, "", 1) if marker + "." in key else key.removesuffix(marker): parameter
        for key, parameter in policy.named_parameters()
        if "lora_" in key and (marker + "." in key or key.endswith(marker))
    }


def adapter_digest(policy: nn.Module, name: str = POLICY_ADAPTER) -> str:
    """Return the sha256 of what one adapter computes with: its tensors and its scaling factors."""
    digest = hashlib.sha256()
    for key, parameter in sorted(adapter_parameters(policy, name).items()):
        digest.update(f"{key} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        digest.update(tensor_bytes(parameter))
    for key, module in policy.named_modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict) and name in scaling:
            digest.update(f"{key} {scaling[name]!r}\n".encode())
    return digest.hexdigest()


def has_effect(policy: nn.Module, name: str = POLICY_ADAPTER) -> bool:
    """Say whether the adapter changes the base at all; a new one, with B = 0, does not."""
    parameters = adapter_parameters(policy, name).items()
    return any(bool(value.detach().any()) for key, value in parameters if "lora_B" in key)


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor of any dtype."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def read_adapter_config(folder: Path, *, base_name: str) -> LoraConfig:
    """Return the configuration of the adapter in `folder`.

    Raises ConfigError when there is none, or when it names another base. Two names must be equal;
    where one of them is a path, only the shapes can tell.
    """
    path = folder / "adapter_config.json"
    if not path.is_file() or not (folder / _WEIGHTS).is_file():
        raise ConfigError(
            f"{folder}: holds no adapter (needs adapter_config.json and {_WEIGHTS}); "
            "give the folder that training wrote"
        )
    try:
        fields = json.loads(path.read_text())
        kind = fields["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is no PEFT configuration ({error}); train again") from error
    if kind != "LORA":
        raise ConfigError(f"{path}: is a {kind} adapter (only LORA is known here); give a LoRA one")
    theirs = str(fields.get("base_model_name_or_path") or base_name)
    is_name = not any(
        Path(name).is_dir() or Path(name).is_absolute() for name in (theirs, base_name)
    )
    if is_name and theirs != base_name:
        raise ConfigError(
            f"{folder}: was trained on {theirs} and policy.base is {base_name}; "
            f"set policy.base={theirs}, or give an adapter of {base_name}"
        )
    config = LoraConfig.from_pretrained(str(folder))
    assert isinstance(config, LoraConfig)
    return config


@contextmanager
def _explain_misfit(folder: Path, base_name: str) -> Iterator[None]:
    """Turn shapes or layers that do not fit into one sentence."""
    try:
        with _without_noise():
            yield
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        raise ConfigError(
            f"{folder}: does not fit the base {base_name} ({str(error).splitlines()[0][:120]}); "
            "give the base that the adapter was trained on"
        ) from error


def _check_layers(policy: PeftModel, folder: Path, name: str) -> None:
    """Raise ValueError when the file and the model disagree on the adapted layers.

    PEFT would leave the layers that are not there out, and start the missing ones anew.
    """
    with safe_open(folder / _WEIGHTS, framework="pt") as weights:
        saved = set(weights.keys())
    differing = sorted(saved ^ set(adapter_parameters(policy, name)))
    if differing:
        raise ValueError(f"{len(differing)} tensors differ, the first is {differing[0]}")


@contextmanager
def _without_noise() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        yield


def _widen(policy: PeftModel) -> None:
    """Keep what trains in float32: steps of 1e-5 vanish in bfloat16."""
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
