import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen3Config
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.fused import FusedGatedLayer, FusedNorm, fuse_layers
from trillium.policies.load import checkpoint_activations
from trillium.policies.tiny import tiny_policy

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
IDS = torch.arange(4, 68).view(2, 32)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")
    return str(request.param)


def loss_and_gradients(model: nn.Module, device: str) -> tuple[Tensor, Tensor]:
    ids = IDS.to(device)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    gradients = [
        p.grad.flatten() for _, p in sorted(model.named_parameters()) if p.grad is not None
    ]
    return loss.detach(), torch.cat(gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_model_computes_and_learns_as_it_did(device: str, dtype: torch.dtype) -> None:
    plain, fused = (nn.Module.to(tiny_policy(dtype=dtype), device) for _ in range(2))
    assert fuse_layers(fused) == 2 * 3 + 1
    found = [loss_and_gradients(model, device) for model in (plain, fused)]
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found[0][0], found[1][0], atol=tolerance, rtol=tolerance)
    gap = (found[0][1] - found[1][1]).float().norm() / found[0][1].float().norm()
    assert gap < tolerance


def test_weights_keep_their_names_and_take_an_adapter(device: str) -> None:
    plain, fused = tiny_policy(), tiny_policy()
    fuse_layers(fused)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    policies = [
        add_adapter(nn.Module.to(model, device), LoraSettings(), base_name="tiny", seed=0)
        for model in (plain, fused)
    ]
    names = [[n for n, p in policy.named_parameters() if p.requires_grad] for policy in policies]
    assert names[0] == names[1]
    found = [loss_and_gradients(policy, device) for policy in policies]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("is_recomputed", [False, True])
def test_on_a_processor_gated_layers_change_no_bit(
    dtype: torch.dtype, dropout: float, is_recomputed: bool
) -> None:
    """Both sides round silu, product and slopes alike; B is random, so that A learns too."""
    found = []
    for is_fused in (False, True):
        model = tiny_policy(dtype=dtype)
        if is_fused:
            assert fuse_layers(model, norms=False) == 2
        policy = add_adapter(model, LoraSettings(dropout=dropout), base_name="tiny", seed=0)
        generator = torch.Generator().manual_seed(3)
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.1, generator=generator)
        policy.train()
        if is_recomputed:
            checkpoint_activations(policy)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            found.append(loss_and_gradients(policy, "cpu"))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_gated_layer_keeps_gate_and_up_and_no_more() -> None:
    """Autograd keeps four tensors of the inner width: gate, up, silu(gate) and their product."""
    kept = []
    for is_fused in (False, True):
        model = tiny_policy(n_layers=1)
        if is_fused:
            fuse_layers(model, norms=False)
        policy = add_adapter(model, LoraSettings(), base_name="tiny", seed=0)
        layer = policy.get_base_model().model.layers[0].mlp
        places: set[int] = set()
        tensors: list[Tensor] = []

        def note(t: Tensor, places: set[int] = places, tensors: list[Tensor] = tensors) -> Tensor:
            if t.shape[-1] == 64 and t.numel() == 5 * 64:
                places.add(t.untyped_storage().data_ptr())
                # A tensor that lives keeps its address from being given to another.
                tensors.append(t)
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            layer(torch.randn(5, 32, requires_grad=True))
        kept.append(len(places))
    assert kept == [4, 2]


def test_modules_of_another_form_stay() -> None:
    """Gemma's norm scales by 1 + weight and its gate is a gelu; Qwen3 has norms on heads too."""
    small = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    assert fuse_layers(AutoModelForCausalLM.from_config(Gemma2Config(**small))) == 0
    qwen = AutoModelForCausalLM.from_config(Qwen3Config(**small))
    assert fuse_layers(qwen) == 4 + 1 + 1
    assert sum(isinstance(module, FusedNorm) for module in qwen.modules()) == 5
    gelu = LlamaConfig(**small, hidden_act="gelu")
    model = AutoModelForCausalLM.from_config(gelu)
    fuse_layers(model)
    assert not any(isinstance(module, FusedGatedLayer) for module in model.modules())
