import math

import pytest
import torch
from safetensors.torch import load_file
from trillium.errors import DataError
from trillium.layouts import collate
from trillium.policies.adapters import load_second_adapter
from trillium.scoring.reference import BaseReference
from trillium.scoring.scores import score
from trillium.training.adapter_loop import through_adapter
from trillium.training.recipes.domains import DomainsConfig, train_domains
from trillium.training.recipes.fast_slow import FastSlowConfig

CONFIG = DomainsConfig(
    domain=FastSlowConfig(
        fast_learning_rate=4e-3, slow_learning_rate=1e-3, trees_per_step=8, num_train_epochs=8
    ),
    n_memory=4,
    coefficients=(0.0, 0.5, 1.0),
)
SCALING = 2.0  # of the tiny policy's adapter: alpha 8, rank 4


def updates(folder) -> dict[str, torch.Tensor]:
    found = load_file(folder / "adapter_model.safetensors")
    return {
        key: found[key.replace("lora_A", "lora_B")] @ found[key] for key in found if "lora_A" in key
    }


@torch.no_grad()
def dpo_loss(model, folder, trees, name) -> float:
    """Return the mean DPO loss of a saved adapter at beta 0.1."""
    load_second_adapter(model, folder, name)
    batch = collate(trees, layout="padded", pad_id=0)
    with through_adapter(model, name):
        gains = score(model, batch).logps - BaseReference(model).logps(batch)
    z = gains[0::2] - gains[1::2]
    return -torch.nn.functional.logsigmoid(0.1 * z).mean().item()


def flipped(tree):
    """Return the same pair with the other response preferred."""
    return type(tree)(f"{tree.id} flipped", tree.nodes, tree.leaves[::-1])


def test_the_combination_forgets_neither_domain(pairs, policy, tmp_path):
    """Half of the second domain contradicts the first; the last adapter alone forgets it."""
    first = pairs(8)
    second = [flipped(tree) for tree in first[:3]] + pairs(5, seed=11)
    model = policy(spread=0.0)
    steps = train_domains(CONFIG, [first, second], model, BaseReference(model), tmp_path)
    kept = first[3:]
    judge = policy(spread=0.0)
    losses = {
        name: [dpo_loss(judge, folder, trees, name) for trees in (kept, second)]
        for name, folder in (
            ("first", steps[0].combined),
            ("last", steps[1].fast),
            ("combined", steps[1].combined),
        )
    }
    assert losses["combined"][0] < losses["last"][0] - 0.05
    assert losses["combined"][1] < losses["first"][1] - 0.05
    assert sum(losses["combined"]) < min(sum(losses["first"]), sum(losses["last"]))
    assert steps[1].memory_loss < math.log(2)


def test_the_combined_adapter_is_the_weighted_sum_of_the_updates(pairs, policy, tmp_path):
    model = policy(spread=0.0)
    reference = BaseReference(model)
    steps = train_domains(CONFIG, [pairs(8), pairs(8, seed=5)], model, reference, tmp_path)
    assert steps[0].weights == (1.0,)
    weights = torch.tensor(steps[1].weights)
    assert set(steps[1].weights) <= set(CONFIG.coefficients)
    first, second = (updates(step.fast) for step in steps)
    for key, found in updates(steps[1].combined).items():
        expected = weights[0] * first[key] + weights[1] * second[key]
        torch.testing.assert_close(found, SCALING * expected)
    fresh = policy(spread=0.0)
    again = train_domains(CONFIG, [pairs(8), pairs(8, seed=5)], fresh, reference, tmp_path)
    assert again == steps


def test_a_stream_needs_a_domain(policy, tmp_path):
    model = policy()
    with pytest.raises(DataError, match="no domain was given"):
        train_domains(CONFIG, [], model, BaseReference(model), tmp_path)
