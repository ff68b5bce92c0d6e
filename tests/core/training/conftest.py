"""Random trees, and tiny policies with adapters that already differ from their base."""

from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.training.fit import row_kind
from trillium.trees import TokenPath, TokenTree

BOS = 1


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


def make_path(
    context: tuple[int, ...], reply: tuple[int, ...], *, scores_prompt: bool = False
) -> TokenPath:
    scored = (False,) + (scores_prompt,) * (len(context) - 1) + (True,) * len(reply)
    return TokenPath(context + reply, scored)


def make_trees(objective: ObjectiveConfig, n: int, seed: int = 0) -> list[TokenTree]:
    """Return random trees with all that the objective reads, of the kind its rows are."""
    needs, kind = needs_of(objective), row_kind(objective)
    generator = torch.Generator().manual_seed(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return random_ids(int(torch.randint(low, high, (), generator=generator)), generator)

    def numbers(size: int) -> tuple[float, ...]:
        return tuple(torch.rand(size, generator=generator).tolist())

    trees = []
    for index in range(n):
        prompt, start = (BOS, *ids(3, 9)), ids(2, 4)
        columns = {name: 0.1 + 0.8 * numbers(1)[0] for name in needs.columns}
        columns |= {"degree_label": float(index % 3)} if "degree_label" in columns else {}
        columns |= {name: float(index % 2) for name in needs.behind}
        steps: tuple[tuple[int, ...], ...] = ()
        if kind in ("pairs", "rankings"):
            n_paths = 2 if kind == "pairs" else 2 + index % 3
            # Responses that begin alike share that run.
            paths = [make_path(prompt, start + ids(3, 12)) for _ in range(n_paths)]
            paths += [make_path((BOS, *ids(3, 9)), ids(3, 12)) for _ in needs.paths]
            if needs.prompts:
                prompts = prompt, (BOS, *ids(3, 9))
                replies = [ids(3, 12) for _ in prompts]
                paths = [
                    make_path(each, reply, scores_prompt=True)
                    for each, reply in zip(prompts, replies, strict=True)
                ]
                steps = tuple((len(p) - 1, len(r)) for p, r in zip(prompts, replies, strict=True))
        elif kind == "search trees":
            first, *rest = (ids(2, 6) for _ in range(5))
            lines = [(first, rest[0]), (first, rest[1], rest[2]), (rest[3],)]
            paths = [make_path(prompt, sum(line, ())) for line in lines]
            steps = tuple(tuple(map(len, line)) for line in lines)
        else:
            hole, end = ids(2, 5), ids(2, 5)
            whole = make_path(prompt, start + hole + end)
            scored = list(whole.scored)
            at = len(prompt) + len(start)
            scored[at : at + len(hole)] = [kind != "trajectories"] * len(hole)
            paths = [TokenPath(whole.ids, tuple(scored))]
        labels = {name: numbers(len(paths)) for name in needs.labels}
        if kind in ("labelled rows", "trajectories"):
            labels = {name: (float(index % 3 != 0),) for name in needs.labels}
        trees.append(TokenTree.from_paths(f"row-{index}", paths, labels, columns, steps))
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


@pytest.fixture
def trees_for() -> Callable[..., list[TokenTree]]:
    return make_trees
