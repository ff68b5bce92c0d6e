import math

import pytest
import torch
from trillium.objectives.ppo import ppo_policy, ppo_value, whiten

ALL = torch.ones(1, 3, dtype=torch.bool)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_on_fresh_samples_the_gradient_is_minus_the_advantage() -> None:
    policy = row(-1.0, -2.0, -0.5).requires_grad_()
    loss = ppo_policy(policy, old=policy.detach(), advantages=row(3.0, -6.0, 0.0), scored=ALL)
    assert loss.item() == pytest.approx(1.0)
    (gradient,) = torch.autograd.grad(loss, policy)
    assert gradient.tolist() == [pytest.approx([-1.0, 2.0, 0.0])]


def test_a_ratio_that_went_far_enough_has_no_gradient_and_one_that_went_astray_has() -> None:
    """q = 1.5, 0.5, 1.5 with advantages 1, -1, -1 and clip 0.2: min(A q, A clip(q))."""
    old = row(-1.0, -1.0, -1.0)
    policy = (old + row(math.log(1.5), math.log(0.5), math.log(1.5))).requires_grad_()
    loss = ppo_policy(policy, old=old, advantages=row(1.0, -1.0, -1.0), scored=ALL, clip=0.2)
    assert loss.item() == pytest.approx(-(1.2 - 0.8 - 1.5) / 3)
    (gradient,) = torch.autograd.grad(loss, policy)
    assert gradient.tolist() == [pytest.approx([0.0, 0.0, 0.5])]


def test_the_value_loss_takes_the_worse_of_the_value_and_the_clipped_one() -> None:
    """V = 1, 1, 0 from old 0, returns 1, 3, 0 and clip 0.2: clipped to 0.2, 0.2, 0."""
    values = row(1.0, 1.0, 0.0).requires_grad_()
    loss = ppo_value(
        values, old=row(0.0, 0.0, 0.0), returns=row(1.0, 3.0, 0.0), scored=ALL, clip=0.2
    )
    assert loss.item() == pytest.approx((0.8**2 + 2.8**2 + 0.0) / 6)
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient.tolist() == [pytest.approx([0.0, 0.0, 0.0])]


def test_tokens_that_are_not_scored_do_not_count() -> None:
    scored = torch.tensor([[True, False, True]])
    arguments = {"old": row(-1.0, -9.0, -1.0), "advantages": row(1.0, 7.0, 2.0)}
    loss = ppo_policy(row(-1.0, -1.0, -1.0), **arguments, scored=scored)
    assert loss.item() == pytest.approx(-1.5)


@pytest.mark.parametrize("distance", [200.0, 10_000.0])
def test_losses_are_finite_in_float32_far_from_the_old_policy(distance: float) -> None:
    old = torch.tensor([[-1.0 - distance, -1.0, -1.0]])
    policy = torch.tensor([[-1.0, -1.0 - distance, -1.0]], requires_grad=True)
    advantages = torch.tensor([[-1.0, 1.0, 1.0]])
    loss = ppo_policy(policy, old=old, advantages=advantages, scored=ALL)
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), policy)[0].isfinite().all()


def test_whitened_advantages_have_mean_0_and_variance_1() -> None:
    found = whiten(torch.tensor([1.0, 2.0, 3.0, 10.0]))
    assert found.mean().item() == pytest.approx(0.0, abs=1e-7)
    assert found.square().mean().item() == pytest.approx(1.0)
    assert found.argsort().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, 1e-30])
def test_equal_advantages_are_no_advantage(value: float) -> None:
    assert whiten(torch.full((7,), value)).abs().max().item() < 1e-6
