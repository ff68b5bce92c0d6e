"""OREO at every level through the real trainer: states, the rate of the head, and rounds."""

import pytest
import torch
from safetensors.torch import load_file
from trillium.errors import DataError
from trillium.objectives.recipe_configs import OREOConfig
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.scoring.reference import open_reference
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig
from trillium.training.heads import HEADS_FILE, attached, build_heads
from trillium.training.inputs import gather
from trillium.training.steps import StepCollator
from trillium.trees import TokenPath, TokenTree

# Two turns with a hole; the steps are runs of 2, 3 and 2 of the seven scored tokens.
PATH = TokenPath(tuple(range(10, 21)), tuple(i in {2, 3, 4, 5, 6, 9, 10} for i in range(11)))
SHORT = TokenPath(tuple(range(30, 36)), tuple(i > 2 for i in range(6)))


def trees(*, steps=True):
    counts = ((2, 3, 2),), ((1, 2),)
    return [
        TokenTree.from_paths(f"t{i}", (path,), {"reward": (reward,)},
                             steps=count if steps else ())
        for i, (path, reward, count) in enumerate(
            zip((PATH, SHORT), (1.0, 0.0), counts, strict=True)
        )
    ]  # fmt: skip


@pytest.fixture
def policy():
    def make():
        return add_adapter(tiny_policy(seed=4), LoraSettings(r=4, alpha=8), base_name="t", seed=0)

    return make


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("step", [[1, 0, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0, 0]]),
        ("response", [[1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]),
    ],
)
@pytest.mark.parametrize("layout", ["padded", "shared", "packed"])
def test_states_begin_where_steps_do_in_every_layout(level, expected, layout, policy):
    model, objective = policy(), OREOConfig(level=level, alpha=0.0)
    reference = open_reference("base", model)
    (rows,) = StepCollator(layout, 3, 4096, n_counted=1).batch_rows(trees())
    with attached(model, build_heads(objective, model)):
        found = gather(objective, model, reference, rows, tokens_per_path=(5.0,))
    by_id = dict(zip(rows.tree_ids, found.computed["starts"].int().tolist(), strict=True))
    assert [by_id["t0"], by_id["t1"]] == expected


def test_steps_must_be_there_for_the_step_level(policy, tmp_path):
    config = AlignConfig(objective=OREOConfig(level="step"))
    model = policy()
    with pytest.raises(DataError, match="says nothing of its steps"):
        align(config, trees(steps=False), model, open_reference("base", model), tmp_path)


def run(policy, folder, *, steps=3, heads_from=None, **options):
    model = policy()
    train = TrainConfig(learning_rate=1e-4, max_steps=steps, per_device_train_batch_size=2)
    config = AlignConfig(objective=OREOConfig(**options), train=train)
    reference = open_reference("base", model)
    result = align(config, trees(), model, reference, folder, heads_from=heads_from)
    return load_file(result.adapter / HEADS_FILE)["value.weight"]


@pytest.mark.parametrize("level", ["token", "step", "response"])
def test_the_head_has_a_rate_of_its_own(level, policy, tmp_path):
    """Adam's first step moves every entry by its rate."""
    slow = run(policy, tmp_path / "slow", steps=1, level=level)
    fast = run(policy, tmp_path / "fast", steps=1, level=level, value_learning_rate=1e-2)
    torch.testing.assert_close(slow.abs(), torch.full_like(slow, 1e-4), rtol=1e-3, atol=0)
    torch.testing.assert_close(fast.abs(), torch.full_like(fast, 1e-2), rtol=1e-3, atol=0)


def test_a_round_goes_on_with_the_head_of_the_one_before(policy, tmp_path):
    first = run(policy, tmp_path / "first", steps=2, value_learning_rate=1e-2)
    folder = tmp_path / "first" / "adapter"
    second = run(policy, tmp_path / "second", steps=1, heads_from=folder, value_learning_rate=1e-9)
    torch.testing.assert_close(second, first, rtol=0, atol=1e-6)
    assert first.abs().max() > 5e-3
    # Checkpoints of a run that began with other heads are not continued.
    again = run(policy, tmp_path / "second", steps=1, value_learning_rate=1e-9)
    assert again.abs().max() < 1e-6
