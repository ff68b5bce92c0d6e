"""The portable subset: what every server of adapters takes, and why others refuse the rest.

Sources: vLLM's `PEFTHelper.validate_legal` and its list of ranks, llama.cpp's convert_lora_to_gguf.
What is found here makes an adapter unusable somewhere although it loads in PEFT.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from safetensors import safe_open

from trillium.deployment.adapter_files import WEIGHTS, AdapterFiles
from trillium.errors import ConfigError

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""

_HEADS = {"lm_head", "embed_tokens", "embed_out", "wte", "embed_in", "output"}
_REWRITES_BASE = ("pissa", "olora", "corda", "eva", "loftq", "lora_ga")
# Fields of PEFT's configuration that must be unset, and what they mean.
_FORBIDDEN = {
    "use_dora": "weights are decomposed (DoRA)",
    "lora_bias": "the update has biases of its own",
    "modules_to_save": "whole layers are saved beside the update",
    "rank_pattern": "layers differ in rank",
    "alpha_pattern": "layers differ in alpha",
    "layer_replication": "layers of the base are repeated",
    "trainable_token_indices": "rows of the embedding are trained",
    "target_parameters": "parameters outside linear layers are adapted",
    "alora_invocation_tokens": "the update begins at a token (aLoRA)",
    "use_qalora": "inputs are pooled (QALoRA)",
}


@dataclass(frozen=True)
class Finding:
    """Hold one result of a check; a problem keeps the adapter from being served somewhere."""

    kind: Literal["fine", "warning", "problem"]
    sentence: str


def serving_rank(rank: int) -> int:
    """Return the smallest --max-lora-rank of vLLM that takes `rank`.

    Raises ConfigError when there is none.
    """
    for limit in MAX_LORA_RANKS:
        if rank <= limit:
            return limit
    raise ConfigError(
        f"rank {rank}: is above what servers take (vLLM: {MAX_LORA_RANKS[-1]}); "
        "train with a smaller policy.lora.r, or merge the adapter: trillium deploy merge"
    )


def check_portable(adapter: AdapterFiles) -> list[Finding]:
    """Judge an adapter by its configuration and shapes; without problems the rank comes first."""
    found = [*_check_config(adapter.config), *_check_tensors(adapter)]
    if any(finding.kind == "problem" for finding in found):
        return found
    limit = serving_rank(adapter.rank)
    sentence = f"rank {adapter.rank} on {len(adapter.layers())} layers (--max-lora-rank {limit})"
    return [Finding("fine", sentence), *found]


def check_finite(adapter: AdapterFiles) -> list[Finding]:
    """Read the weights, and return what is not a number in them or has no effect."""
    import torch

    effect = False
    with safe_open(adapter.folder / WEIGHTS, framework="pt") as weights:
        for name in adapter.shapes:
            tensor = weights.get_tensor(name)
            if not bool(torch.isfinite(tensor).all()):
                remedy = "training diverged; lower the learning rate"
                return [Finding("problem", f"{name} holds values that are no numbers; {remedy}")]
            effect = effect or ("lora_B" in name and bool(tensor.any()))
    if effect:
        return [Finding("fine", f"{len(adapter.shapes)} tensors, all finite")]
    return [Finding("warning", "every B is zero: the adapter changes nothing; was it trained?")]


def _check_config(config: Mapping[str, object]) -> Iterator[Finding]:
    if config.get("bias") not in (None, "none"):
        yield _refused("bias", config["bias"], "biases of the base are trained")
    for field, meaning in _FORBIDDEN.items():
        if config.get(field):
            yield _refused(field, config[field], meaning)
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_REWRITES_BASE):
        yield _refused("init_lora_weights", start, "the base was changed before training")
    if config.get("use_rslora"):
        yield Finding("warning", "use_rslora: scaled by alpha / sqrt(r); vLLM and our GGUF know it")


def _check_tensors(adapter: AdapterFiles) -> Iterator[Finding]:
    layers = adapter.layers()
    if 2 * len(layers) != len(adapter.shapes) or any(len(parts) != 2 for parts in layers.values()):
        known = {f"base_model.model.{layer}.lora_{p}.weight" for layer in layers for p in "AB"}
        extra = sorted(set(adapter.shapes) ^ known)
        first = extra[0] if extra else "none at all"
        yield Finding(
            "problem", f"{WEIGHTS}: not a pair of A and B for each layer, see {first}; train again"
        )
        return
    for layer, parts in layers.items():
        if layer.rpartition(".")[2] in _HEADS:
            yield Finding(
                "problem", f"{layer} is adapted; servers share head and embedding: leave it out"
            )
        if parts["A"][0] != parts["B"][1]:
            yield Finding("problem", f"{layer}: A {parts['A']} and B {parts['B']} do not meet")
    if adapter.rank > MAX_LORA_RANKS[-1]:
        yield Finding("problem", f"rank {adapter.rank} (vLLM takes {MAX_LORA_RANKS[-1]}); merge it")


def _refused(field: str, value: object, meaning: str) -> Finding:
    shown = str(value)[:60]
    return Finding("problem", f"{field} = {shown}: {meaning}, which servers refuse; merge it")
