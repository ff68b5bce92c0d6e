import math

import pytest
import torch
from trillium.objectives.numerics import log1mexp, log_odds, one_minus_exp


def test_log1mexp_is_exact_at_both_ends() -> None:
    x = torch.tensor([-1e-20, -1e-9, -math.log(2), -40.0, -800.0], dtype=torch.float64)
    expected = [
        math.log(1e-20),
        math.log(1e-9) - 0.5e-9,
        -math.log(2),
        -math.exp(-40.0),
        0.0,
    ]
    assert log1mexp(x).tolist() == pytest.approx(expected, rel=1e-15, abs=0)


def test_log1mexp_has_the_gradient_of_minus_one_over_expm1() -> None:
    x = torch.tensor([-1e-9, -0.5, -0.8, -5.0, -300.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(log1mexp(x).sum(), x)
    assert gradient.tolist() == pytest.approx(
        [1 / math.expm1(value) * math.exp(value) for value in x.tolist()], rel=1e-14, abs=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1mexp_of_a_certain_token_is_finite_and_has_no_gradient(dtype: torch.dtype) -> None:
    x = torch.zeros(1, dtype=dtype, requires_grad=True)
    value = log1mexp(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.item() == pytest.approx(math.log(torch.finfo(dtype).tiny), rel=1e-6)
    assert gradient.item() == 0.0


def test_log_odds_of_even_chances_is_zero() -> None:
    assert log_odds(torch.tensor([math.log(0.5)], dtype=torch.float64)).item() == pytest.approx(0.0)


def test_one_minus_exp_keeps_tiny_values_and_tiny_gradients() -> None:
    x = torch.tensor([-1e-18, 3.0, -100.0], dtype=torch.float64, requires_grad=True)
    value = one_minus_exp(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.tolist() == pytest.approx([1e-18, -math.expm1(3.0), 1.0], rel=1e-15, abs=0)
    assert gradient.tolist() == pytest.approx(
        [-1.0, -math.exp(3.0), -math.exp(-100)], rel=1e-14, abs=0
    )
