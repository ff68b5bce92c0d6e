import pytest
from trillium.errors import ConfigError, DataError
from trillium.generation import SamplingConfig
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


def test_a_prompt_that_leaves_no_room_names_the_task(config):
    models = Models(config, seed=0, max_rows=4)
    assert models.context_length == 2048
    prompts = [(5,) * 10, (5,) * 2000]
    assert models.checked(prompts, ["a", "b"], max_new_tokens=48) == prompts
    with pytest.raises(DataError, match=r"task b: its prompt has 2000 tokens .* takes 1999"):
        models.checked(prompts, ["a", "b"], max_new_tokens=49)
    with pytest.raises(ConfigError, match=r"max_new_tokens = 2048: leaves no room .* reads 2048"):
        models.checked(prompts, ["a", "b"], max_new_tokens=2048)


def test_the_starting_policy_is_the_base_whatever_was_trained_since(config, tmp_path):
    models = Models(config, seed=0, max_rows=4)
    before = greedy(models.before())
    training = TrainConfig(learning_rate=0.05, num_train_epochs=8, per_device_train_batch_size=2)
    result = models.train(
        AlignConfig(train=training), [pair.tree() for pair in PAIRS], tmp_path / "out"
    )
    assert result.n_steps == 8
    assert greedy(models.before()) == before
    assert greedy(models.after(result.adapter)) != before
    assert greedy(Models(config, seed=0, max_rows=4).after(result.adapter)) == greedy(
        models.after(result.adapter)
    )


def test_a_policy_is_named_by_its_weights(config, tmp_path):
    first = Models(config, seed=0, max_rows=4).identity
    assert Models(config, seed=1, max_rows=8).identity == first
    tiny_policy(seed=4).save_pretrained(tmp_path / "model")
    assert Models(config, seed=0, max_rows=4).identity != first
