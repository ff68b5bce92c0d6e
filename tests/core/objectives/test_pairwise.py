import math

import pytest
import torch
from trillium.errors import DataError, ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.configs import DPOConfig
from trillium.objectives.evaluate import evaluate
from trillium.objectives.pairwise import dpo, f_prime, fdpo, hinge, ipo, ln_dpo, rdpo, rpo


def pair(chosen: list[float], rejected: list[float], lens: tuple[int, int] = (4, 5)) -> PairLogps:
    n_chosen, n_rejected = (torch.full((len(chosen),), n) for n in lens)
    return PairLogps(
        torch.tensor(chosen, dtype=torch.float64),
        torch.tensor(rejected, dtype=torch.float64),
        n_chosen,
        n_rejected,
    )


POLICY = pair([-10.0, -20.0], [-12.0, -19.0])
REFERENCE = pair([-11.0, -22.0], [-11.5, -18.0])


def test_dpo_of_a_margin_of_one_and_a_half() -> None:
    """u_w = 1 and u_l = -0.5, so z = 0.2 * 1.5 = 0.3 and the loss is log(1 + exp(-0.3))."""
    assert dpo(POLICY, REFERENCE, beta=0.2)[0].item() == pytest.approx(math.log1p(math.exp(-0.3)))


def test_smoothed_dpo_is_least_where_the_odds_are_nine_to_one() -> None:
    """d/dz of -(1-eps) ls(z) - eps ls(-z) is sigmoid(z) - (1-eps): zero at sigmoid(z) = 0.9."""
    best = math.log(0.9 / 0.1)
    z = torch.tensor([best - 0.01, best, best + 0.01], dtype=torch.float64)
    losses = dpo(PairLogps(z, torch.zeros_like(z)), None, beta=1.0, label_smoothing=0.1)
    assert losses.argmin().item() == 1


def test_each_pair_may_have_a_smoothing_of_its_own() -> None:
    """Both margins are 1.5 and 3 at beta 0.2: losses of eps 0 and of eps 0.25 by hand."""
    config = DPOConfig(beta=0.2, smoothing_from="row", label_smoothing=0.4)
    columns = {"label_smoothing": torch.tensor([0.0, 0.25], dtype=torch.float64)}
    losses = evaluate(config, POLICY, REFERENCE, columns=columns)
    flipped = 0.75 * math.log1p(math.exp(-0.6)) + 0.25 * math.log1p(math.exp(0.6))
    assert losses.tolist() == pytest.approx([math.log1p(math.exp(-0.3)), flipped])
    with pytest.raises(DataError, match='column "label_smoothing" is missing'):
        evaluate(config, POLICY, REFERENCE)


def test_ipo_has_its_minimum_of_zero_at_its_target_margin() -> None:
    """With tau = 0.5 the target is 1, and u_w - u_l is 1.5 and 3 here."""
    assert ipo(POLICY, REFERENCE, tau=0.5, normalize="none").tolist() == [0.25, 4.0]
    assert ipo(POLICY, REFERENCE, tau=1 / 3, normalize="none")[0].item() == pytest.approx(0.0)


def test_ipo_by_tokens_divides_each_side_by_its_own_length() -> None:
    """1/4 - (-0.5)/5 = 0.35 against a target of 1/(2 * 0.1) = 5."""
    assert ipo(POLICY, REFERENCE, tau=0.1)[0].item() == pytest.approx(4.65**2)


def test_hinge_is_zero_beyond_a_margin_of_one() -> None:
    assert hinge(POLICY, REFERENCE, beta=1.0).tolist() == [0.0, 0.0]
    assert hinge(POLICY, REFERENCE, beta=0.4).tolist() == pytest.approx([0.4, 0.0])
    assert hinge(POLICY, None, beta=0.1).tolist() == pytest.approx([0.8, 1.1])


def test_rdpo_without_flips_is_dpo() -> None:
    assert torch.equal(rdpo(POLICY, REFERENCE, epsilon=0.0), dpo(POLICY, REFERENCE))


