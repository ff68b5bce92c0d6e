"""From a model and a `TreeBatch` to the hidden states that predict scored tokens.

Finds the decoder and the head inside a causal language model, bare or wrapped by PEFT, and builds
the attention masks of the layouts. Which layouts a model can take is decided in `layout.py`.
"""

import inspect
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers.utils.generic import ModelOutput

from trillium.errors import BackendError, ConfigError
from trillium.scoring.flex import ATTENTION, block_mask, fill_blocks
from trillium.scoring.head import Head
from trillium.tree_batch import TreeBatch

# These multiply their logits by `logits_scaling`; Granite and its relatives divide.
_MULTIPLY_BY_LOGITS_SCALING = ("hyperclovax",)


@dataclass(frozen=True)
class LanguageModel:
    """Hold the parts of a causal language model that scoring calls, and its text configuration."""

    decoder: nn.Module
    head: Head
    config: object

    @property
    def attention(self) -> str:
        """Name the attention implementation: sdpa, eager, flash_attention_2, ..."""
        return str(getattr(self.config, "_attn_implementation", None) or "eager")

    @property
    def layer_types(self) -> frozenset[str]:
        """Name the kinds of layers the configuration lists; empty when it lists none."""
        return frozenset(getattr(self.config, "layer_types", None) or ())

    @property
    def window(self) -> int | None:
        """Return how many positions a windowed layer looks back, itself included; None: all."""
        size = getattr(self.config, "sliding_window", None)
        is_used = "sliding_attention" in self.layer_types or not self.layer_types
        is_used = is_used and getattr(self.config, "use_sliding_window", True) is not False
        return size if isinstance(size, int) and is_used else None


def open_model(model: nn.Module) -> LanguageModel:
    """Find decoder, head and configuration; PEFT's adapters stay in place and active.

    Raises ConfigError for a model without a head, and for PEFT methods that change the input
    instead of layers (prompt and prefix tuning), which a decoder called directly would not see.
    """
    causal = _unwrap(model)
    find_head = getattr(causal, "get_output_embeddings", None)
    find_decoder = getattr(causal, "get_decoder", None)
    linear = find_head() if callable(find_head) else None
    decoder = find_decoder() if callable(find_decoder) else None
    if not isinstance(decoder, nn.Module) or decoder is causal:
        decoder = getattr(causal, str(getattr(causal, "base_model_prefix", "")), None)
    if not isinstance(linear, nn.Module) or not isinstance(decoder, nn.Module):
        raise ConfigError(
            f"model {type(causal).__name__}: has no language-model head over a decoder (needs a "
            "causal language model); load it with AutoModelForCausalLM"
        )
    config = getattr(causal, "config", None)
    find_text_config = getattr(config, "get_text_config", None)
    text = find_text_config() if callable(find_text_config) else config
    return LanguageModel(decoder, Head(linear, _find_scale(text), _find_softcap(text)), text)


def hidden_at_slots(model: LanguageModel, batch: TreeBatch) -> Float[Tensor, "slot hidden"]:
    """Run the decoder and return, for each slot, the hidden state that predicts its token."""
    return _at_slots(_decode(model, batch)[0], batch)


def layers_at_slots(model: LanguageModel, batch: TreeBatch) -> Float[Tensor, "slot layer hidden"]:
    """Run the decoder and return, for each slot, what every layer computed; the last is final."""
    states = _decode(model, batch, output_hidden_states=True)["hidden_states"]
    # The first is the embedding.
    return torch.stack([_at_slots(state, batch) for state in states[1:]], dim=1)


def _at_slots(states: Tensor, batch: TreeBatch) -> Float[Tensor, "slot hidden"]:
    """Gather the states that predict each slot; rows may have been filled up to whole blocks."""
    n_columns = batch.input_ids.shape[1]
    flat = (
        states[:, :n_columns].flatten(0, 1) if states.shape[1] > n_columns else states.flatten(0, 1)
    )
    return flat.index_select(0, batch.predictor)


def _decode(model: LanguageModel, batch: TreeBatch, **options: bool) -> ModelOutput:
    if batch.layout == "padded":
        # Without positions the model numbers the columns itself, and keeps its causal fast path.
        output = model.decoder(input_ids=batch.input_ids, use_cache=False, **options)
    else:
        batch = fill_blocks(batch) if model.attention == ATTENTION else batch
        output = model.decoder(
            input_ids=batch.input_ids,
            attention_mask=_layer_masks(model, batch),
            position_ids=batch.position_ids,
            use_cache=False,
            **options,
        )
    found: ModelOutput = output
    return found


