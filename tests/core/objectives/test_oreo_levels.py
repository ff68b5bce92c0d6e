"""OREO over tokens, steps and whole responses: one formula over what counts as a state."""

import pytest
import torch
from trillium.objectives.recipe_configs import OREOConfig
from trillium.objectives.table import needs_of
from trillium.objectives.tokens import oreo, oreo_losses

SCORED = torch.tensor([[True, True, True, True], [True, True, True, False]])
STEPS = torch.tensor([[True, False, True, False], [True, False, False, False]])
REWARD = torch.tensor([1.0, 0.0], dtype=torch.float64)


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return -torch.rand(2, 4, generator=generator, dtype=torch.float64)


def losses(policy, values, **options):
    fixed = {"scored": SCORED, "reward": REWARD, "beta": 0.5}
    return oreo_losses(policy, draw(1), values=values, **fixed, **options)


def test_a_step_is_the_sum_of_its_tokens_and_is_valued_at_its_first():
    """Two steps u_1, u_2 of row 0: value = ((b(u1+u2)+V1-R)^2 + (b u2+V2-R)^2)/2; row 1 is one."""
    policy, values = draw(0), draw(2)
    found = losses(policy, values, starts=STEPS)
    u = policy - draw(1)
    one, two = u[0, :2].sum(), u[0, 2:].sum()
    first = (0.5 * (one + two) + values[0, 0] - 1) ** 2
    second = (0.5 * two + values[0, 2] - 1) ** 2
    whole = (0.5 * u[1, :3].sum() + values[1, 0]) ** 2
    expected = torch.stack([(first + second) / 2, whole])
    torch.testing.assert_close(found.value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.policy, expected, rtol=1e-12, atol=0)


def test_the_tokens_of_a_step_learn_together_and_later_steps_stand_still():
    """d policy / d logp of a token is beta * residual of its own step, over the number of steps."""
    policy = draw(0).requires_grad_()
    values = draw(2)
    found = losses(policy, values, starts=STEPS)
    (gradient,) = torch.autograd.grad(found.policy[0], policy)
    u = (policy - draw(1)).detach()
    one, two = u[0, :2].sum(), u[0, 2:].sum()
    first, second = 0.5 * (one + two) + values[0, 0] - 1, 0.5 * two + values[0, 2] - 1
    expected = torch.stack([first, first, second, second]) * 2 * 0.5 / 2
    torch.testing.assert_close(gradient[0], expected, rtol=1e-12, atol=0)
    assert not gradient[1].any()


def test_every_token_a_step_is_the_token_level_to_the_bit():
    policy, values = draw(0), draw(2)
    plain, stepped = losses(policy, values), losses(policy, values, starts=SCORED)
    assert torch.equal(plain.value, stepped.value)
    assert torch.equal(plain.policy, stepped.policy)


def test_at_response_level_all_tokens_share_one_gradient():
    policy = draw(0).requires_grad_()
    first = torch.zeros_like(SCORED)
    first[:, 0] = True
    found = losses(policy, draw(2), starts=first)
    (gradient,) = torch.autograd.grad(found.policy.sum(), policy)
    assert (gradient[0] == gradient[0, 0]).all()
    assert (gradient[1, :3] == gradient[1, 0]).all()
    assert gradient[1, 3] == 0


def test_values_that_begin_no_step_are_not_read():
    policy, values = draw(0), draw(2)
    changed = torch.where(STEPS, values, 1e6)
    for name in ("value", "policy"):
        one, other = (getattr(losses(policy, v, starts=STEPS), name) for v in (values, changed))
        assert torch.equal(one, other)


def test_the_loss_is_both_sides_together():
    policy, values = draw(0), draw(2)
    both = losses(policy, values, starts=STEPS)
    given = {"values": values, "scored": SCORED, "reward": REWARD, "starts": STEPS}
    total = oreo(policy, draw(1), beta=0.5, alpha=0.0, **given)
    assert torch.equal(total, both.value + both.policy)
    held = oreo(policy, draw(1), beta=0.5, alpha=2.0, reverse_kl=draw(3).abs(), **given)
    mean = torch.stack([draw(3).abs()[0].mean(), draw(3).abs()[1, :3].mean()])
    torch.testing.assert_close(held - total, 2 * mean, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("options", "computed"),
    [
        ({}, {"values", "scored", "reverse_kl"}),
        ({"alpha": 0}, {"values", "scored"}),
        ({"level": "step"}, {"values", "scored", "starts", "reverse_kl"}),
        ({"level": "response", "alpha": 0}, {"values", "scored", "starts"}),
    ],
)
def test_only_what_the_level_reads_is_computed(options, computed):
    assert set(needs_of(OREOConfig(**options)).computed) == computed
