"""`load_policy`: from a `PolicyConfig` to a model with a float32 adapter, ready to train.

Everything that can be wrong with a model is found here, and said in one sentence.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trillium.assets import find_model
from trillium.environment import cpu_flags
from trillium.errors import ConfigError
from trillium.policies.adapters import add_adapter, load_adapter
from trillium.policies.config import (
    Attention,
    LoraSettings,
    PolicyConfig,
    Precision,
    Quantisation,
)
from trillium.policies.fused import fuse_layers
from trillium.policies.tokenizer import explain_loading, load_tokenizer, quiet_libraries
from trillium.scoring.flex import register_attention
from trillium.scoring.forward import check_head

_DTYPES: dict[Precision, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Policy:
    """Hold a loaded policy: `model` with its adapter "default" active, and how it was loaded.

    `folder` holds the base's weights where they are on this disk; `base` is the name it goes by.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    base: str
    folder: Path | None
    dtype: torch.dtype
    quantisation: Quantisation


def load_policy(
    config: PolicyConfig, *, device: torch.device | str | None = None, seed: int = 0
) -> Policy:
    """Load base, tokenizer and adapter; `device` is the GPU where there is one, by default.

    `seed` draws a new adapter. Raises ConfigError for a base, tokenizer, quantisation or adapter
    that cannot be used, BackendError for an architecture whose logits would be scored wrongly, and
    for a hub that cannot be reached.
    """
    place = check_policy(config, device=device)
    quiet_libraries()
    source = find_model(config.base)
    dtype = resolve_dtype(config.dtype, place)
    tokenizer = load_tokenizer(source)
    model = load_base(source, dtype, config.quantisation, place, attention=config.attention)
    check_head(model)
    if config.adapter is not None:
        policy = load_adapter(model, config.adapter, base_name=config.base)
    else:
        policy = add_adapter(model, config.lora, base_name=config.base, seed=seed)
    folder = Path(source) if Path(source).is_dir() else None
    return Policy(policy.eval(), tokenizer, config.base, folder, dtype, config.quantisation)


def check_policy(config: PolicyConfig, *, device: torch.device | str | None = None) -> torch.device:
    """Return where a policy will be loaded, the GPU where there is one by default; loads nothing.

    Raises ConfigError for settings that contradict each other, and for what this machine has not.
    """
    if config.adapter is not None and config.lora != LoraSettings():
        raise ConfigError(
            f"policy.lora: is set, and adapter {config.adapter} brings its own rank and layers; "
            "remove policy.lora, or policy.adapter to begin a new one"
        )
    place = torch.device(device) if device else _own_device()
    _check_attention(config.attention, place)
    if config.quantisation == "nf4":
        _check_bitsandbytes()
    return place


def load_base(
    source: str,
    dtype: torch.dtype,
    quantisation: Quantisation,
    device: torch.device,
    *,
    attention: Attention = "auto",
    revision: str | None = None,
) -> PreTrainedModel:
    """Load the frozen base of a folder or hub id, in eval mode and without dropout of its own.

    `revision` is a commit, branch or tag of a hub id, None its main branch.
    Raises ConfigError when it cannot be used, BackendError when the hub cannot be reached.
    """
    is_local = Path(source).is_dir()
    if is_local and not (Path(source) / "config.json").is_file():
        raise ConfigError(
            f"{source}: holds no model (needs config.json and safetensors); give the folder of a "
            "model saved by transformers"
        )
    with explain_loading(source, "model"):
        commit = revision or "main"
        config = AutoConfig.from_pretrained(source, revision=commit, local_files_only=is_local)
        _remove_dropout(config)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            revision=commit,
            dtype=dtype,
            quantization_config=_nf4(dtype) if quantisation == "nf4" else None,
            device_map={"": str(device)},
            attn_implementation=_choose_attention(config, attention, device),
            local_files_only=is_local,
        )
    assert isinstance(model, PreTrainedModel)
    if quantisation == "nf4":
        _keep_storage(model)
    model.requires_grad_(False)
    model.eval()
    fuse_layers(model, norms=device.type == "cuda")
    if device.type == "cuda":
        # cuDNN plans anew for every length, which while sampling takes longer than all else.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return model


def resolve_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype of the base weights; auto is bfloat16 where the device computes in it."""
    if wanted != "auto":
        return _DTYPES[wanted]
    if device.type == "cpu":
        has_bfloat16 = bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})
    else:
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float32


def checkpoint_activations(model: nn.Module) -> None:
    """Recompute activations in the backward pass: about a third more time, far less memory."""
    assert isinstance(model, PeftModel)
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    base.activation_checkpointing_enable({"use_reentrant": False})


def _own_device() -> torch.device:
    """Return the GPU of this process among those that train together, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _keep_storage(model: nn.Module) -> None:
    """Keep 4-bit weights as they were quantised.

    On processors with AVX512-BF16, bitsandbytes 0.50 packs them anew, with coarser scales, at the
    first inference in eval mode; training would then read the packed bytes as the old ones.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _remove_dropout(config: PreTrainedConfig) -> None:
    """Switch the base's own dropout off: the frozen reference has none, and at step 0 they agree.

    The adapter's dropout is `lora.dropout`.
    """
    for name, value in vars(config).items():
        if name.endswith(("drop", "dropout", "dropout_prob")) and isinstance(value, float):
            setattr(config, name, 0.0)


def _choose_attention(config: PreTrainedConfig, wanted: Attention, device: torch.device) -> str:
    """Return FlexAttention on a GPU, else sdpa; eager where the model caps its scores."""
    _check_attention(wanted, device)
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    is_capped = getattr(config, "attn_logit_softcapping", None) is not None
    has_flex = getattr(architecture, "_supports_flex_attn", False) and not is_capped
    if wanted == "flex" and not has_flex:
        raise ConfigError(
            f"policy.attention=flex: a model of type {config.model_type} cannot be given it (needs "
            "plain scores, and a class that takes FlexAttention); set policy.attention=auto"
        )
    if is_capped or not getattr(architecture, "_supports_sdpa", True):
        return "eager"
    if wanted == "sdpa" or device.type == "cpu" or not has_flex:
        return "sdpa"
    return register_attention()


def _check_attention(wanted: Attention, device: torch.device) -> None:
    if wanted == "flex" and device.type == "cpu":
        raise ConfigError(
            "policy.attention=flex needs a GPU and none is visible; set policy.attention=auto"
        )


def _check_bitsandbytes() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "policy.quantisation=nf4 needs bitsandbytes, which is not installed; "
            "install trillium[qlora], or set policy.quantisation=none"
        )


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    _check_bitsandbytes()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
