"""Engines against one another: the same policy, base and adapter, wherever it is sampled from."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trillium.errors import BackendError, ConfigError
from trillium.generation import SamplingConfig
from trillium.generation.config import RayConfig, ServedPolicyConfig, TransformersConfig, VllmConfig
from trillium.generation.engines import ServerEngine, TransformersEngine, open_engine
from trillium.policies.adapters import adapter_parameters, save_adapter
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.policies.load import load_policy
from trillium.policies.run_policy import RunPolicy
from trillium.policies.tiny import tiny_policy, tiny_tokenizer

_spec = importlib.util.spec_from_file_location(
    "openai_server", Path(__file__).parents[2] / "openai_server.py"
)
openai_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openai_server)

PROMPTS = [(10, 20, 30), (40, 50)]
GREEDY = SamplingConfig(n_samples=1, temperature=0.0, max_new_tokens=8)


@pytest.fixture
def config(tmp_path):
    tiny_policy(seed=3).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    lora = LoraSettings(r=4, alpha=8)
    return PolicyConfig(base=str(tmp_path / "model"), dtype="float32", lora=lora)


@pytest.fixture
def adapter(config, tmp_path):
    return save_noisy_adapter(config, tmp_path / "adapter")


def save_noisy_adapter(config, folder, *, seed=0):
    """Save an adapter that changes what the base would say, and return its folder."""
    policy = load_policy(config)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in adapter_parameters(policy.model, "default").values():
            values.add_(torch.randn(values.shape, generator=noise) * 0.5)
    save_adapter(policy.model, folder)
    return folder


def greedy(generator):
    plan = generator.plan(PROMPTS, n_samples=1, seed=0)
    return [[one.ids for one in group] for group in generator.generate_batch(plan[0], GREEDY)]


def test_a_server_samples_from_the_base_and_from_adapters_by_their_folder(
    config, adapter, tmp_path
):
    here = TransformersEngine(RunPolicy(config, seed=0), max_rows=4)
    served = load_policy(config)
    with openai_server.serving(served.model, served.tokenizer) as server:
        asked = ServedPolicyConfig(url=server.url, model="tiny", loads_adapters=True)
        there = open_engine(asked, None, RunPolicy(config, seed=0), max_rows=4)
        assert isinstance(there, ServerEngine)
        assert there.samples_adapters
        assert greedy(there.start()) == greedy(here.start())
        assert greedy(there.trained(adapter)) == greedy(here.trained(adapter))
        assert greedy(here.trained(adapter)) != greedy(here.start())
        n_requests = len(server.requests)
        there.trained(adapter)  # is loaded already
        assert len(server.requests) == n_requests
        there.trained(save_noisy_adapter(config, tmp_path / "next", seed=1))
        assert len(server.adapters) == 1
        there.close()
        assert server.adapters == {}
        there.trained(adapter)
        # A run that was killed leaves it there; the next start takes it for its own.
        resumed = open_engine(asked, None, RunPolicy(config, seed=0), max_rows=4)
        resumed.trained(adapter)
        resumed.close()
        assert server.adapters == {}
        there.trained(adapter)
    there.close()  # the server is gone, and says so to nobody


def test_an_adapter_that_takes_the_place_of_another_brings_its_own_scale(config, adapter, tmp_path):
    louder = config.model_copy(update={"lora": LoraSettings(r=2, alpha=64)})
    other = save_noisy_adapter(louder, tmp_path / "louder")
    engine = TransformersEngine(RunPolicy(config, seed=0), max_rows=4)
    first, second = (greedy(engine.trained(each)) for each in (adapter, other))
    alone = TransformersEngine(RunPolicy(config, seed=0), max_rows=4)
    assert second == greedy(alone.trained(other)) != first


def test_the_name_of_a_server_is_what_its_samples_depend_on(config):
    def identity(**changes):
        asked = {"url": "http://one/v1", "model": "tiny", **changes}
        return ServerEngine(ServedPolicyConfig(**asked), RunPolicy(config, seed=0)).identity

    assert identity(url="http://two/v1", timeout_s=1, n_retries=0) == identity()
    assert identity(model="other") != identity()
    assert identity(returns_token_ids=False) != identity(returns_token_ids=True) == identity()


def test_a_server_that_is_not_there_is_said_before_anything_is_loaded(config):
    policy = RunPolicy(config, seed=0)
    asked = ServedPolicyConfig(url="http://127.0.0.1:9/v1", model="tiny")
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9/v1: .* check that it runs"):
        open_engine(asked, None, policy, max_rows=4).start()
    assert "loaded" not in vars(policy)


def test_vllm_that_is_not_installed_is_one_sentence(config):
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed")
    with pytest.raises(ConfigError, match=r"vLLM is not installed; install it .*=server"):
        open_engine(VllmConfig(), None, RunPolicy(config, seed=0), max_rows=4)


def test_actors_do_not_run_vllm(config):
    with pytest.raises(ConfigError, match=r"set ray\.n_samplers=0"):
        open_engine(VllmConfig(), RayConfig(), RunPolicy(config, seed=0), max_rows=4)


def test_a_cluster_that_only_executes_samples_here(config):
    ray = RayConfig(n_samplers=0)
    engine = open_engine(TransformersConfig(), ray, RunPolicy(config, seed=0), max_rows=4)
    assert isinstance(engine, TransformersEngine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # vLLM's own: it warns of what torch will drop
def test_vllm_samples_from_base_and_adapter_as_transformers_does(tmp_path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    tokenizer = tiny_tokenizer()
    # vLLM's attention on processors has no heads smaller than 32.
    shape = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **heads))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    lora = LoraSettings(r=8, alpha=16)
    config = PolicyConfig(base=str(tmp_path / "model"), dtype="float32", lora=lora)
    adapter = save_noisy_adapter(config, tmp_path / "adapter")
    here = TransformersEngine(RunPolicy(config, seed=0), max_rows=4)
    vllm = VllmConfig(max_length=64, is_eager=True)
    there = open_engine(vllm, None, RunPolicy(config, seed=0), max_rows=4)
    assert greedy(there.start()) == greedy(here.start())
    assert greedy(there.trained(adapter)) == greedy(here.trained(adapter)) != greedy(here.start())
    there.close()


def test_larger_batches_are_planned_and_told_by_the_identity(config):
    policy = RunPolicy(config, seed=0)
    plain, larger = (
        open_engine(TransformersConfig(batch_rows=rows), None, policy, max_rows=2)
        for rows in (None, 6)
    )
    assert (plain.identity, bool(larger.identity)) == ("", True)
    plans = [engine.start().plan(PROMPTS, n_samples=3, seed=0) for engine in (plain, larger)]
    assert [len(plan) for plan in plans] == [4, 1]
    (whole,) = plans[1]
    drawn = [engine.start().generate_batch(whole, GREEDY) for engine in (plain, larger)]
    assert [[len(group) for group in groups] for groups in drawn] == [[3, 3], [3, 3]]
