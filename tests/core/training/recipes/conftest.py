"""Prompts for a tiny policy, and one generator over it."""

import gc
from collections.abc import Callable

import pytest
from peft import PeftModel
from trillium.generation.in_process import TransformersGenerator
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.round_rows import Prompt

# Every training ends in a full collection, most of whose time goes into the imported libraries.
gc.freeze()


@pytest.fixture
def prompts() -> tuple[Prompt, ...]:
    tokenizer = tiny_tokenizer()
    words = ("red", "green", "blue", "black", "white", "grey")
    return tuple(
        Prompt(word, tuple(tokenizer.encode(f"{word}:", add_special_tokens=False)), word)
        for word in words
    )


@pytest.fixture
def generator() -> Callable[[PeftModel], TransformersGenerator]:
    return lambda policy: TransformersGenerator(policy, tiny_tokenizer(), max_rows=32)
