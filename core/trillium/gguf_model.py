"""Turn a GGUF language model into a folder of safetensors and tokenizer that every tool can load.

Weights are kept as float32: the dequantised values of 4-bit and 8-bit blocks (scale * integer +
bias) fit exactly there and in neither 16-bit type, so the text of the model does not change.
"""

import sys
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path

# Digits one by one, as the model was trained. The loader's own conversion leaves that out, so it
# splits runs of spaces before a number differently.
_DIGIT_SPLITTING = {"smollm"}


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write model, tokenizer and chat template of `gguf` into the existing `folder`."""
    # Bars of the loader belong on a terminal; in a log they are one line of thousands of columns.
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO())
    with quiet:
        max_length = _convert_weights(gguf, folder)
    _convert_tokenizer(gguf, folder, max_length)


def _convert_weights(gguf: Path, folder: Path) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
    )
    # The weights are plain numbers by now, but the loaded model still counts as quantised and
    # cannot be saved: a model that was never quantised takes them over.
    config = model.config
    del config.quantization_config
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)
    max_length: int = config.max_position_embeddings
    return max_length


def _convert_tokenizer(gguf: Path, folder: Path, max_length: int) -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    loaded = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    backend = loaded.backend_tokenizer
    if _read_field(gguf, "tokenizer.ggml.pre") in _DIGIT_SPLITTING:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=loaded.bos_token,
        eos_token=loaded.eos_token,
        unk_token=loaded.unk_token,
        pad_token=loaded.pad_token,
        chat_template=loaded.chat_template,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)


def _read_field(gguf: Path, name: str) -> object:
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get(name)
    return None if field is None else field.contents()
