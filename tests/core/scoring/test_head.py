from typing import get_args

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.autograd import gradcheck
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig
from trillium.errors import BackendError, ConfigError, ShapeError
from trillium.policies.tiny import tiny_policy
from trillium.scoring.forward import check_head, open_model
from trillium.scoring.head import Head, Statistic, token_statistics

ALL: frozenset[Statistic] = frozenset(get_args(Statistic))
DIFFERENTIABLE: tuple[Statistic, ...] = ("logp", "entropy", "kl_to_reference", "reverse_kl")


def draw(
    n_slots: int = 23, dtype: torch.dtype = torch.float32, *, bias: bool = False
) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    """Draw a head of 16 x 97, hidden states of policy and reference, and targets."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(16, 97, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(n_slots, 16, generator=generator).to(dtype).requires_grad_()
    other = (hidden + 0.3 * torch.randn(n_slots, 16, generator=generator)).detach().to(dtype)
    target = torch.randint(97, (n_slots,), generator=generator)
    return linear, hidden, other, target


def naive(head: Head, hidden: Tensor, target: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Compute every statistic from one full [slot, vocab] tensor of logits."""

    def log_softmax(states: Tensor) -> Tensor:
        logits = head.linear(states).float() * head.scale
        if head.softcap is not None:
            logits = head.softcap * torch.tanh(logits / head.softcap)
        return torch.log_softmax(logits, -1)

    log_p, log_q = log_softmax(hidden), log_softmax(other).detach()
    return {
        "logp": log_p[torch.arange(len(target)), target],
        "entropy": torch.distributions.Categorical(logits=log_p).entropy(),
        "kl_to_reference": nn.functional.kl_div(
            log_p, log_q, reduction="none", log_target=True
        ).sum(-1),
        "reverse_kl": nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1),
        "is_argmax": (log_p.argmax(-1) == target).float(),
    }


@pytest.mark.parametrize("chunk", [1, 7, 23, 256])
@pytest.mark.parametrize(
    ("frozen", "bias", "scale", "softcap"),
    [
        (True, False, 1.0, None),
        (True, False, 0.25, None),
        (False, False, 1.0, None),
        (False, True, 2.0, None),
        (True, False, 1.0, 3.0),
    ],
)
def test_every_statistic_equals_the_full_logits_in_value_and_gradient(
    chunk: int, frozen: bool, bias: bool, scale: float, softcap: float | None
) -> None:
    """T24: a chunked head is the naive head, in values, and in gradients of hidden and weights."""
    linear, hidden, other, target = draw(bias=bias)
    linear.requires_grad_(not frozen)
    head = Head(linear, scale, softcap)
    leaves = [hidden, *(p for p in linear.parameters() if p.requires_grad)]
    expected = naive(head, hidden, target, other)
    for name in DIFFERENTIABLE:
        asked: frozenset[Statistic] = frozenset({name})
        found = token_statistics(
            head, hidden, target, statistics=asked, reference_hidden=other, chunk=chunk
        )
        assert set(found.values) == {name}
        assert found.top is None
        torch.testing.assert_close(found.values[name], expected[name], atol=1e-5, rtol=1e-5)
        weights = torch.linspace(-1, 2, len(target))
        ours = torch.autograd.grad((found.values[name] * weights).sum(), leaves)
        theirs = torch.autograd.grad((expected[name] * weights).sum(), leaves, retain_graph=True)
        for one, other_one in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other_one, atol=2e-5, rtol=1e-4)


def test_all_statistics_at_once_equal_each_alone() -> None:
    linear, hidden, other, target = draw()
    head = Head(linear.requires_grad_(False))
    found = token_statistics(head, hidden, target, statistics=ALL, reference_hidden=other, chunk=5)
    expected = naive(head, hidden, target, other)
    assert set(found.values) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(found.values[name], values, atol=1e-5, rtol=1e-5)
    assert found.top is not None
    best = torch.log_softmax(linear(hidden).detach(), -1).topk(20)
    assert torch.equal(found.top.ids, best.indices)
    torch.testing.assert_close(found.top.logps, best.values)
    assert not found.top.logps.requires_grad


def test_one_pass_rule_passes_gradcheck_in_float64() -> None:
    linear, hidden, _, target = draw(5, torch.float64)
    head = Head(linear.requires_grad_(False), scale=0.7)
    assert gradcheck(lambda h: token_statistics(head, h, target, chunk=2).values["logp"], (hidden,))


def test_bfloat16_head_sums_its_softmax_in_float32() -> None:
    """T11: against float64 arithmetic on the same bfloat16 logits, the error is float32's."""
    linear, hidden, _, target = draw(40, torch.bfloat16)
    head = Head(linear.requires_grad_(False))
    logps = token_statistics(head, hidden, target).values["logp"]
    exact = torch.log_softmax(linear(hidden).double(), -1).gather(-1, target[:, None])[:, 0]
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps.double(), exact, atol=2e-6, rtol=1e-6)
    (slope,) = torch.autograd.grad(logps.sum(), hidden)
    (naive_slope,) = torch.autograd.grad(exact.sum(), hidden)
    assert slope.dtype == torch.bfloat16
    gap = (slope.float() - naive_slope.float()).norm() / naive_slope.float().norm()
    assert gap < 1e-2


def test_extreme_logits_stay_finite() -> None:
    linear, hidden, _, target = draw(4)
    head = Head(linear.requires_grad_(False), scale=1e4)
    logps = token_statistics(head, hidden, target).values["logp"]
    (slope,) = torch.autograd.grad(logps.sum(), hidden)
    assert torch.isfinite(logps).all()
    assert torch.isfinite(slope).all()


