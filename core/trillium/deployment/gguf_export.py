"""`trillium deploy export`: models and adapters as GGUF, for llama.cpp, Ollama and their kin.

Source: llama.cpp's convert_hf_to_gguf and convert_lora_to_gguf. Llama's rotary embedding is written
there for interleaved halves of each head, so rows of query and key are put in that order; those of
an adapter's B move with them, and its A stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from numpy.typing import NDArray
from safetensors import safe_open

from trillium.deployment.adapter_files import WEIGHTS, read_adapter
from trillium.deployment.base_files import BaseFiles, find_base
from trillium.deployment.gguf_tokenizer import add_tokenizer
from trillium.deployment.portable import check_portable
from trillium.errors import ConfigError
from trillium.files import explain_failed_write
from trillium.policies.tokenizer import load_tokenizer

GgufType = Literal["f32", "f16", "bf16", "q8_0"]
Array = NDArray[np.float32]

_TYPES: dict[GgufType, tuple[GGMLQuantizationType, LlamaFileType]] = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_BLOCK = 32  # values of one Q8_0 block


@dataclass(frozen=True)
class _Architecture:
    """Name llama.cpp's kind of a model, and whether its query and key rows are reordered."""

    name: str
    kind: gguf.MODEL_ARCH
    is_interleaved: bool


_ARCHITECTURES = {
    "llama": _Architecture("llama", gguf.MODEL_ARCH.LLAMA, True),
    "mistral": _Architecture("llama", gguf.MODEL_ARCH.LLAMA, True),
    "qwen2": _Architecture("qwen2", gguf.MODEL_ARCH.QWEN2, False),
    "qwen3": _Architecture("qwen3", gguf.MODEL_ARCH.QWEN3, False),
}


@dataclass(frozen=True)
class _Shape:
    """Hold what the layout of weights depends on."""

    architecture: _Architecture
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int

    def name(self, tensor: str) -> str:
        """Return GGUF's name of a weight; raises ConfigError for one that it does not know."""
        names = gguf.get_tensor_name_map(self.architecture.kind, self.n_layers)
        found = names.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ConfigError(
                f"{tensor}: has no name in GGUF's {self.architecture.name}; "
                "use llama.cpp's convert_hf_to_gguf.py on the merged folder"
            )
        return str(found)

    def arrange(self, tensor: str, rows: Array) -> Array:
        """Return rows of query and key in the order of llama.cpp, all others as they are."""
        if not self.architecture.is_interleaved:
            return rows
        if ".q_proj." in tensor:
            return _interleave(rows, self.n_heads)
        return _interleave(rows, self.n_kv_heads) if ".k_proj." in tensor else rows


def export_model(folder: Path, output: Path, *, kind: GgufType = "f16") -> None:
    """Write a model folder (a base, or what `merge` wrote) as one GGUF file.

    Matrices are stored as `kind`, vectors as float32. Raises ConfigError for an architecture or
    tokenizer that is not exported here.
    """
    base = find_base(str(folder))
    shape = _shape_of(base)
    tokenizer = load_tokenizer(str(base.folder))
    if not base.weights:
        raise ConfigError(f"{folder}: holds no safetensors; give the folder of the whole model")
    writer = GGUFWriter(output, shape.architecture.name)
    _add_facts(writer, base, shape)
    writer.add_file_type(_TYPES[kind][1])
    add_tokenizer(writer, base.folder, tokenizer, _int(base, "vocab_size"))
    is_tied = bool(base.config.get("tie_word_embeddings"))
    for path in base.weights:
        for tensor, rows in _read(path):
            if is_tied and tensor == "lm_head.weight":
                continue
            _add(writer, shape.name(tensor), shape.arrange(tensor, rows), kind)
    _finish(writer, output)


