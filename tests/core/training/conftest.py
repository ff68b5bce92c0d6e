"""Random trees, and tiny policies with adapters that already differ from their base."""

from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.trees import TokenPath, TokenTree


def random_ids(n: int, generator: torch.Generator) -> tuple[int, ...]:
    return tuple(torch.randint(4, 260, (n,), generator=generator).tolist())


def make_pairs(n: int, seed: int = 0, columns: dict[str, float] | None = None) -> list[TokenTree]:
    generator = torch.Generator().manual_seed(seed)
    trees = []
    for index in range(n):
        sizes = torch.randint(3, 24, (3,), generator=generator).tolist()
        prompt, chosen, rejected = (random_ids(size, generator) for size in sizes)
        paths = [
            TokenPath(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))
            for reply in (chosen, rejected)
        ]
        trees.append(TokenTree.from_paths(f"pair-{index}", paths, columns=columns or {}))
    return trees


def make_singles(n: int, seed: int = 0) -> list[TokenTree]:
    generator = torch.Generator().manual_seed(seed)
    trees = []
    for index in range(n):
        prompt = random_ids(5 + index % 4, generator)
        reply = random_ids(3 + index % 7, generator)
        path = TokenPath(prompt + reply, (False,) * len(prompt) + (True,) * len(reply))
        label = {"label": (float(index % 3 != 0),)}
        trees.append(TokenTree.from_paths(f"row-{index}", [path], labels=label))
    return trees


def make_policy(*, seed: int = 0, spread: float = 0.05, dropout: float = 0.0) -> PeftModel:
    lora = LoraSettings(r=4, alpha=8, dropout=dropout)
    model = add_adapter(tiny_policy(), lora, base_name="tiny", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name and spread:
            parameter.data.normal_(0.0, spread, generator=generator)
    return model


@pytest.fixture
def pairs() -> Callable[..., list[TokenTree]]:
    return make_pairs


@pytest.fixture
def singles() -> Callable[..., list[TokenTree]]:
    return make_singles


@pytest.fixture
def policy() -> Callable[..., PeftModel]:
    return make_policy
