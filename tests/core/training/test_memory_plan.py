"""The memory that a dry run foretells is counted on the model that will train."""

import pytest
import torch
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.load import load_base
from trillium.policies.tiny import tiny_policy
from trillium.training import memory
from trillium.training.config import TrainConfig
from trillium.training.memory import plan_memory

LORA = LoraSettings(r=4)


@pytest.fixture
def base(tmp_path):
    tiny_policy().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def plan_of(base, trees, **settings):
    policy = PolicyConfig(base=str(base), dtype="float32", lora=LORA)
    train = TrainConfig(order="sequential", per_device_train_batch_size=4, **settings)
    return plan_memory(policy, train, trees, base)


@pytest.mark.parametrize("layout", ["padded", "shared"])
def test_what_autograd_keeps_is_counted_to_the_byte(layout, base, pairs):
    """Shapes alone and real tensors: the same pass keeps the same bytes.

    In the padded layout the library drops a causal mask when it sees data, and repeats no keys.
    """
    trees = pairs(9)
    plan = plan_of(base, trees, layout=layout, micro_tokens=96)
    loaded = load_base(str(base), torch.float32, "none", torch.device("cpu"))
    model = add_adapter(loaded, LORA, base_name="tiny", seed=0)
    rows = memory._largest_rows(
        TrainConfig(order="sequential", per_device_train_batch_size=4, micro_tokens=96),
        trees,
        layout,
    )
    assert plan.n_tokens == rows.input_ids.numel()
    kept = memory._walk(model, rows)[0]
    assert plan.kept == kept if layout == "shared" else kept <= plan.kept < 1.2 * kept
    learning, fixed = (
        sum(p.nbytes for p in model.parameters() if p.requires_grad == wanted)
        for wanted in (True, False)
    )
    assert (plan.weights, plan.adapter) == (fixed, 4 * learning)


def test_more_tokens_at_once_keep_more_and_recomputing_keeps_less(base, pairs):
    trees = pairs(9)
    small, large, recomputed = (
        plan_of(base, trees, **settings)
        for settings in (
            {"micro_tokens": 32},
            {"micro_tokens": 4096},
            {"micro_tokens": 4096, "gradient_checkpointing": True},
        )
    )
    assert small.n_tokens < large.n_tokens == recomputed.n_tokens
    assert small.kept < recomputed.kept < large.kept
    assert small.peak < large.peak
    assert f"activations of {large.n_tokens} tokens" in large.describe()


def test_nothing_is_foretold_where_nothing_is_known(base, pairs, tmp_path):
    policy = PolicyConfig(base="somebody/on-the-hub")
    assert plan_memory(policy, TrainConfig(), pairs(2), tmp_path / "somebody") is None
    quantised = PolicyConfig(base=str(base), quantisation="nf4")
    assert plan_memory(quantised, TrainConfig(), pairs(2), base) is None