def check_head(model: nn.Module, *, tolerance: float = 2e-2) -> None:
    """Compare our head with the model's own logits on eight tokens.

    Raises BackendError when they differ, so that an architecture with an unknown treatment of its
    logits cannot be scored wrongly in silence; ConfigError for logits that are not finite.
    `tolerance` is relative and covers bfloat16.
    """
    parts = open_model(model)
    device = next(model.parameters()).device
    ids = torch.arange(8, device=device)[None]
    with torch.no_grad():
        theirs: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
        if not torch.isfinite(theirs).all():
            raise ConfigError(_explain_not_finite(model))
        ours = parts.head.logits(parts.decoder(input_ids=ids, use_cache=False)[0][0]).float()
    gap = (ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)
    if not gap <= tolerance:
        raise BackendError(
            f"model {type(_unwrap(model)).__name__}: its logits differ from head(hidden) by "
            f"{gap:.2g} of their size (expected at most {tolerance:g}); this architecture changes "
            "its logits in a way that is not known here, choose another model"
        )


def takes_positions(decoder: nn.Module) -> bool:
    """Say whether the decoder can be told the position of every token."""
    return "position_ids" in inspect.signature(decoder.forward).parameters


def _explain_not_finite(model: nn.Module) -> str:
    name = type(_unwrap(model)).__name__
    broken = [
        key
        for key, weights in model.named_parameters()
        if weights.is_floating_point() and not torch.isfinite(weights).all()
    ]
    if broken:
        return (
            f"model {name}: weights hold NaN or infinity, in {len(broken)} tensors, the first is "
            f"{broken[0]} (needs finite numbers); fetch or save the model again"
        )
    return (
        f"model {name}: its weights are finite and its logits are not (needs finite numbers); "
        "set policy.dtype=float32, or choose another model"
    )


def _layer_masks(
    model: LanguageModel, batch: TreeBatch
) -> Tensor | BlockMask | dict[str, Tensor | BlockMask]:
    """Return the mask in the form the layers read: one, or one per kind of layer."""

    def make(window: int | None = None) -> Tensor | BlockMask:
        is_flex = model.attention == ATTENTION
        return block_mask(batch, window=window) if is_flex else _bias(model, batch, window=window)

    if model.window is None:
        return make()
    if not model.layer_types:
        return make(model.window)
    return {"full_attention": make(), "sliding_attention": make(model.window)}


def _bias(
    model: LanguageModel, batch: TreeBatch, *, window: int | None = None
) -> Float[Tensor, "row 1 token token"]:
    """Return 0 where attention is allowed and the lowest number elsewhere, in the model's dtype.

    SDPA would turn a boolean mask into this once per layer.
    """
    mask = batch.attention_mask(window=window)
    assert mask is not None
    dtype = next(model.decoder.parameters()).dtype
    dtype = dtype if dtype.is_floating_point else torch.float32
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(~mask, torch.finfo(dtype).min)


def _unwrap(model: nn.Module) -> nn.Module:
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise ConfigError(
            f"model {type(model).__name__}: uses prompt or prefix tuning (needs adapters inside "
            "layers, such as LoRA); load a LoRA adapter"
        )
    find_base = getattr(model, "get_base_model", None)
    base = find_base() if callable(find_base) else model
    assert isinstance(base, nn.Module)
    return base


def _find_scale(config: object) -> float:
    """Return the factor on the logits, from the names that transformers' configurations use."""
    for name in ("logit_scale", "lm_head_multiplier"):
        factor = getattr(config, name, None)
        if isinstance(factor, int | float):
            return float(factor)
    scaling = getattr(config, "logits_scaling", None)
    if not isinstance(scaling, int | float):
        return 1.0
    kind = str(getattr(config, "model_type", ""))
    return float(scaling) if kind.startswith(_MULTIPLY_BY_LOGITS_SCALING) else 1.0 / scaling


def _find_softcap(config: object) -> float | None:
    softcap = getattr(config, "final_logit_softcapping", None)
    return float(softcap) if isinstance(softcap, int | float) else None
