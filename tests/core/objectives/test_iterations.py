import pytest
import torch
from trillium.errors import DataError
from trillium.objectives.batch import PairLogps
from trillium.objectives.iterations import (
    apo_accelerated,
    curry_dpo,
    extrapolated_policy,
    ofs_dpo,
    ofs_losses,
    rso,
    rso_acceptance,
)
from trillium.objectives.pairwise import dpo


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_curriculum_goes_from_the_widest_gap_to_the_narrowest() -> None:
    pairs = curry_dpo(column(3.0, 9.0, 8.5, 1.0))
    assert [(pair.chosen, pair.rejected, pair.gap) for pair in pairs] == [
        (1, 3, 8.0),
        (1, 0, 6.0),
        (1, 2, 0.5),
    ]
    backwards = curry_dpo(column(3.0, 9.0, 8.5, 1.0), order="hard_to_easy")
    assert backwards == tuple(reversed(pairs))


def test_a_response_rated_like_the_best_makes_no_pair() -> None:
    assert [pair.rejected for pair in curry_dpo(column(5.0, 5.0, 4.0))] == [2]
    assert curry_dpo(column(5.0, 5.0)) == ()


@pytest.mark.parametrize("rating", [float("nan"), float("inf"), -float("inf")])
def test_a_rating_that_is_not_finite_is_refused(rating: float) -> None:
    with pytest.raises(
        DataError, match=r"curry_dpo: the ratings are \[2.0, .*needs finite numbers"
    ):
        curry_dpo(column(2.0, rating, 1.0))


def test_the_best_candidate_is_accepted_at_first_sight() -> None:
    assert rso(column(0.0, 7.0, 1.0), column(0.9, 0.9999, 0.9), n_samples=1) == (1,)


def test_the_largest_reward_is_refreshed_only_between_passes() -> None:
    """Pass 1: 0 needs u < exp(-2), 1 is kept; 2 still needs u < exp(-1). Pass 2 starts from 0."""
    kept = rso(column(-1.0, 0.0, -0.5), column(0.5, 0.5, 0.4, 0.5, 0.99), n_samples=2, beta=0.5)
    assert kept == (1, 2)


def test_equal_candidates_stay_distinct() -> None:
    assert rso(column(1.0, 1.0), column(0.5, 0.5), n_samples=2) == (0, 1)


def test_accepted_candidates_follow_the_tilted_distribution() -> None:
    """A first acceptance is drawn in proportion to exp(reward / beta) over many passes."""
    rewards, draws = column(0.0, 0.35), torch.Generator().manual_seed(0)
    kept = [
        rso(rewards, torch.rand(64, generator=draws), n_samples=1, beta=0.5)[0] for _ in range(4000)
    ]
    accept = rso_acceptance(rewards, beta=0.5)
    # One visit of each per pass, candidate 0 first: it wins with probability accept[0].
    assert sum(index == 0 for index in kept) / 4000 == pytest.approx(accept[0].item(), abs=0.03)


def test_more_samples_than_candidates_are_refused() -> None:
    with pytest.raises(DataError, match="3 samples of 2 candidates"):
        rso(column(1.0, 2.0), column(0.5), n_samples=3)


def test_running_out_of_uniforms_is_refused() -> None:
    with pytest.raises(DataError, match="2 uniforms were used up with 1 of 2 samples kept"):
        rso(column(1.0, -50.0), column(0.5, 0.5), n_samples=2)


def test_extrapolation_by_zero_stays_and_by_one_repeats_the_step() -> None:
    now, before = column(1.0, -2.0), column(0.5, 0.0)
    assert apo_accelerated(now, before, alpha=0.0).tolist() == [1.0, -2.0]
    assert apo_accelerated(now, before, alpha=1.0).tolist() == [1.5, -4.0]


def test_an_extrapolated_policy_is_a_distribution_that_goes_further() -> None:
    before = column(0.5, 0.3, 0.2).log()
    now = column(0.6, 0.3, 0.1).log()
    following = extrapolated_policy(now, before, alpha=0.5).exp()
    assert following.sum().item() == pytest.approx(1.0)
    assert following[0] > 0.6
    assert following[2] < 0.1


FAST = PairLogps(column(-3.0).requires_grad_(), column(-5.0).requires_grad_())
SLOW = PairLogps(column(-3.5).requires_grad_(), column(-4.0).requires_grad_())
REFERENCE = PairLogps(column(-4.0), column(-4.0))


def test_without_chasing_there_are_two_dpo_losses() -> None:
    losses = ofs_losses(FAST, SLOW, REFERENCE, beta=0.3, alpha=0.0)
    assert torch.equal(losses.fast, dpo(FAST, REFERENCE, beta=0.3))
    assert torch.equal(losses.slow, dpo(SLOW, REFERENCE, beta=0.3))


def test_each_adapter_is_trained_by_its_own_loss_alone() -> None:
    losses = ofs_losses(FAST, SLOW, REFERENCE, beta=0.3, alpha=0.5)
    for loss, other in ((losses.fast, SLOW), (losses.slow, FAST)):
        gradients = torch.autograd.grad(
            loss.sum(), [other.chosen, other.rejected], retain_graph=True, materialize_grads=True
        )
        assert not any(gradient.any() for gradient in gradients)
    total = ofs_dpo(FAST, SLOW, REFERENCE, beta=0.3, alpha=0.5)
    torch.testing.assert_close(total, losses.fast + losses.slow)
