import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import MambaConfig, MambaForCausalLM
from trillium.errors import ConfigError
from trillium.policies.adapters import (
    adapter_digest,
    adapter_parameters,
    add_adapter,
    copy_adapter,
    has_effect,
    load_adapter,
    load_second_adapter,
    mix_adapter,
    save_adapter,
    using_adapter,
)
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy

IDS = torch.arange(5, 15)[None]


def build(*, seed: int = 0, r: int = 4, base_name: str = "tiny", spread: float = 0.2) -> PeftModel:
    policy = add_adapter(tiny_policy(), LoraSettings(r=r), base_name=base_name, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=spread, generator=generator)
    return policy


def logits(policy: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = policy(input_ids=IDS).logits
    return found


def test_new_adapter_is_float32_and_has_no_effect() -> None:
    policy = add_adapter(
        tiny_policy(dtype=torch.bfloat16), LoraSettings(r=4), base_name="tiny", seed=0
    )
    assert not has_effect(policy)
    assert torch.equal(logits(policy), logits(tiny_policy(dtype=torch.bfloat16)))
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert len(trained) == 28
    assert all(parameter.dtype == torch.float32 for parameter in trained)


def test_seed_decides_the_adapter_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    digests = [
        adapter_digest(add_adapter(tiny_policy(), LoraSettings(), base_name="t", seed=seed))
        for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_saved_adapter_loads_to_the_same_function(tmp_path: Path) -> None:
    policy = build()
    save_adapter(policy, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    loaded = load_adapter(tiny_policy(), tmp_path, base_name="tiny")
    assert torch.equal(logits(loaded), logits(policy))
    assert adapter_digest(loaded) == adapter_digest(policy)
    assert all(parameter.requires_grad for parameter in adapter_parameters(loaded).values())


def test_any_adapter_can_be_saved_alone(tmp_path: Path) -> None:
    policy = build()
    copy_adapter(policy, "default", "snapshot")
    expected = logits(policy)
    for parameter in adapter_parameters(policy).values():
        nn.init.zeros_(parameter)
    save_adapter(policy, tmp_path, name="snapshot")
    loaded = load_adapter(tiny_policy(), tmp_path, base_name="tiny")
    assert torch.equal(logits(loaded), expected)


def test_digest_ignores_the_name_and_sees_every_entry_and_the_scale() -> None:
    policy = build()
    copy_adapter(policy, "default", "other")
    digest = adapter_digest(policy)
    assert adapter_digest(policy, "other") == digest
    with torch.no_grad():
        next(iter(adapter_parameters(policy).values()))[0, 0] += 1e-6
    assert adapter_digest(policy) != digest
    rescaled = add_adapter(tiny_policy(), LoraSettings(r=4, alpha=64), base_name="t", seed=0)
    plain = add_adapter(tiny_policy(), LoraSettings(r=4), base_name="t", seed=0)
    assert adapter_digest(rescaled) != adapter_digest(plain)


def test_copy_is_frozen_and_does_not_follow() -> None:
    policy = build()
    copy_adapter(policy, "default", "snapshot")
    kept = adapter_digest(policy, "snapshot")
    with torch.no_grad():
        for parameter in adapter_parameters(policy).values():
            parameter.add_(1.0)
    assert adapter_digest(policy, "snapshot") == kept
    assert not any(p.requires_grad for p in adapter_parameters(policy, "snapshot").values())
    assert all(p.requires_grad for p in adapter_parameters(policy).values())


def test_moving_average_mixes_entry_by_entry() -> None:
    """T18: target = decay * target + (1 - decay) * source."""
    policy = build()
    copy_adapter(policy, "default", "ema")
    old = {key: value.detach().clone() for key, value in adapter_parameters(policy, "ema").items()}
    with torch.no_grad():
        for parameter in adapter_parameters(policy).values():
            parameter.add_(1.0)
    mix_adapter(policy, "default", "ema", decay=0.75)
    for key, value in adapter_parameters(policy, "ema").items():
        torch.testing.assert_close(value.detach(), old[key] + 0.25)


def test_switching_adapters_changes_nothing_for_good() -> None:
    policy = build()
    copy_adapter(policy, "default", "snapshot")
    with torch.no_grad():
        for parameter in adapter_parameters(policy).values():
            parameter.mul_(2.0)
    before = logits(policy)
    flags = {name: p.requires_grad for name, p in policy.named_parameters()}
    with using_adapter(policy, "snapshot"):
        assert not torch.equal(logits(policy), before)
    with using_adapter(policy, None):
        assert torch.equal(logits(policy), logits(tiny_policy()))
    with pytest.raises(KeyError), using_adapter(policy, None):
        raise KeyError
    assert torch.equal(logits(policy), before)
    assert {name: p.requires_grad for name, p in policy.named_parameters()} == flags
    assert policy.active_adapter == "default"


@pytest.mark.parametrize("outer", [None, "other"])
@pytest.mark.parametrize("inner", [None, "other", "default"])
def test_one_switch_inside_another_leaves_the_outer_one_as_it_was(
    outer: str | None, inner: str | None
) -> None:
    policy = build()
    copy_adapter(policy, "default", "other")
    for name, parameter in policy.named_parameters():
        if "lora_B.other" in name:
            parameter.data.mul_(-1)
    alone = {}
    for name in (None, "other", "default"):
        with using_adapter(policy, name):
            alone[name] = logits(policy)
    flags = [parameter.requires_grad for parameter in policy.parameters()]
    with using_adapter(policy, outer):
        with using_adapter(policy, inner):
            assert torch.equal(logits(policy), alone[inner])
        assert torch.equal(logits(policy), alone[outer])
    assert torch.equal(logits(policy), alone["default"])
    assert [parameter.requires_grad for parameter in policy.parameters()] == flags


def test_second_adapter_costs_no_more_than_itself(tmp_path: Path) -> None:
    """T17: a reference adapter sits on the same base; the base is not copied."""
    save_adapter(build(seed=5), tmp_path)
    policy = build()
    before = sum(p.numel() for p in policy.parameters())
    size = sum(p.numel() for p in adapter_parameters(policy).values())
    load_second_adapter(policy, tmp_path, "reference")
    assert sum(p.numel() for p in policy.parameters()) - before == size
    with using_adapter(policy, "reference"):
        assert torch.equal(logits(policy), logits(build(seed=5)))


def test_adapter_of_another_base_is_refused_by_name(tmp_path: Path) -> None:
    save_adapter(build(base_name="smollm2-135m-instruct"), tmp_path)
    with pytest.raises(ConfigError, match=r"was trained on smollm2-135m-instruct and policy\.base"):
        load_adapter(tiny_policy(), tmp_path, base_name="owner/other")


def test_adapter_of_another_shape_is_refused_in_one_line(tmp_path: Path) -> None:
    save_adapter(build(), tmp_path)
    with pytest.raises(ConfigError, match="does not fit the base tiny") as caught:
        load_adapter(tiny_policy(n_layers=1), tmp_path, base_name="tiny")
    assert "\n" not in str(caught.value)
    (tmp_path / "adapter_config.json").write_text(
        (tmp_path / "adapter_config.json").read_text().replace('"r": 4', '"r": 2')
    )
    with pytest.raises(ConfigError, match="does not fit the base tiny"):
        load_adapter(tiny_policy(), tmp_path, base_name="tiny")


def test_folder_without_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no adapter"):
        load_adapter(tiny_policy(), tmp_path, base_name="tiny")
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"needs adapter_config\.json and adapter_model\.safe"):
        load_adapter(tiny_policy(), tmp_path, base_name="tiny")
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(ConfigError, match="is no PEFT configuration"):
        load_adapter(tiny_policy(), tmp_path, base_name="tiny")


@pytest.mark.parametrize(
    "changes", [{"r": None}, {"r": "x"}, {"r": 0}, {"modules_to_save": ["norm"]}]
)
def test_a_configuration_that_peft_cannot_follow_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    save_adapter(build(), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ConfigError, match=r"does not fit the base tiny .* give the base that"):
        load_adapter(tiny_policy(), tmp_path, base_name="tiny")


def test_layers_that_cannot_be_adapted_are_told_with_those_that_can() -> None:
    """PEFT refuses all-linear on Mamba, and an adapter on dt_proj would never learn."""
    config = MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(ConfigError, match=r"some of its linear layers: in_proj, x_proj$"):
        add_adapter(MambaForCausalLM(config), LoraSettings(), base_name="mamba", seed=0)
    named = LoraSettings(targets=("in_proj", "x_proj"))
    policy = add_adapter(MambaForCausalLM(config), named, base_name="mamba", seed=0)
    policy(input_ids=IDS).logits.logsumexp(-1).sum().backward()
    for name, parameter in adapter_parameters(policy).items():
        assert "lora_B" not in name or parameter.grad.any()
