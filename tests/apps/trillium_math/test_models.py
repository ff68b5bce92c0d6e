import torch
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy
from trillium_math.models import merge_copy


def test_a_merged_copy_computes_what_the_adapter_does_and_leaves_the_model_alone():
    model = add_adapter(tiny_policy(), LoraSettings(r=4), base_name="tiny", seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        before = model(ids).logits
        merged = merge_copy(model)
        torch.testing.assert_close(merged(ids).logits, before, rtol=1e-4, atol=1e-4)
        assert torch.equal(model(ids).logits, before)
        with model.disable_adapter():
            assert not torch.allclose(model(ids).logits, before, atol=1e-2)
    assert not any("lora" in name for name, _ in merged.named_parameters())
