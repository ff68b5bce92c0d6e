"""Models of real shapes with random weights, built on the GPU in seconds: nothing is downloaded."""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

# Hidden, inner, layers, heads, key-value heads of Qwen2.5; whether weights are NF4.
SHAPES = {
    "0.5b": (896, 4864, 24, 14, 2, False),
    "1.5b": (1536, 8960, 28, 12, 2, False),
    "7b-nf4": (3584, 18944, 28, 28, 4, True),
    "tiny": (256, 512, 2, 4, 2, False),
    "tiny-nf4": (256, 512, 2, 4, 2, True),
}
VOCABULARY = 151_936


def build_model(name, side, *, is_exact=False):
    """Return a frozen model; ours gets what `load_base` would give it.

    It is bfloat16 or NF4; where `is_exact`, the same numbers held and computed with in float32.
    """
    hidden, inner, layers, heads, key_heads, is_nf4 = SHAPES[name]
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=32_768,
        tie_word_embeddings=hidden < 3000,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=3,
    )
    attention = "sdpa"
    if side.startswith("ours"):
        from trillium.scoring.flex import register_attention

        attention = register_attention() if side != "ours_plain" else "sdpa"
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )
    if is_nf4:
        quantise(model)
    if is_exact:
        widen(model)
    model.requires_grad_(False)
    if side.startswith("ours") and side != "ours_plain":
        from trillium.policies.fused import fuse_layers

        fuse_layers(model)
    torch.cuda.empty_cache()
    return model.eval()


def quantise(model):
    """Put NF4 layers, double quantised, in the place of all dense layers but the head."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is not nn.Linear or layer is head:
                continue
            narrow = Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="meta",
            )
            narrow.weight = Params4bit(
                layer.weight.data.cpu(), requires_grad=False, quant_type="nf4"
            ).cuda()
            narrow.bias = layer.bias
            setattr(parent, name, narrow)
            layer.weight = None
    model.is_loaded_in_4bit = model.is_quantized = True
    # What the trainers ask of a quantised model.
    method = SimpleNamespace(quant_method="bitsandbytes", load_in_4bit=True)
    model.hf_quantizer = SimpleNamespace(is_trainable=True, quantization_config=method)


def widen(model):
    """Put float32 layers of the same numbers in the place of what is narrower."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer).__name__ != "Linear4bit":
                continue
            from bitsandbytes.functional import dequantize_4bit

            wide = nn.Linear(layer.in_features, layer.out_features, device="meta")
            numbers = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            wide.weight = nn.Parameter(numbers.float(), requires_grad=False)
            wide.bias = layer.bias
            setattr(parent, name, wide)
    for mark in ("is_loaded_in_4bit", "is_quantized", "hf_quantizer"):
        if mark in vars(model):
            delattr(model, mark)
    model.float()


def decoder_weights(name):
    """Count the weights of the layers, and those of the head."""
    hidden, inner, layers, heads, key_heads, _ = SHAPES[name]
    attention = 2 * hidden * hidden * (1 + key_heads / heads)
    return layers * (attention + 3 * hidden * inner), hidden * VOCABULARY
