import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo
from trillium.objectives.rollouts import gae, hypo, p3o, rto


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


PAIR = PairLogps(column(-3.0, -4.0), column(-5.0, -4.5))


def test_the_online_term_of_hypo_has_the_gradient_of_the_kl() -> None:
    """For a categorical policy the expected surrogate's gradient is lam * grad KL(pi || ref)."""
    logits = column(0.3, -0.7, 1.1).requires_grad_()
    reference = column(0.2, 0.1, -0.4).log_softmax(0)
    logps = logits.log_softmax(0)
    kl = (logps.exp() * (logps - reference)).sum()
    (expected,) = torch.autograd.grad(kl, logits, retain_graph=True)
    total = torch.zeros(3, dtype=torch.float64)
    for outcome in range(3):
        surrogate = hypo(
            PAIR,
            PAIR,
            policy_sample=logps[outcome].reshape(1, 1),
            reference_sample=reference[outcome].reshape(1, 1),
            lam=1.0,
        ).mean()
        (gradient,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
        total += logps[outcome].exp().detach() * gradient
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-15)


def test_hypo_of_equal_log_ratios_is_dpo_under_leave_one_out() -> None:
    samples = torch.tensor([[-3.0, -7.0, -5.0]], dtype=torch.float64)
    losses = hypo(
        PAIR, PAIR, policy_sample=samples, reference_sample=samples - 2, lam=1.0, rloo=True
    )
    torch.testing.assert_close(losses, dpo(PAIR, PAIR), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_on_policy_the_gradient_is_half_the_reward_difference(variant: str) -> None:
    first = column(-3.0, -8.0).requires_grad_()
    second = column(-4.0, -6.0).requires_grad_()
    losses = p3o(
        first,
        second,
        old_first=first.detach(),
        old_second=second.detach(),
        reward_first=column(1.0, -0.5),
        reward_second=column(0.25, 1.0),
        variant=variant,
    )
    up, down = torch.autograd.grad(losses.sum(), [first, second])
    assert up.tolist() == pytest.approx([-0.375, 0.75])
    assert down.tolist() == pytest.approx([0.375, -0.75])


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("distance", [200.0, 10_000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("is_nearer", [False, True])
def test_p3o_is_finite_far_from_the_old_policy(
    variant: str, distance: float, dtype: torch.dtype, is_nearer: bool
) -> None:
    """The old policy lies between both samples, or further away than either."""
    first = torch.tensor([-1.0, -1.0 - distance], dtype=dtype, requires_grad=True)
    second = torch.tensor([-1.0 - distance, -1.0], dtype=dtype, requires_grad=True)
    old = torch.full((2,), -1.0 - distance * (2.0 if is_nearer else 0.5), dtype=dtype)
    losses = p3o(
        first,
        second,
        old_first=old,
        old_second=old,
        reward_first=torch.tensor([1.0, 1.0], dtype=dtype),
        reward_second=torch.tensor([0.0, 3.0], dtype=dtype),
        variant=variant,
    )
    assert losses.isfinite().all()
    for gradient in torch.autograd.grad(losses.sum(), [first, second]):
        assert gradient.isfinite().all()


def test_rto_pays_the_clamped_sequence_reward_at_the_last_scored_token() -> None:
    scored = torch.tensor([[True, True, False], [False, True, True]])
    zeros = torch.zeros(2, 3, dtype=torch.float64)
    targets = rto(zeros + 10, zeros, zeros, scored=scored, reward=column(2.0, -30.0), values=zeros)
    assert targets.rewards.tolist() == [[0.05, 2.05, 0.0], [0.0, 0.05, -9.95]]


def test_gae_with_lambda_one_is_the_return_minus_the_value() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 0.25, 1.0]], dtype=torch.float64)
    scored = torch.ones(1, 3, dtype=torch.bool)
    targets = gae(rewards, values, scored, gamma=0.5, lam=1.0)
    assert targets.returns.tolist() == [[1.5, 1.0, 2.0]]
    assert targets.advantages.tolist() == [[1.0, 0.75, 1.0]]


def test_gae_with_lambda_zero_is_one_temporal_difference() -> None:
    rewards = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    scored = torch.ones(1, 2, dtype=torch.bool)
    targets = gae(rewards, values, scored, gamma=1.0, lam=0.0)
    assert targets.advantages.tolist() == [[0.75, -0.25]]


def test_gae_skips_tokens_in_the_middle_that_are_not_scored() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 9.0, 1.0]], dtype=torch.float64)
    hole = gae(rewards, values, torch.tensor([[True, False, True]]))
    dense = gae(rewards[:, [0, 2]], values[:, [0, 2]], torch.ones(1, 2, dtype=torch.bool))
    assert hole.advantages[:, [0, 2]].tolist() == dense.advantages.tolist()
    assert hole.advantages[0, 1].item() == 0.0


def test_leaving_out_the_only_sample_is_refused() -> None:
    one = torch.tensor([[-3.0], [-4.0]], dtype=torch.float64)
    with pytest.raises(ShapeError, match="hypo: 1 sample per prompt and rloo subtracts"):
        hypo(PAIR, PAIR, policy_sample=one, reference_sample=one - 1, rloo=True)