def test_rdpo_is_unbiased_under_its_flip_rate() -> None:
    """(1-eps) rdpo(z) + eps rdpo(-z) is the DPO loss of the clean pair."""
    clean = rdpo(POLICY, REFERENCE, beta=0.7, epsilon=0.2)
    flipped = rdpo(
        PairLogps(POLICY.rejected, POLICY.chosen),
        PairLogps(REFERENCE.rejected, REFERENCE.chosen),
        beta=0.7,
        epsilon=0.2,
    )
    expected = dpo(POLICY, REFERENCE, beta=0.7)
    torch.testing.assert_close(0.8 * clean + 0.2 * flipped, expected, rtol=1e-14, atol=0)


def test_rdpo_goes_below_zero_and_is_not_clamped() -> None:
    far = PairLogps(torch.tensor([200.0]), torch.tensor([0.0]))
    assert rdpo(far, PairLogps(far.rejected, far.rejected), beta=1.0, epsilon=0.2).item() < -60


def test_fdpo_under_reverse_kl_is_dpo() -> None:
    assert torch.equal(fdpo(POLICY, REFERENCE, beta=0.3), dpo(POLICY, REFERENCE, beta=0.3))


def test_alpha_divergence_tends_to_reverse_kl_at_zero_and_forward_kl_at_one() -> None:
    u = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(f_prime(u, "alpha", 1e-9), u, rtol=1e-8, atol=0)
    expected = 1 + f_prime(u, "forward_kl", 0.5)
    torch.testing.assert_close(f_prime(u, "alpha", 1.0), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("divergence", ["forward_kl", "alpha"])
def test_exponents_are_clamped_in_float32_and_exact_in_float64(divergence: str) -> None:
    u = torch.tensor([-200.0])
    alpha = 1.0 if divergence == "forward_kl" else 0.9
    assert f_prime(u, divergence, alpha).item() == pytest.approx(-math.exp(80) / alpha, rel=1e-5)
    exact = -math.exp(200 * alpha) / alpha
    assert f_prime(u.double(), divergence, alpha).item() == pytest.approx(exact, rel=1e-12)


def test_ln_dpo_ignores_a_length_that_only_repeats() -> None:
    """Twice as long at the same log-ratio per token is the same loss."""
    double = [PairLogps(2 * p.chosen, 2 * p.rejected, *_twice(p)) for p in (POLICY, REFERENCE)]
    torch.testing.assert_close(ln_dpo(*double), ln_dpo(POLICY, REFERENCE), rtol=1e-14, atol=0)


def _twice(pair: PairLogps) -> tuple[torch.Tensor, torch.Tensor]:
    assert pair.n_chosen is not None
    assert pair.n_rejected is not None
    return 2 * pair.n_chosen, 2 * pair.n_rejected


def test_rpo_without_its_second_term_is_dpo() -> None:
    assert torch.equal(rpo(POLICY, REFERENCE, beta=0.1, eta=0.0), dpo(POLICY, REFERENCE))


def test_rpo_adds_the_sum_times_beta_or_the_mean() -> None:
    base = dpo(POLICY, REFERENCE, beta=0.5)
    summed = rpo(POLICY, REFERENCE, beta=0.5, eta=0.2) - base
    assert summed.tolist() == pytest.approx([0.2 * 0.5 * 10, 0.2 * 0.5 * 20])
    averaged = rpo(POLICY, REFERENCE, beta=0.5, eta=0.2, sft="mean") - base
    assert averaged.tolist() == pytest.approx([0.2 * 10 / 4, 0.2 * 20 / 4])


def test_batches_of_different_sizes_are_refused() -> None:
    longer = pair([-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0])
    with pytest.raises(ShapeError, match="policy has 2 pairs, reference has 3; both must come"):
        dpo(POLICY, longer)


def test_means_without_counts_are_refused() -> None:
    bare = PairLogps(POLICY.chosen, POLICY.rejected)
    with pytest.raises(ShapeError, match="the counts of scored tokens are missing"):
        ln_dpo(bare, bare)
