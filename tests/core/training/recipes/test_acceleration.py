import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trillium.layouts import collate
from trillium.objectives.configs import DPOConfig
from trillium.objectives.iterations import extrapolated_policy
from trillium.objectives.recipe_configs import APOConfig
from trillium.policies.adapters import adapter_parameters, save_adapter
from trillium.policies.arithmetic import restore_adapter
from trillium.scoring.scores import score
from trillium.training.config import TrainConfig
from trillium.training.recipes.acceleration import Extrapolate, accelerated
from trillium.training.recipes.recipe import Recipe, SameTrees
from trillium.training.rounds import RoundsConfig, run_rounds

RATE = 2e-3
TRAIN = TrainConfig(per_device_train_batch_size=8, learning_rate=RATE, num_train_epochs=3)
CONFIG = RoundsConfig(train=TRAIN)


def entries(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def updates(folder: Path) -> dict[str, torch.Tensor]:
    found = entries(folder)
    return {
        key: found[key.replace("lora_A", "lora_B")].double() @ found[key].double()
        for key in found
        if "lora_A" in key
    }


def norm(tensors) -> float:
    return math.sqrt(sum(tensor.square().sum().item() for tensor in tensors))


@torch.no_grad()
def margin(policy, trees) -> float:
    logps = score(policy, collate(trees, layout="padded", pad_id=3)).logps
    return (logps[0::2] - logps[1::2]).mean().item()


def recipe(trees, n_rounds=2) -> Recipe:
    return Recipe("dpo", n_rounds, SameTrees(tuple(trees)), DPOConfig())


def test_the_first_round_is_not_extrapolated_and_later_ones_are(pairs, policy, tmp_path):
    """update_1' = update_1 + a (update_1 - update_0), up to what the round itself reports lost."""
    model, alpha = policy(spread=0.0), 0.5
    method = accelerated(recipe(pairs(8)), config=APOConfig(alpha=alpha))
    first, second = run_rounds(method, CONFIG, model, tmp_path)
    name = "adapter_model.safetensors"
    assert (first.policy / name).read_bytes() == (first.trained / name).read_bytes()
    assert first.promotion == {}
    before, trained, found = map(updates, (first.trained, second.trained, second.policy))
    gap = [trained[key] + alpha * (trained[key] - before[key]) - found[key] for key in trained]
    step = alpha * norm(trained[key] - before[key] for key in trained)
    assert norm(gap) / step == pytest.approx(second.promotion["lost"], rel=1e-2)
    assert second.promotion["lost"] < 0.1


def test_nothing_is_lost_where_the_right_factor_stands_still(policy, tmp_path):
    model = policy(spread=0.1)
    save_adapter(model, tmp_path / "before")
    with torch.no_grad():
        for key, entry in adapter_parameters(model).items():
            if "lora_B" in key:
                entry.add_(torch.full_like(entry, 0.02))
    save_adapter(model, tmp_path / "trained")
    lost = Extrapolate(APOConfig(alpha=0.3)).promote(model, [tmp_path / "before"])["lost"]
    assert lost < 1e-5
    old, new = entries(tmp_path / "before"), entries(tmp_path / "trained")
    for key, found in adapter_parameters(model).items():
        torch.testing.assert_close(found.data, new[key] + 0.3 * (new[key] - old[key]))


@torch.no_grad()
def test_the_extrapolated_adapter_plays_the_extrapolated_policy(pairs, policy, tmp_path):
    """log pi = (1+a) log pi_1 - a log pi_0, normalised: to first order, parameters do the same."""
    model, alpha = policy(spread=0.0), 0.5
    with torch.enable_grad():
        method = accelerated(recipe(pairs(8)), config=APOConfig(alpha=alpha))
        first, second = run_rounds(method, CONFIG, model, tmp_path)
    ids = torch.tensor([pairs(8)[0].path(0).ids])
    logps = []
    for folder in (first.trained, second.trained, second.policy):
        restore_adapter(model, folder)
        logps.append(model.eval()(input_ids=ids).logits.double().log_softmax(-1))
    expected = extrapolated_policy(logps[1], logps[0], alpha=alpha)
    step = (expected - logps[1]).norm()
    assert (logps[2] - expected).norm() < 0.25 * step


def test_every_round_begins_with_a_fresh_optimizer(pairs, policy, tmp_path):
    """Adam's first step moves every entry by the learning rate; with old moments it would not."""
    train = TRAIN.model_copy(update={"max_steps": 1})
    method = accelerated(recipe(pairs(8), n_rounds=3))
    rounds = run_rounds(method, RoundsConfig(train=train), policy(), tmp_path)
    starts = [tmp_path / "start", rounds[0].policy, rounds[1].policy]
    for start, each in zip(starts, rounds, strict=True):
        old, new = entries(start), entries(each.trained)
        moved = torch.cat([(new[key] - old[key]).abs().flatten() for key in old])
        assert moved.median().item() == pytest.approx(RATE, rel=1e-2)
        assert moved.quantile(0.05).item() == pytest.approx(RATE, rel=1e-2)


def test_acceleration_gets_further_in_the_same_rounds(pairs, policy, tmp_path):
    """Two rounds each: the accelerated policy tells the pairs apart by a wider margin."""
    trees = pairs(8)
    margins = []
    for alpha in (0.0, 0.5):
        model = policy(spread=0.0)
        at_start = margin(model, trees)
        method = accelerated(recipe(trees), config=APOConfig(alpha=alpha))
        run_rounds(method, CONFIG, model, tmp_path / str(alpha))
        margins.append(margin(model, trees) - at_start)
    assert margins[1] > 1.15 * margins[0] > 0