def export_adapter(folder: Path, output: Path, *, base: str | None = None) -> None:
    """Write an adapter as a GGUF file for `llama-server --lora`, in float32.

    Raises ConfigError for an adapter that is no plain LoRA, and as `export_model` does.
    """
    adapter = read_adapter(folder)
    problems = [each.sentence for each in check_portable(adapter) if each.kind == "problem"]
    if problems:
        raise ConfigError(f"{folder}: is no plain LoRA ({problems[0]}); merge it first")
    shape = _shape_of(find_base(base or adapter.base, adapter.revision))
    writer = GGUFWriter(output, shape.architecture.name)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp scales by alpha / r whatever was trained, so rsLoRA becomes a larger alpha.
    writer.add_float32("adapter.lora.alpha", adapter.scaling * adapter.rank)
    tensors = dict(_read(folder / WEIGHTS))
    for layer in adapter.layers():
        tensor = f"{layer}.weight"
        a, b = (tensors[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
        _add(writer, f"{shape.name(tensor)}.lora_a", a, "f32")
        _add(writer, f"{shape.name(tensor)}.lora_b", shape.arrange(tensor, b), "f32")
    _finish(writer, output)


def _shape_of(base: BaseFiles) -> _Shape:
    architecture = _ARCHITECTURES.get(base.model_type)
    if architecture is None:
        raise ConfigError(
            f"{base.name}: is a {base.model_type} (exported here: {', '.join(_ARCHITECTURES)}); "
            "use llama.cpp's convert_hf_to_gguf.py on the merged folder"
        )
    n_heads = _int(base, "num_attention_heads")
    found = base.config.get("head_dim")
    return _Shape(
        architecture,
        n_layers=_int(base, "num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=_int(base, "num_key_value_heads", n_heads),
        head_dim=found if isinstance(found, int) else _int(base, "hidden_size") // n_heads,
    )


def _add_facts(writer: GGUFWriter, base: BaseFiles, shape: _Shape) -> None:
    writer.add_name(Path(base.name).name)
    writer.add_context_length(_int(base, "max_position_embeddings"))
    writer.add_embedding_length(_int(base, "hidden_size"))
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(_int(base, "intermediate_size"))
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(_int(base, "vocab_size"))
    epsilon = base.config.get("rms_norm_eps")
    assert isinstance(epsilon, float)
    writer.add_layer_norm_rms_eps(epsilon)
    writer.add_rope_freq_base(_rope_theta(base))


def _rope_theta(base: BaseFiles) -> float:
    """Return the base of the rotary frequencies; raises ConfigError where they are scaled."""
    found = base.config.get("rope_parameters") or base.config.get("rope_scaling")
    facts = found if isinstance(found, dict) else {}
    kind = facts.get("rope_type", facts.get("type", "default"))
    if kind != "default":
        raise ConfigError(
            f"{base.name}: scales its rotary embedding ({kind}), which is not exported here; "
            "use llama.cpp's convert_hf_to_gguf.py on the merged folder"
        )
    theta = facts.get("rope_theta", base.config.get("rope_theta", 10000.0))
    assert isinstance(theta, int | float)
    return float(theta)


def _read(path: Path) -> Iterator[tuple[str, Array]]:
    with safe_open(path, framework="pt") as weights:
        for tensor in weights.keys():  # noqa: SIM118
            yield tensor, weights.get_tensor(tensor).float().numpy()


def _add(writer: GGUFWriter, name: str, rows: Array, kind: GgufType) -> None:
    fits = rows.ndim == 2 and (kind != "q8_0" or rows.shape[1] % _BLOCK == 0)
    stored = _TYPES[kind if fits else "f32"][0]
    packed = gguf.quants.quantize(np.ascontiguousarray(rows), stored)
    writer.add_tensor(name, packed, raw_dtype=stored)


def _finish(writer: GGUFWriter, output: Path) -> None:
    with explain_failed_write(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _interleave(rows: Array, n_heads: int) -> Array:
    """Put row i of the second half of each head behind row i of its first."""
    halves = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _int(base: BaseFiles, field: str, default: int | None = None) -> int:
    found = base.config.get(field, default)
    if not isinstance(found, int):
        raise ConfigError(f"{base.folder / 'config.json'}: {field} = {found!r} (a whole number)")
    return found
