import pytest
import torch
from trillium.errors import ConfigError
from trillium.policies.adapters import adapter_digest, adapter_parameters, add_adapter, save_adapter
from trillium.policies.arithmetic import LowRank, restore_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy


def build(r: int = 4, seed: int = 0):
    policy = add_adapter(tiny_policy(), LoraSettings(r=r), base_name="tiny", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.1, generator=generator)
    return policy


def random_product(seed: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((7, 2), (2, 9))
    return LowRank(*(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes))


def test_low_rank_sums_and_norms_are_those_of_the_matrices() -> None:
    first, second = random_product(0), random_product(1)
    total = first.plus(second, times=-0.5)
    expected = first.left @ first.right - 0.5 * second.left @ second.right
    torch.testing.assert_close(total.left @ total.right, expected)
    assert total.norm() == pytest.approx(torch.linalg.matrix_norm(expected).item())
    assert first.plus(first, times=-1.0).norm() == pytest.approx(0.0, abs=1e-6)


def test_the_left_factor_is_the_closest_one() -> None:
    matrix, right = random_product(0), random_product(1).right
    residual = matrix.left @ matrix.right - matrix.left_for(right) @ right
    torch.testing.assert_close(residual @ right.T, torch.zeros(7, 2, dtype=torch.float64))


def test_a_restored_adapter_is_the_saved_one_and_goes_on_training(tmp_path) -> None:
    policy, other = build(), build(seed=1)
    save_adapter(policy, tmp_path)
    saved = adapter_digest(policy)
    restore_adapter(other, tmp_path)
    assert adapter_digest(other) == saved
    assert all(p.requires_grad for p in adapter_parameters(other).values())
    restore_adapter(other, tmp_path, name="reference")
    assert not any(p.requires_grad for p in adapter_parameters(other, "reference").values())
    assert adapter_digest(other, "reference") == saved


def test_an_adapter_of_another_rank_is_refused(tmp_path) -> None:
    save_adapter(build(r=2), tmp_path)
    with pytest.raises(ConfigError, match="does not fit adapter default"):
        restore_adapter(build(r=4), tmp_path)
