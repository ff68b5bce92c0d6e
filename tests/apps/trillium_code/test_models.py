from pathlib import Path

import pytest
from trillium.errors import BackendError, ConfigError, DataError
from trillium.generation import SamplingConfig
from trillium.generation.config import ServedPolicyConfig
from trillium.policies.adapters import save_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.training.align import AlignConfig
from trillium.training.config import TrainConfig
from trillium_code.models import Models
from trillium_code.records import CodePair

PAIRS = [
    CodePair("t/0", "t", (5, 6, 7), (8, 9, 2), (10, 11, 2), "good", "bad", 1.0),
    CodePair("t/1", "t", (5, 6, 8), (9, 9, 2), (10, 12, 2), "good", "bad", 1.0),
]
GREEDY = SamplingConfig(n_samples=1, temperature=0.0, max_new_tokens=8)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "cache"))
    tiny_policy(seed=3).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    lora = LoraSettings(r=4, alpha=8)
    return PolicyConfig(base=str(tmp_path / "model"), dtype="float32", lora=lora)


def greedy(generator):
    plan = generator.plan([(5, 6, 7)], n_samples=1, seed=0)
    return generator.generate_batch(plan[0], GREEDY)[0][0].ids


def test_a_prompt_that_leaves_no_room_does_not_fit(config):
    models = Models(config, seed=0, max_rows=4)
    prompts = [(5,) * 10, (5,) * 2000]
    assert models.fitting(prompts, ["a", "b"], max_new_tokens=48) == [True, True]
    assert models.fitting(prompts, ["a", "b"], max_new_tokens=49) == [True, False]
    with pytest.raises(DataError, match=r"task b: its prompt has 2000 tokens .* takes 1999"):
        models.fitting(prompts[1:], ["b"], max_new_tokens=49)
    with pytest.raises(ConfigError, match=r"max_new_tokens = 2048: leaves no room .* reads 2048"):
        models.fitting(prompts, ["a", "b"], max_new_tokens=2048)


def test_the_starting_policy_is_the_base_whatever_was_trained_since(config, tmp_path):
    models = Models(config, seed=0, max_rows=4)
    before = greedy(models.before.open())
    training = TrainConfig(learning_rate=0.05, num_train_epochs=8, per_device_train_batch_size=2)
    result = models.train(
        AlignConfig(train=training), [pair.tree() for pair in PAIRS], tmp_path / "out"
    )
    assert result.n_steps == 8
    assert greedy(models.before.open()) == before
    assert greedy(models.after(result.adapter, "x").open()) != before
    fresh = Models(config, seed=0, max_rows=4).after(result.adapter, "x")
    assert greedy(fresh.open()) == greedy(models.after(result.adapter, "x").open())


def served(url, **changes):
    return ServedPolicyConfig(url=url, model="tiny", n_retries=0, **changes)


def test_a_server_without_adapters_samples_for_training_alone(config):
    own = Models(config, seed=0, max_rows=4)
    models = Models(config, seed=0, max_rows=4, generation=served("http://127.0.0.1:9/v1"))
    assert models.exploring.hash != own.exploring.hash
    assert (models.before.hash, models.after(Path("x"), "x").hash) == (own.before.hash, "x")
    with pytest.raises(BackendError, match="check that it runs"):
        models.exploring.open()
    assert greedy(models.before.open()) == greedy(own.before.open())


def test_later_rounds_explore_here_unless_the_server_loads_adapters(config, tmp_path):
    url = "http://127.0.0.1:9/v1"
    policy = Models(config, seed=0, max_rows=4).policy
    save_adapter(policy.model, tmp_path / "adapter")
    first = Models(config, seed=0, max_rows=4, generation=served(url))
    second = first.after_round(tmp_path / "adapter")
    assert second.exploring.hash == second.identity
    assert greedy(second.exploring.open())
    loading = Models(config, seed=0, max_rows=4, generation=served(url, loads_adapters=True))
    third = loading.after_round(tmp_path / "adapter")
    assert third.exploring.hash == third.before.hash != third.identity
    with pytest.raises(BackendError, match="check that it runs"):
        third.exploring.open()
