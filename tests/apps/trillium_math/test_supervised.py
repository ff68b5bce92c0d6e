import json

import pytest
import torch
from trillium.policies.adapters import adapter_digest, save_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.load import load_policy
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.trees import TokenPath
from trillium_math.supervised import SupervisedConfig, fine_tune

pytest.importorskip("trl", reason="the extra trl is not installed")

# Masks with holes and different lengths; nothing scores the first token.
PATHS = [
    TokenPath(
        tuple(10 + (7 * i + j) % 200 for j in range(12 + i)),
        tuple(j > 3 and j % 5 != 0 for j in range(12 + i)),
    )
    for i in range(6)
]
CONFIG = SupervisedConfig(
    learning_rate=1e-2, num_train_epochs=4, per_device_train_batch_size=6, save_steps=1
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_policy(seed=3).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def load(base):
    config = PolicyConfig(base=str(base), dtype="float32", lora=LoraSettings(r=4, alpha=8))
    return load_policy(config, seed=0)


def test_the_loss_is_the_mean_over_exactly_the_scored_tokens(base, tmp_path):
    policy = load(base)
    with torch.no_grad():
        losses = [
            loss
            for path in PATHS
            for loss, is_scored in zip(
                torch.nn.functional.cross_entropy(
                    policy.model(torch.tensor([path.ids])).logits[0, :-1],
                    torch.tensor(path.ids[1:]),
                    reduction="none",
                ).tolist(),
                path.scored[1:],
                strict=True,
            )
            if is_scored
        ]
    counts = fine_tune(PATHS, policy, CONFIG, tmp_path, seed=0, title="test")
    assert counts["first_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert counts["last_loss"] < counts["first_loss"]
    assert (counts["steps"], counts["trajectories"]) == (4, 6)


def test_a_run_continues_from_its_checkpoint_and_ends_in_the_same_adapter(base, tmp_path):
    whole = load(base)
    fine_tune(PATHS, whole, CONFIG, tmp_path / "whole", seed=0, title="test")
    # What a kill after the third step leaves behind.
    broken = tmp_path / "broken"
    again = load(base)
    fine_tune(PATHS, again, CONFIG, broken, seed=0, title="test")
    for name in ("checkpoint-4", "adapter"):
        for path in sorted((broken / name).rglob("*"), reverse=True):
            path.unlink()
        (broken / name).rmdir()
    resumed = load(base)
    fine_tune(PATHS, resumed, CONFIG, broken, seed=0, title="test")
    assert adapter_digest(resumed.model) == adapter_digest(whole.model)
    saved = [folder / "adapter" / "adapter_model.safetensors" for folder in
             (broken, tmp_path / "whole")]  # fmt: skip
    assert saved[0].read_bytes() == saved[1].read_bytes()


def test_a_finished_run_is_only_loaded_and_other_data_start_afresh(base, tmp_path):
    first = load(base)
    fine_tune(PATHS, first, CONFIG, tmp_path, seed=0, title="test")
    again = load(base)
    assert fine_tune(PATHS, again, CONFIG, tmp_path, seed=0, title="test").keys() == {
        "steps",
        "trajectories",
        "tokens",
    }
    assert adapter_digest(again.model) == adapter_digest(first.model)
    other = load(base)
    assert "first_loss" in fine_tune(PATHS[:5], other, CONFIG, tmp_path, seed=0, title="test")
    assert json.loads((tmp_path / "checkpoint-4" / "sealed.json").read_text())["identity"]


def test_what_is_saved_after_it_does_not_show_that_it_ran_in_the_same_process(base, tmp_path):
    """A run killed in between loads the warm-up's adapter instead: same card, same hash."""
    policy = load(base)
    fine_tune(PATHS, policy, CONFIG, tmp_path, seed=0, title="test")
    assert "trl" in (tmp_path / "adapter" / "README.md").read_text()
    save_adapter(policy.model, tmp_path / "later")
    save_adapter(load(base).model, tmp_path / "alone")
    cards = [(tmp_path / name / "README.md").read_text() for name in ("later", "alone")]
    assert cards[0] == cards[1]
