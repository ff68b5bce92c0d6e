"""The pure functions behind the figures, by value."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trillium.diagnostics import drift, overoptimisation, ranking
from trillium.diagnostics.ches import ches, keep_lowest, normalised_ches
from trillium.errors import ConfigError
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo

NATS = st.floats(-200, 0)


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pair(chosen: float, rejected: float) -> PairLogps:
    return PairLogps(vector(chosen), vector(rejected))


def test_ches_by_hand() -> None:
    # <(1,2),(3,-1)> - |(1,2)|^2 = 1 - 5; per token, with 2 and 4 tokens, 1/8 - 5/4.
    chosen, rejected = vector(1, 2)[None], vector(3, -1)[None]
    assert ches(chosen, rejected).tolist() == [-4.0]
    n_w, n_l = torch.tensor([2]), torch.tensor([4])
    assert normalised_ches(chosen, rejected, n_w, n_l).tolist() == [1 / 8 - 5 / 4]


def test_responses_with_the_same_states_have_ches_zero() -> None:
    same = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert ches(same, same).abs().max() == 0


def test_ches_is_the_first_order_change_of_the_chosen_likelihood() -> None:
    """One token each, so the head alone moves: d ln pi(w) = eta (|h_w|^2 - <h_w, h_l>) (1 - p)...

    A step of DPO on the head's row of each token changes the logit of w at h_w by
    eta |h_w|^2 and, through the row of w that the pair shares when both answers are the same
    token, by -eta <h_w, h_l>: the sum is -eta CHES.
    """
    h_w, h_l = vector(0.5, 1.0), vector(2.0, 1.5)
    row = vector(0.1, -0.2).requires_grad_(True)
    margin = row @ h_w - row @ h_l
    (gradient,) = torch.autograd.grad(margin, row)
    change = float(gradient @ h_w)
    assert change == pytest.approx(-float(ches(h_w[None], h_l[None])[0]))
    assert change < 0, "the chosen answer becomes less likely, as CHES above 0 says"


def test_the_lowest_share_is_kept_in_the_order_of_the_file() -> None:
    scores = vector(3, -1, 0, 7, -1, 2)
    assert keep_lowest(scores, 0.5) == [1, 2, 4]
    assert keep_lowest(scores, 1.0) == list(range(6))
    assert keep_lowest(scores, 0.01) == [1]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="KEEP is"):
        keep_lowest(vector(1, 2), share)


@pytest.mark.property
@given(w=NATS, v=NATS, ref_w=NATS, ref_l=NATS, beta=st.floats(0.01, 1))
def test_a_pair_is_ranked_right_exactly_when_its_loss_is_within_the_bound(
    w: float, v: float, ref_w: float, ref_l: float, beta: float
) -> None:
    if abs(w - v) < 1e-6 or beta * abs(w - v + ref_l - ref_w) > 30:
        return  # at a tie, or where the loss is below the last digit, rounding decides
    policy, reference = pair(w, v), pair(ref_w, ref_l)
    loss, bound = dpo(policy, reference, beta=beta), ranking.loss_bound(reference, beta=beta)
    assert bool(ranking.is_ranked_right(policy)) == bool(loss <= bound)


def test_idealised_accuracy_by_hand() -> None:
    # beta 1, a 0.8: log(0.8/0.2) = 1.386, so a reference behind by 1 is put right and by 2 not.
    reference = PairLogps(vector(-5, -6, -7), vector(-4, -5, -5))
    ideally = ranking.is_ranked_right_ideally(reference, beta=1.0, agreement=0.8)
    assert ideally.tolist() == [True, True, False]
    assert ranking.difficulty(reference).tolist() == [1, 1, 2]
    # Agreement 1 counts as 0.999: log 999 / 0.1 = 69.07 nats.
    assert ranking.is_ranked_right_ideally(pair(-70, -1), beta=0.1).tolist() == [True]
    assert ranking.is_ranked_right_ideally(pair(-71, -1), beta=0.1).tolist() == [False]


def test_equal_likelihoods_count_as_ranked_right() -> None:
    assert ranking.is_ranked_right(pair(-3, -3)).tolist() == [True]


@pytest.mark.parametrize(("beta", "agreement"), [(0.0, 1.0), (-1.0, 1.0), (0.1, 0.0), (0.1, 1.1)])
def test_idealised_accuracy_refuses_what_has_no_meaning(beta: float, agreement: float) -> None:
    with pytest.raises(ConfigError, match="beta above 0"):
        ranking.is_ranked_right_ideally(pair(-1, -1), beta=beta, agreement=agreement)


def test_rank_correlation_by_hand() -> None:
    # Ranks 1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 * 5).
    found = ranking.rank_correlation(vector(0, 5, 5, 9), vector(1, 2, 3, 4))
    assert found == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert ranking.rank_correlation(vector(1, 2, 3), vector(9, 4, 1)) == pytest.approx(-1)
    assert math.isnan(ranking.rank_correlation(vector(1, 1), vector(1, 2)))


def test_displacement_by_hand() -> None:
    policy = PairLogps(vector(-12, -8, -11), vector(-15, -9, -5))
    reference = PairLogps(vector(-10, -10, -10), vector(-10, -10, -10))
    found = drift.displacement(policy, reference)
    assert found.chosen == pytest.approx((-2 + 2 - 1) / 3)
    assert found.rejected == pytest.approx((-5 + 1 + 5) / 3)
    assert found.chosen_fell == pytest.approx(2 / 3)
    assert found.both_fell == pytest.approx(1 / 3)


def test_the_gradient_ratio_is_that_of_autograd() -> None:
    p_w = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    p_l = torch.tensor([0.02], dtype=torch.float64, requires_grad=True)
    policy = PairLogps(p_w.log(), p_l.log())
    loss = dpo(policy, pair(-1.0, -2.0), beta=0.1).sum()
    by_w, by_l = torch.autograd.grad(loss, [p_w, p_l])
    expected = math.log(abs(float(by_l)) / abs(float(by_w)))
    detached = PairLogps(policy.chosen.detach(), policy.rejected.detach())
    assert float(drift.gradient_log_ratio(detached)) == pytest.approx(expected)


def test_the_weight_of_a_pair_is_a_half_at_the_start_and_the_gradient_of_the_loss() -> None:
    reference = pair(-7.0, -3.0)
    assert drift.pair_weight(reference, reference, beta=0.3).tolist() == [0.5]
    chosen = vector(-2.0).requires_grad_(True)
    policy = PairLogps(chosen, vector(-9.0))
    dpo(policy, reference, beta=0.3).sum().backward()
    assert chosen.grad is not None
    detached = PairLogps(chosen.detach(), policy.rejected)
    weight = float(drift.pair_weight(detached, reference, beta=0.3))
    assert float(chosen.grad) == pytest.approx(-0.3 * weight)


def test_coverage_by_hand() -> None:
    logps, fixed = vector(-10, -20), vector(-12, -60)
    found = drift.coverage(logps, fixed, vector(4, 10), vector(-2.0, -4.0, -3.0))
    assert found.kl == pytest.approx((2 + 40) / 2)
    assert found.top == pytest.approx(2 + 0.99 * 38)
    # The floor is the 1 % quantile of the data, -3.98: -12/4 is inside, -60/10 outside.
    assert found.outside == 0.5
    assert drift.largest_optimal_logratio(0.1) == pytest.approx(10)


def test_entropy_and_mass_by_hand() -> None:
    # Twenty tokens, of which ten count: 0.5 and 0.25 and eight of 1/64, the rest of the mass below.
    p = vector(0.5, 0.25, *[1 / 64] * 16)[None]
    expected = 0.5 * 1 + 0.25 * 2 + 8 / 64 * 6
    assert overoptimisation.top_k_entropy(p.log()) == pytest.approx(expected)
    assert overoptimisation.top_k_mass(p.log()) == pytest.approx(0.75 + 8 / 64)
    certain = torch.full((1, 10), -math.inf, dtype=torch.float64)
    certain[0, 0] = 0.0
    assert overoptimisation.top_k_entropy(certain) == 0.0


def test_distinct_n_is_one_where_chance_repeats_as_much() -> None:
    # One gram of each length: expected V (1 - (1 - 1/V)) = 1 of each.
    assert overoptimisation.distinct_n([(4, 5, 6, 7, 8)], n_vocab=10, longest=1) == pytest.approx(
        5 / (10 * (1 - 0.9**5))
    )
    assert overoptimisation.distinct_n([(4, 4, 4)], n_vocab=10, longest=2) == pytest.approx(
        (1 / (10 * (1 - 0.9**3)) + 1 / (10 * (1 - 0.9**2))) / 2
    )
    assert overoptimisation.distinct_n([(), ()], n_vocab=10) == 0.0


def test_entropy_must_fall_before_its_rise_is_a_sign() -> None:
    turned = overoptimisation.has_turned_up
    assert turned([2.0, 1.5, 1.0, 1.2, 1.3])
    assert not turned([2.0, 1.5, 1.0, 1.2, 1.04]), "the rise must last"
    assert not turned([1.0, 1.0, 1.2, 1.3]), "it never fell"
    assert not turned([2.0, 1.9]), "too early to say"
    assert not turned([2.0, 1.5, 1.0, 0.8, 0.7])


def test_mass_must_stay_below_its_highest() -> None:
    fallen = overoptimisation.has_fallen
    assert fallen([0.9, 0.95, 0.8, 0.7])
    assert not fallen([0.9, 0.95, 0.8, 0.94])
    assert not fallen([0.8, 0.7])


def test_hinge_losses_are_judged_by_mass_and_others_by_entropy() -> None:
    entropies, masses = [2.0, 1.5, 1.0, 1.2, 1.3], [0.9] * 5
    assert overoptimisation.is_overoptimised("dpo", entropies, masses)
    assert not overoptimisation.is_overoptimised("hinge", entropies, masses)
    assert overoptimisation.is_overoptimised("slic", [1.0] * 5, [0.9, 0.95, 0.9, 0.8, 0.7])
