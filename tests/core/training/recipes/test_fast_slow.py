import math

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook
from trillium.errors import DataError
from trillium.objectives.recipe_configs import OFSConfig
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium.scoring.reference import BaseReference
from trillium.training.recipes.fast_slow import FastSlowConfig, train_fast_slow

CONFIG = FastSlowConfig(
    fast_learning_rate=2e-3,
    slow_learning_rate=4e-4,
    swap_steps=4,
    trees_per_step=16,
    num_train_epochs=12,
)


def train(config, trees, model, output):
    return train_fast_slow(config, trees, model, BaseReference(model), output)


def entries(folder):
    return load_file(folder / "adapter_model.safetensors")


def test_both_adapters_learn_and_the_fast_one_is_ahead(pairs, policy, tmp_path):
    result = train(CONFIG, pairs(16), policy(spread=0.0), tmp_path)
    first, last = result.metrics[0], result.metrics[-1]
    assert first["dpo_fast"] == pytest.approx(first["dpo_slow"], abs=1e-6)
    assert last["dpo_fast"] < last["dpo_slow"] < first["dpo_slow"]
    assert all(row["fast_is_second"] == 0.0 for row in result.metrics)


def test_the_roles_swap_to_whoever_has_the_lower_loss(pairs, policy, tmp_path):
    """With its rate exchanged the slow adapter is ahead after four steps, and from then on fast."""
    rates = {"fast_learning_rate": 1e-5, "slow_learning_rate": 2e-3}
    config = CONFIG.model_copy(update={**rates, "num_train_epochs": 8})
    result = train(config, pairs(16), policy(spread=0.0), tmp_path)
    roles = [row["fast_is_second"] for row in result.metrics]
    assert roles[:4] == [0.0] * 4
    assert roles[4:8] == [1.0] * 4
    # The role carries the rate, so the new fast adapter now hardly moves and is caught up with.
    before, after = result.metrics[3], result.metrics[4]
    assert before["dpo_slow"] < before["dpo_fast"]
    assert after["dpo_fast"] < after["dpo_slow"]


def test_the_chase_spurs_both_adapters(pairs, policy, tmp_path):
    """Where they stand level it adds alpha times the DPO gradient to each: 1 + alpha in all."""
    gradients: list[list[torch.Tensor]] = []

    def record(optimizer, *_):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients.append([parameter.grad.clone() for parameter in parameters])

    hook = register_optimizer_step_pre_hook(record)
    for alpha in (0.0, 0.5):
        changes = {"objective": OFSConfig(alpha=alpha), "num_train_epochs": 1, "max_grad_norm": 1e9}
        config = CONFIG.model_copy(update=changes)
        result = train(config, pairs(16), policy(spread=0.0), tmp_path / str(alpha))
        assert result.metrics[0]["loss"] == pytest.approx(2 * math.log(2), abs=1e-5)
    hook.remove()
    plain, chasing = gradients
    for without, with_chase in zip(plain, chasing, strict=True):
        torch.testing.assert_close(with_chase, 1.5 * without, rtol=1e-3, atol=1e-7)
    assert any(gradient.any() for gradient in plain)


def test_without_a_chase_and_at_one_rate_both_are_plain_dpo(pairs, policy, tmp_path):
    changes = {"objective": OFSConfig(alpha=0.0), "slow_learning_rate": 2e-3}
    result = train(CONFIG.model_copy(update=changes), pairs(8), policy(spread=0.0), tmp_path)
    fast, slow = entries(result.fast), entries(result.slow)
    assert all(torch.equal(fast[key], slow[key]) for key in fast)


def test_adapters_that_servers_refuse_are_named_when_they_are_saved(pairs, tmp_path, caplog):
    """vLLM takes ranks up to 512."""
    wide = add_adapter(tiny_policy(), LoraSettings(r=513), base_name="tiny", seed=0)
    short = CONFIG.model_copy(update={"num_train_epochs": 1})
    result = train(short, pairs(4), wide, tmp_path)
    said = [each.getMessage() for each in caplog.records if "will refuse" in each.getMessage()]
    for folder, line in zip((result.fast, result.slow), said, strict=True):
        assert str(folder) in line
    assert all("rank 513" in line for line in said)


def test_only_pairs_will_do(singles, policy, tmp_path):
    with pytest.raises(DataError, match=r"has 1 responses \(ofs_dpo needs pairs"):
        train(CONFIG, singles(2), policy(), tmp_path)
