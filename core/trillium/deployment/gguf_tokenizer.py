"""A tokenizer as GGUF metadata: byte-level BPE, whose splitting rule llama.cpp knows by a name.

Source: llama.cpp's convert_hf_to_gguf, `get_vocab_base_pre`. The name is found from the rule itself
in tokenizer.json; a rule without a known name would split text differently there, and is refused.
"""

import json
from pathlib import Path
from typing import TypeAlias

from gguf import GGUFWriter, TokenType
from transformers import PreTrainedTokenizerBase

from trillium.errors import ConfigError

Json: TypeAlias = dict[str, object]

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BY_PATTERN = {_QWEN2: "qwen2", _LLAMA3: "llama-bpe"}


def add_tokenizer(
    writer: GGUFWriter, folder: Path, tokenizer: PreTrainedTokenizerBase, size: int
) -> None:
    """Write vocabulary, merges, special tokens and chat template; `size` rows has the embedding.

    Raises ConfigError for a tokenizer that is no byte-level BPE known to llama.cpp.
    """
    path = folder / "tokenizer.json"
    facts = _read(path)
    model = facts["model"]
    assert isinstance(model, dict)
    rule = _rule_name(path, facts)
    tokens, kinds = _vocabulary(tokenizer, facts, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    writer.add_token_merges(merges)
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("unk", writer.add_unk_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            add(token)
    bos = tokenizer.bos_token_id
    writer.add_add_bos_token(bos is not None and bos in tokenizer("").input_ids)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _read(path: Path) -> Json:
    try:
        facts: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error}); GGUF export needs a fast tokenizer"
        ) from None
    model = facts.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(model, dict) or kind != "BPE" or model.get("byte_fallback"):
        raise ConfigError(
            f"{path}: is a {kind} tokenizer (byte-level BPE is exported here); "
            "use llama.cpp's convert_hf_to_gguf.py on the merged folder"
        )
    if not model.get("merges"):
        raise ConfigError(f"{path}: has no merges, which GGUF needs; take another tokenizer")
    return facts


def _rule_name(path: Path, facts: Json) -> str:
    splitter = facts.get("pre_tokenizer")
    steps = splitter.get("pretokenizers", [splitter]) if isinstance(splitter, dict) else []
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"].get("Regex")
        if pattern in _BY_PATTERN:
            return _BY_PATTERN[pattern]
    raise ConfigError(
        f"{path}: splits text in a way that has no name here ({', '.join(kinds) or 'none'}); "
        "use llama.cpp's convert_hf_to_gguf.py on the merged folder"
    )


def _vocabulary(
    tokenizer: PreTrainedTokenizerBase, facts: Json, size: int
) -> tuple[list[str], list[int]]:
    """Return every row of the embedding by its token and kind; rows without one are unused."""
    tokens = [f"[PAD{index}]" for index in range(size)]
    kinds = [int(TokenType.UNUSED)] * size
    for token, index in tokenizer.get_vocab().items():
        if index < size:
            tokens[index], kinds[index] = token, int(TokenType.NORMAL)
    added = facts.get("added_tokens")
    for each in added if isinstance(added, list) else []:
        kind = TokenType.CONTROL if each["special"] else TokenType.USER_DEFINED
        if each["id"] < size:
            kinds[each["id"]] = int(kind)
    return tokens, kinds
