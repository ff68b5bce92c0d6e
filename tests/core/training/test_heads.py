import pytest
import torch
from transformers import TrainerCallback
from trillium.errors import ConfigError
from trillium.objectives.configs import DPOConfig
from trillium.objectives.recipe_configs import DegreeConfig, OREOConfig, SparsePOConfig
from trillium.policies.adapters import adapter_digest
from trillium.policies.tiny import tiny_policy
from trillium.scoring.reference import BaseReference
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig
from trillium.training.heads import (
    HEADS_FILE,
    LinearHead,
    attached,
    build_heads,
    heads_of,
    load_heads,
    save_heads,
)
from trillium.training.inputs import gather
from trillium.training.steps import StepCollator


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        (DPOConfig(), set()),
        (SparsePOConfig(), {"mask"}),
        (SparsePOConfig(masks="independent"), {"mask_u", "mask_d"}),
        (SparsePOConfig(masks="mapo"), set()),
        (OREOConfig(), {"value"}),
        (DegreeConfig(n_degrees=5), {"degree_logits"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_an_objective_trains_exactly_the_heads_it_reads(objective, names, policy):
    heads = build_heads(objective, policy())
    assert set(heads) == names
    if objective.name == "spo_degree":
        assert heads["degree_logits"].weight.shape == (5, 32)


def test_heads_belong_to_the_policy_only_while_they_are_attached(policy):
    model = policy()
    before = [name for name, _ in model.named_parameters()]
    digest = adapter_digest(model)
    with attached(model, build_heads(OREOConfig(), model)):
        assert len(list(model.parameters())) == len(before) + 2
        assert set(heads_of(model)) == {"value"}
        assert adapter_digest(model) == digest
    assert [name for name, _ in model.named_parameters()] == before
    assert len(heads_of(model)) == 0


def test_a_linear_head_is_zero_until_it_has_learned():
    assert LinearHead(4, 2)(torch.randn(3, 4)).tolist() == [[0.0, 0.0]] * 3


def test_saved_heads_come_back_entry_by_entry(policy, tmp_path):
    model, objective = policy(), SparsePOConfig(masks="independent")
    with attached(model, build_heads(objective, model)):
        with torch.no_grad():
            for entry in heads_of(model).parameters():
                entry.normal_()
        saved = {key: value.clone() for key, value in heads_of(model).state_dict().items()}
        save_heads(heads_of(model), tmp_path)
    with attached(model, build_heads(objective, model)):
        load_heads(heads_of(model), tmp_path)
        for key, value in heads_of(model).state_dict().items():
            assert torch.equal(value, saved[key]), key


def test_heads_of_another_objective_are_refused(policy, tmp_path):
    model = policy()
    with attached(model, build_heads(OREOConfig(), model)):
        with pytest.raises(ConfigError, match=r"holds no heads.safetensors .* trains value beside"):
            load_heads(heads_of(model), tmp_path)
        save_heads(heads_of(model), tmp_path)
    with (
        attached(model, build_heads(DegreeConfig(), model)),
        pytest.raises(ConfigError, match=r"does not fit the heads degree_logits \(4 tensors"),
    ):
        load_heads(heads_of(model), tmp_path)


def test_nothing_is_written_where_nothing_is_trained_beside_the_policy(policy, tmp_path):
    save_heads(heads_of(policy()), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "objective", [SparsePOConfig(), OREOConfig()], ids=lambda config: config.name
)
def test_align_leaves_trained_heads_beside_the_adapter_and_the_policy_as_it_was(
    objective, trees_for, policy, tmp_path
):
    from safetensors.torch import load_file
    from trillium.scoring.reference import BaseReference

    model = policy(spread=0.0)
    config = AlignConfig(objective=objective, train=TrainConfig(learning_rate=1e-3, max_steps=2))
    names = [name for name, _ in model.named_parameters()]
    start = {k: v.clone() for k, v in heads_state(objective, model).items()}
    result = align(config, trees_for(objective, 16), model, BaseReference(model), tmp_path)
    assert [name for name, _ in model.named_parameters()] == names
    trained = load_file(result.adapter / HEADS_FILE)
    assert trained.keys() == start.keys()
    assert all((trained[key] != start[key]).all() for key in start)


def heads_state(objective, model):
    return {
        f"{name}.{key}": value
        for name, head in build_heads(objective, model).items()
        for key, value in head.state_dict().items()
    }


@pytest.mark.parametrize("masks", ["common", "mapo"])
def test_a_common_mask_is_one_mask_under_dropout_too(masks, trees_for, policy):
    model, objective = policy(), SparsePOConfig(masks=masks, mask_dropout=0.5)
    rows = next(StepCollator("shared", 3, 4096).batch_rows(trees_for(objective, 4)))
    with attached(model, build_heads(objective, model)):
        model.train()
        found = gather(objective, model, BaseReference(model), rows, tokens_per_path=(5.0,))
    assert found.computed["mask_u"] is found.computed["mask_d"]


def test_a_policy_without_adapters_goes_on_with_its_heads(trees_for, policy, tmp_path):
    """Stopped after its second step and called again, it ends in the same bytes, heads included."""

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 2:
                raise KeyboardInterrupt

    objective = OREOConfig(divergence="sampled")
    train = TrainConfig(per_device_train_batch_size=2, save_steps=1, learning_rate=1e-3)
    config, trees = AlignConfig(objective=objective, train=train), trees_for(objective, 8)
    reference, broken = BaseReference(policy()), tmp_path / "broken"
    whole = align(config, trees, tiny_policy(), reference, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        align(config, trees, tiny_policy(), reference, broken, callbacks=[Stop()])
    resumed = align(config, trees, tiny_policy(), reference, broken)
    assert resumed.metrics == whole.metrics
    for name in (HEADS_FILE, "model.safetensors"):
        assert (resumed.adapter / name).read_bytes() == (whole.adapter / name).read_bytes()
