import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from trillium.layouts import collate
from trillium.policies.lora import FastLinear, add_low_rank, use_fast_layers
from trillium.policies.tiny import tiny_policy
from trillium.scoring.scores import score
from trillium.trees import TokenPath, TokenTree

TREE = TokenTree.from_paths(
    "t", [TokenPath((5, 6, 7, *ids), (False,) * 3 + (True,) * 3) for ids in ((8, 9, 2), (9, 9, 2))]
)


def build(*, fast: bool, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> PeftModel:
    config = LoraConfig(r=4, target_modules="all-linear", lora_dropout=dropout)
    if fast:
        use_fast_layers(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = get_peft_model(tiny_policy(dtype=dtype), config)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    return policy


def gradients(policy: PeftModel) -> dict[str, Tensor]:
    policy.zero_grad()
    score(policy, collate([TREE], layout="shared", pad_id=3)).logps.sum().backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def test_every_adapted_layer_is_ours_and_still_pefts() -> None:
    policy = build(fast=True)
    adapted = [module for module in policy.modules() if isinstance(module, PeftLinear)]
    assert len(adapted) == 14
    assert all(type(module) is FastLinear for module in adapted)


def test_float32_results_are_those_of_peft() -> None:
    ours, theirs = gradients(build(fast=True)), gradients(build(fast=False))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4)


def test_bfloat16_results_differ_from_peft_by_rounding_only() -> None:
    """Gradients stay float32 and point the same way as those of float32 activations."""
    ours = gradients(build(fast=True, dtype=torch.bfloat16))
    theirs = gradients(build(fast=False, dtype=torch.bfloat16))
    assert all(gradient.dtype == torch.float32 for gradient in ours.values())
    one, other = (torch.cat([g.flatten() for g in found.values()]) for found in (ours, theirs))
    assert torch.cosine_similarity(one, other, dim=0) > 0.999
    assert (one - other).norm() / other.norm() < 0.03


def test_gradients_are_right_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 6), (2, 3, 5), (2, 5), (6, 2))
    inputs = [
        torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(
        lambda out, x, a, b: add_low_rank(out, x, a, b, 0.7), tuple(inputs)
    )


def test_no_float32_copy_of_activations_is_kept() -> None:
    x = torch.randn(7, 32, dtype=torch.bfloat16, requires_grad=True)
    layer = FastLinear(
        nn.Linear(32, 48, dtype=torch.bfloat16).requires_grad_(False), "default", LoraConfig(), r=4
    )
    kept: list[torch.dtype] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    assert set(kept) == {torch.bfloat16}


def test_disabled_adapter_gives_the_base_bits() -> None:
    policy = build(fast=True)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad(), policy.disable_adapter():
        off = policy(input_ids=ids).logits
    assert torch.equal(off, tiny_policy()(input_ids=ids).logits)
    assert not torch.equal(policy(input_ids=ids).logits, off)


def test_merged_adapter_computes_the_same_function() -> None:
    policy = build(fast=True)
    ids = torch.arange(5, 15)[None]
    expected = policy(input_ids=ids).logits
    merged = copy.deepcopy(policy).merge_and_unload()
    torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_acts_on_the_update_in_training_only(dropout: float) -> None:
    policy = build(fast=True, dropout=dropout)
    ids = torch.arange(5, 15)[None]
    expected = policy.eval()(input_ids=ids).logits
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        trained = policy.train()(input_ids=ids).logits
    assert torch.equal(trained, expected) is (dropout == 0.0)
