import pytest
import torch
from torch.nn import functional
from trillium_rec.models.experts import MixtureOfExperts, expert_loads, forget_loads, start_weights


def mixture(n_experts=5, n_active=2, rate=0.0):
    layer = MixtureOfExperts(6, 8, 0.0, n_experts=n_experts, n_active=n_active, balance_rate=rate)
    torch.manual_seed(0)
    start_weights(layer, 0.5)
    start_weights(layer.router, 1.0)
    return layer


def test_each_token_gets_its_best_experts_by_their_own_gates():
    layer, tokens = mixture(), torch.randn(3, 4, 6)
    scores = layer.router(tokens).softmax(dim=-1)
    expected = torch.zeros_like(tokens)
    for row in range(3):
        for column in range(4):
            for expert in scores[row, column].topk(2).indices:
                inner = functional.gelu(tokens[row, column] @ layer.widen[expert])
                expected[row, column] += scores[row, column, expert] * (
                    inner @ layer.narrow[expert]
                )
    assert torch.allclose(layer(tokens), expected, atol=1e-5)


def test_no_token_is_dropped_and_the_load_is_counted():
    layer = mixture()
    layer(torch.randn(7, 6))
    assert int(layer.load.sum()) == 14
    (shares,) = expert_loads(layer)
    assert sum(shares) == pytest.approx(1)
    layer.forget_load()
    assert int(layer.load.sum()) == 0


def test_a_model_forgets_the_loads_of_all_its_mixtures():
    model = torch.nn.Sequential(mixture(), torch.nn.Linear(6, 6), mixture())
    model(torch.randn(7, 6))
    assert [sum(shares) for shares in expert_loads(model)] == pytest.approx([1, 1])
    forget_loads(model)
    assert expert_loads(model) == [[0.0] * 5] * 2


def test_gradients_reach_the_router_and_the_experts_in_use():
    layer = mixture(n_experts=2)
    layer(torch.randn(5, 6)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


def test_the_bias_evens_out_the_load_in_training_and_rests_otherwise():
    layer = mixture(n_experts=4, n_active=1, rate=0.02)
    tokens = torch.randn(400, 6) + 1.0
    before = torch.bincount(layer.router(tokens).argmax(dim=1), minlength=4).max()
    layer.eval()
    layer(tokens)
    assert (layer.bias == 0).all()
    layer.train()
    for _ in range(200):
        layer.forget_load()
        layer(tokens)
    assert layer.load.max() < 130 < before
