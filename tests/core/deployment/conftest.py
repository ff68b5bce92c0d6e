"""Tiny bases with byte-level BPE tokenizers, adapters trained on them, and an adapters.yaml."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from trillium.deployment.registry import read_registry, register
from trillium.policies.adapters import add_adapter, save_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import CHATML

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
TEXTS = ["def add(a, b):", "    return a + b", "The sum of 12 and 30 is 42.", "one two three"] * 8


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with some merges, that splits digits as SmolLM2's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        chat_template=CHATML,
        clean_up_tokenization_spaces=False,
    )


def random_base(kind: str, vocab_size: int) -> torch.nn.Module:
    """A random model of 2 layers, with spread-out logits."""
    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[kind]
    config = config_class(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=kind == "llama",
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0.0, 0.15)
                else:
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def write_base(folder: Path, kind: str = "llama") -> Path:
    """Save a base with its tokenizer."""
    tokenizer = bpe_tokenizer()
    random_base(kind, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, *, kind: str = "llama", **lora) -> Path:
    """Save an adapter that changes its base a lot."""
    settings = LoraSettings(**{"r": 4, "alpha": 8, **lora})
    policy = add_adapter(random_base(kind, 320), settings, base_name=str(base), seed=1)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.1, generator=generator)
    save_adapter(policy, folder)
    return folder


@pytest.fixture(scope="session")
def llama_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("llama") / "base")


@pytest.fixture(scope="session")
def adapter(llama_base: Path) -> Path:
    return write_adapter(llama_base.parent / "adapter", llama_base)


@pytest.fixture(scope="session")
def make_base():
    return write_base


@pytest.fixture(scope="session")
def make_adapter():
    return write_adapter


@pytest.fixture
def base():
    """What adapters.yaml says of the base."""
    return {"name": "smollm2", "source": "org/base", "revision": "abc123"}


@pytest.fixture
def folder(tmp_path, adapter, base):
    """A folder with adapters.yaml of two adapters, uploaded, with a template and GGUF files."""
    for name in ("code", "math"):
        shutil.copytree(adapter, tmp_path / "my adapters" / name)
        register(tmp_path / "adapters.yaml", name, tmp_path / "my adapters" / name, base=base)
    values = yaml.safe_load((tmp_path / "adapters.yaml").read_text())
    for entry in values["adapters"]:
        entry |= {"uri": f"s3://bucket/adapters/{entry['name']}", "gguf": f"{entry['name']}.gguf"}
    (tmp_path / "template.jinja").write_text("{{ messages }}\n")
    values["base"] |= {"gguf": "base.gguf", "chat_template": "template.jinja"}
    values["serving"]["cpu_image"] = "registry.example/trillium:1"
    (tmp_path / "adapters.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


@pytest.fixture
def registry(folder):
    return read_registry(folder / "adapters.yaml")