def test_no_chunk_of_logits_outlives_its_turn() -> None:
    """What autograd keeps grows with the hidden size, never with the vocabulary."""
    linear, hidden, other, target = draw(200)
    for frozen in (True, False):
        linear.requires_grad_(not frozen)
        kept: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = kept) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            token_statistics(
                Head(linear),
                hidden,
                target,
                statistics=frozenset({"logp"}) if frozen else frozenset(DIFFERENTIABLE),
                reference_hidden=other,
                chunk=50,
            )
        assert max(kept, default=0) < 50 * 97


def test_no_gradient_is_left_behind_under_no_grad() -> None:
    linear, hidden, _, target = draw()
    with torch.no_grad():
        logps = token_statistics(Head(linear), hidden, target).values["logp"]
    assert not logps.requires_grad


def test_no_slot_gives_no_value() -> None:
    linear, hidden, other, target = draw()
    for statistics in (frozenset({"logp"}), ALL):
        found = token_statistics(
            Head(linear.requires_grad_(False)),
            hidden[:0],
            target[:0],
            statistics=statistics,
            reference_hidden=other[:0],
        )
        assert found.values["logp"].shape == (0,)


@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(logit_scale=0.0625, use_qk_norm=False),
        GraniteConfig(logits_scaling=8.0),
        Gemma2Config(final_logit_softcapping=2.0, head_dim=8),
    ],
    ids=["cohere", "granite", "gemma2"],
)
def test_logits_are_scaled_and_capped_as_the_architecture_does(config: object) -> None:
    size = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}
    for name, value in {**size, **heads, "layer_types": None, "eos_token_id": 1}.items():
        setattr(config, name, value)
    if isinstance(config, Gemma2Config):
        config.layer_types = ["full_attention"]
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    parts = open_model(model)
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        theirs = model(input_ids=ids).logits[0]
        ours = parts.head.logits(parts.decoder(input_ids=ids)[0][0])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    check_head(model)


def test_unknown_treatment_of_logits_is_refused() -> None:
    class Doubled(type(tiny_policy())):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, use_cache: bool) -> object:
            output = super().forward(input_ids=input_ids, use_cache=use_cache)
            output.logits = output.logits * 2
            return output

    model = tiny_policy()
    model.__class__ = Doubled
    with pytest.raises(BackendError, match="its logits differ from head"):
        check_head(model)


def test_adapted_head_uses_its_adapter() -> None:
    """LoRA on lm_head: the head is no longer one matrix, and its adapter gets gradients."""
    base = tiny_policy()
    base.config.tie_word_embeddings = False
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    check_head(model)
    parts = open_model(model)
    assert parts.head.frozen_matrix is None
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    values = token_statistics(parts.head, hidden, torch.tensor([5, 6, 7])).values["logp"]
    values.sum().backward()
    adapted = [p for n, p in model.named_parameters() if "lm_head" in n and "lora_" in n]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted)


def test_an_adapted_head_learns_through_the_adapter_and_the_dropout_that_it_was_scored_with() -> (
    None
):
    """The chunk is computed again when "default" is active and the generator has moved on."""
    config = LoraConfig(r=2, target_modules=["lm_head"], lora_dropout=0.5)
    base = tiny_policy()
    base.config.tie_word_embeddings = False
    model = get_peft_model(base, config).train()
    model.add_adapter("second", config)
    linear = open_model(model).head.linear

    def switch(name: str) -> None:
        linear.set_adapter(name)
        for matrix in (*linear.lora_A.parameters(), *linear.lora_B.parameters()):
            matrix.requires_grad_()

    switch("second")
    weights = [linear.lora_A["second"].weight, linear.lora_B["second"].weight]
    for weight in weights:
        nn.init.normal_(weight)
    hidden = torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    target = torch.arange(5, 14)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        logps = token_statistics(Head(linear), hidden, target).values["logp"]
        torch.manual_seed(3)
        plain = torch.log_softmax(linear(hidden), -1).gather(-1, target[:, None])[:, 0]
        expected = torch.autograd.grad(plain.sum(), weights)
        switch("default")
        found = torch.autograd.grad(logps.sum(), weights)
    assert linear.active_adapters == ["default"]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_wrong_requests_are_named() -> None:
    linear, hidden, _, target = draw()
    with pytest.raises(ShapeError, match="needs reference hidden states of shape"):
        token_statistics(Head(linear), hidden, target, statistics=frozenset({"kl_to_reference"}))


def test_model_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no language-model head"):
        open_model(nn.Linear(2, 2))


def test_a_divergence_at_a_temperature_is_that_of_flattened_logits() -> None:
    linear, hidden, other, target = draw(dtype=torch.float64)
    found = token_statistics(
        Head(linear),
        hidden,
        target,
        statistics=frozenset({"logp", "kl_to_reference"}),
        reference_hidden=other,
        kl_temperature=2.0,
        chunk=7,
    ).values
    log_p, log_q = (torch.log_softmax(linear(each) / 2, -1) for each in (hidden, other))
    expected = (log_q.exp() * (log_q - log_p)).sum(-1)
    torch.testing.assert_close(found["kl_to_reference"], expected)
    plain = torch.log_softmax(linear(hidden), -1)[torch.arange(len(target)), target]
    torch.testing.assert_close(found["logp"], plain)
