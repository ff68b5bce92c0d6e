"""Several adapters that learn together: cut off anywhere, they end where they would have."""

import pytest
from peft import PeftModel
from torch.optim.optimizer import register_optimizer_step_pre_hook
from trillium.errors import BackendError, DataError
from trillium.policies.adapters import adapter_digest, adapter_parameters, copy_adapter
from trillium.scoring.reference import BaseReference
from trillium.training.adapter_loop import through_adapter
from trillium.training.recipes.fast_slow import FastSlowAdapters, FastSlowConfig, train_fast_slow

CONFIG = FastSlowConfig(
    fast_learning_rate=1e-6,
    slow_learning_rate=4e-3,
    swap_steps=4,
    trees_per_step=8,
    num_train_epochs=4,
    save_steps=3,
)


def train(trees, model: PeftModel, output) -> FastSlowAdapters:
    return train_fast_slow(CONFIG, trees, model, BaseReference(model), output)


def test_a_run_cut_off_at_any_step_ends_in_the_same_bytes(pairs, policy, tmp_path):
    """Roles, sums since the last look, moments and dropout all come back."""
    trees = pairs(16)
    whole = train(trees, policy(spread=0.0, dropout=0.2), tmp_path / "whole")
    # Before the first checkpoint; after it, in the middle of an epoch; after the second.
    for n_steps in (2, 5, 4):
        left = iter(range(n_steps))

        def die(*_, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt

        hook = register_optimizer_step_pre_hook(die)
        with pytest.raises(KeyboardInterrupt):
            train(trees, policy(spread=0.0, dropout=0.2), tmp_path / "broken")
        hook.remove()
    broken = train(trees, policy(spread=0.0, dropout=0.2), tmp_path / "broken")
    assert broken.metrics == whole.metrics
    assert {row["fast_is_second"] for row in whole.metrics} == {0.0, 1.0}
    assert len(whole.metrics) == 8
    for role in ("fast", "slow"):
        name = f"{role}/adapter_model.safetensors"
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = train(trees, policy(spread=0.0, dropout=0.2), tmp_path / "whole")
    assert again == whole


def test_a_gradient_that_is_not_finite_ends_the_run_with_a_sentence(pairs, policy, tmp_path):
    model = policy(spread=0.0)
    first = next(iter(adapter_parameters(model).values()))
    first.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(BackendError, match="step 1: the gradient norm of adapter default is"):
        train(pairs(4), model, tmp_path)


def test_gradients_that_a_call_cut_short_left_behind_are_not_learned_from(pairs, policy, tmp_path):
    """The same model is trained again after Ctrl-C before its first step."""
    trees = pairs(8)
    train(trees, policy(spread=0.0), tmp_path / "whole")
    model = policy(spread=0.0)

    def die(*_):
        raise KeyboardInterrupt

    hook = register_optimizer_step_pre_hook(die)
    with pytest.raises(KeyboardInterrupt):
        train(trees, model, tmp_path / "again")
    hook.remove()
    assert any(each.grad is not None for each in model.parameters())
    train(trees, model, tmp_path / "again")
    for role in ("fast", "slow"):
        name = f"{role}/adapter_model.safetensors"
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_nothing_to_train_on_is_refused(policy, tmp_path):
    with pytest.raises(DataError, match="ofs_dpo: no tree to train on"):
        train([], policy(), tmp_path)


def test_going_through_an_adapter_changes_nothing_but_the_forward(policy):
    model = policy()
    copy_adapter(model, "default", "other")
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    digest = adapter_digest(model)
    with through_adapter(model, "other"):
        assert model.base_model.active_adapters == ["other"]
        assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert model.active_adapter == "default"
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert adapter_digest(model) == digest
