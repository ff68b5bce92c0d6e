import pytest
from trillium.errors import ConfigError
from trillium.policies.adapters import add_adapter, save_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.run_policy import RunPolicy
from trillium.policies.tiny import tiny_policy, tiny_tokenizer


@pytest.fixture
def config(tmp_path):
    tiny_policy(seed=3).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    lora = LoraSettings(r=4, alpha=8)
    return PolicyConfig(base=str(tmp_path / "model"), dtype="float32", lora=lora)


def test_a_policy_is_named_by_its_weights(config, tmp_path):
    first = RunPolicy(config, seed=0).identity
    assert RunPolicy(config, seed=1).identity == first
    tiny_policy(seed=4).save_pretrained(tmp_path / "model")
    assert RunPolicy(config, seed=0).identity != first


def test_an_adapter_that_is_not_there_or_not_whole_is_said_at_once(config, tmp_path):
    half = tmp_path / "half"
    save_adapter(add_adapter(tiny_policy(), LoraSettings(), base_name="tiny", seed=0), half)
    (half / "adapter_model.safetensors").unlink()
    for folder in (tmp_path / "nowhere", half):
        with pytest.raises(ConfigError, match=r"holds no adapter .* adapter_model\.safetensors"):
            RunPolicy(config.model_copy(update={"adapter": folder}), seed=0)


@pytest.mark.parametrize("content", ["{}", "{broken"])
def test_a_base_whose_configuration_cannot_be_read_is_one_sentence(config, tmp_path, content):
    (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"model: the model cannot be loaded \("):
        assert RunPolicy(config, seed=0).context_length


def test_name_tokenizer_and_length_cost_no_weights(config):
    policy = RunPolicy(config, seed=0)
    assert policy.context_length == 2048
    assert policy.tokenizer.eos_token_id is not None
    assert policy.identity
    assert "loaded" not in vars(policy)
    assert policy.loaded is policy.loaded
