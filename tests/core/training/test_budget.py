import math

import pytest
import torch
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.scoring.forward import open_model
from trillium.training.budget import Budget, fit, kept_bytes, plan_budget
from trillium.training.config import TrainConfig
from trillium.trees import TokenPath, TokenTree

TREES = [
    TokenTree.from_paths(
        str(index),
        [TokenPath((7,) * size + (end,) * 9, (False,) * size + (True,) * 9) for end in (20, 30)],
    )
    for index, size in enumerate((40, 90, 400))
]


def test_on_a_processor_the_budget_is_what_the_file_says_or_the_constant() -> None:
    assert plan_budget(TrainConfig(), tiny_policy(), TREES, "shared") == Budget(512, False)
    said = TrainConfig(micro_tokens=77, gradient_checkpointing=True)
    assert plan_budget(said, tiny_policy(), TREES, "shared") == Budget(77, True)


@pytest.mark.parametrize(
    ("said", "n_fitting", "expected"),
    [
        ({}, 90_000, Budget(16_384, False)),
        ({}, 5_000, Budget(4_864, False)),
        ({}, 1_100, Budget(1_050, False)),  # the longest tree sets the least
        ({}, 1_000, Budget(16_384, True)),  # it does not fit: recompute
        ({"gradient_checkpointing": False}, 1_000, Budget(1_050, False)),
        ({"gradient_checkpointing": True}, 90_000, Budget(16_384, True)),
        ({"micro_tokens": 2_000}, 90_000, Budget(2_000, False)),
        ({"micro_tokens": 2_000}, 500, Budget(2_000, True)),
    ],
)
def test_activations_are_recomputed_only_where_the_longest_tree_would_not_fit(
    said: dict[str, int], n_fitting: int, expected: Budget
) -> None:
    assert fit(TrainConfig.model_validate(said), n_fitting, longest=1_050) == expected


@pytest.mark.gpu
def test_what_a_forward_pass_keeps_is_measured_per_token() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")
    base = tiny_policy(n_layers=4).to("cuda")
    policy = add_adapter(base, LoraSettings(), base_name="tiny", seed=0)
    per_token = kept_bytes(policy, TREES, "shared")
    # Four layers of width 32 keep a few dozen vectors of float32 per token each.
    assert 4 * 32 * 4 * 8 < per_token < 4 * 32 * 4 * 200


@pytest.mark.parametrize(
    ("sizes", "probed"), [((40, 90, 400, 3_000), 584), ((3_000, 4_000), 3_018)]
)
def test_the_probe_is_no_longer_than_it_must_be(
    sizes: tuple[int, ...], probed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that does not fit without recomputation must not be what is tried: 18 scored tokens
    each, and 40 + 90 + 400 + 3 * 18 = 584, in rows of the longest."""
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    policy, seen = tiny_policy(), []
    open_model(policy).decoder.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    trees = [
        TokenTree.from_paths(
            str(size),
            [
                TokenPath((7,) * size + (end,) * 9, (False,) * size + (True,) * 9)
                for end in (20, 30)
            ],
        )
        for size in sizes
    ]
    kept_bytes(policy, trees, "packed")
    assert [shape.numel() for shape in seen] == [probed]


def test_where_not_even_the_probe_fits_nothing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    policy = tiny_policy()

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    open_model(policy).decoder.register_forward_pre_hook(run_out)
    assert kept_bytes(policy, TREES, "shared") == math.inf
    assert int(1e12 / math.inf) == 0
    assert fit(TrainConfig(), 0, longest=1_050) == Budget(16_384, True)
