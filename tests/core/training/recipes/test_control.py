import pytest
import torch
from safetensors.torch import load_file
from trillium.errors import DataError
from trillium.layouts import collate
from trillium.objectives.recipe_configs import MEETConfig
from trillium.policies.adapters import adapter_digest, load_second_adapter
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.scores import score
from trillium.training.adapter_loop import through_adapter
from trillium.training.recipes.control import ControlConfig, train_control_adapters

CONFIG = ControlConfig(learning_rate=1e-2, num_train_epochs=8, trees_per_step=6)
SUM = MEETConfig(reduction="sum")


@torch.no_grad()
def nll(model, name: str, trees) -> float:
    """Return the mean negative log-likelihood per token under one adapter, in nats."""
    batch = collate(trees, layout="padded", pad_id=0)
    with through_adapter(model, name):
        found = score(model, batch)
    return -(found.logps.sum() / found.lengths.sum()).item()


def split(trees):
    good = [tree for tree in trees if tree.labels["label"][0] == 1.0]
    return good, [tree for tree in trees if tree.labels["label"][0] == 0.0]


def test_each_adapter_writes_its_own_kind(singles, policy, tmp_path):
    """Serving the good adapter gives good responses; the bad one exists to keep the rest out."""
    trees = singles(12)
    good, bad = split(trees)
    model = policy(spread=0.0)
    base, before = (
        fingerprint_base(model),
        (nll(model, "default", good), nll(model, "default", bad)),
    )
    result = train_control_adapters(CONFIG, trees, model, tmp_path)
    assert nll(model, "default", good) < before[0] - 0.5
    assert nll(model, "bad", bad) < before[1] - 0.5
    assert nll(model, "default", good) < nll(model, "bad", good) - 0.5
    assert nll(model, "bad", bad) < nll(model, "default", bad) - 0.5
    assert fingerprint_base(model) == base
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"] - 0.5
    served = policy(seed=9)
    load_second_adapter(served, result.good, "served")
    assert adapter_digest(served, "served") == adapter_digest(model)


def test_no_gradient_crosses_from_one_kind_to_the_other(singles, policy, tmp_path):
    """The good adapter is the same to the bit whatever the bad responses say."""
    trees = singles(12)
    good, bad = split(trees)
    other = [tree for tree in split(singles(60, seed=7))[1] if tree.n_tokens > 12][: len(bad)]
    config = CONFIG.model_copy(update={"objective": SUM, "order": "sequential"})
    found = []
    for number, rows in enumerate((bad, other)):
        model, output = policy(spread=0.0), tmp_path / str(number)
        mixed = [tree for pair in zip(good, [*rows, *rows], strict=False) for tree in pair]
        train_control_adapters(config, mixed, model, output)
        found.append((adapter_digest(model), adapter_digest(model, "bad")))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1]


def test_cutting_a_step_into_rows_changes_no_gradient(singles, policy, tmp_path):
    entries = []
    for micro_tokens in (16, 4096):
        config = CONFIG.model_copy(update={"micro_tokens": micro_tokens, "num_train_epochs": 1})
        output = tmp_path / str(micro_tokens)
        train_control_adapters(config, singles(12), policy(spread=0.0), output)
        entries.append(load_file(output / "good" / "adapter_model.safetensors"))
    for key, value in entries[0].items():
        torch.testing.assert_close(value, entries[1][key], rtol=1e-3, atol=1e-5)


def test_only_labelled_responses_of_both_kinds_will_do(singles, pairs, policy, tmp_path):
    with pytest.raises(DataError, match="meet needs one response"):
        train_control_adapters(CONFIG, pairs(2), policy(), tmp_path)
    with pytest.raises(DataError, match="4 of 4 responses are good"):
        train_control_adapters(CONFIG, split(singles(6))[0], policy(), tmp_path)
