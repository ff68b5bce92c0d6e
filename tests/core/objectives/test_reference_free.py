import math

import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.reference_free import asft, cpo, orpo, simpo

POLICY = PairLogps(
    torch.tensor([-4.0, -30.0], dtype=torch.float64),
    torch.tensor([-10.0, -6.0], dtype=torch.float64),
    torch.tensor([4, 10]),
    torch.tensor([5, 6]),
)


def test_simpo_of_means_minus_one_and_minus_two() -> None:
    """z = 2 * (-1 + 2 - 0.25) = 1.5."""
    assert simpo(POLICY)[0].item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_simpo_at_its_target_margin_costs_ln2() -> None:
    assert simpo(POLICY, gamma_beta_ratio=1.0)[0].item() == pytest.approx(math.log(2))


def test_simpo_hinge_is_zero_one_unit_beyond_the_target() -> None:
    """Means differ by 1 and -2; z = 2 * (1 - 0.25) = 1.5 and 2 * (-2 - 0.25) = -4.5."""
    assert simpo(POLICY, loss_type="hinge").tolist() == pytest.approx([0.0, 5.5])


def test_orpo_of_equal_odds_is_likelihood_plus_lam_ln2() -> None:
    even = PairLogps(POLICY.chosen, POLICY.chosen, POLICY.n_chosen, POLICY.n_chosen)
    expected = [1 + 0.3 * math.log(2), 3 + 0.3 * math.log(2)]
    assert orpo(even, lam=0.3).tolist() == pytest.approx(expected)


def test_orpo_with_even_chances_against_one_in_four() -> None:
    """Odds 1 and 1/3: the ratio is 3, and -log sigmoid(log 3) = log(4/3)."""
    policy = PairLogps(
        torch.tensor([math.log(0.5)]),
        torch.tensor([math.log(0.25)]),
        torch.tensor([1]),
        torch.tensor([1]),
    )
    expected = math.log(2) + 0.1 * math.log(4 / 3)
    assert orpo(policy).item() == pytest.approx(expected, rel=1e-6)


def test_cpo_averages_its_likelihood_over_tokens_not_responses() -> None:
    """Over pairs the likelihood terms average to (4 + 30) / (4 + 10) tokens."""
    likelihood = cpo(POLICY) - cpo(POLICY, alpha=0.0)
    assert likelihood.mean().item() == pytest.approx(34 / 14)


def test_cpo_in_two_halves_equals_cpo_in_one_when_told_the_mean_length() -> None:
    halves = [
        PairLogps(
            POLICY.chosen[i : i + 1],
            POLICY.rejected[i : i + 1],
            POLICY.n_chosen[i : i + 1],
            POLICY.n_rejected[i : i + 1],
        )
        for i in range(2)
    ]
    told = torch.cat([cpo(half, tokens_per_pair=7.0) for half in halves])
    torch.testing.assert_close(told, cpo(POLICY), rtol=1e-15, atol=0)


def test_cpo_without_counts_is_refused() -> None:
    with pytest.raises(ShapeError, match="pass n_chosen or tokens_per_pair"):
        cpo(PairLogps(POLICY.chosen, POLICY.rejected))


def test_asft_is_two_absolute_likelihoods() -> None:
    """-(1 + lam) log p_w - lam log(1 - p_l), with p = exp(-1) and exp(-2)."""
    expected = 1.5 * 1 - 0.5 * math.log(1 - math.exp(-2))
    assert asft(POLICY, lam=0.5)[0].item() == pytest.approx(expected)


def test_asft_has_the_same_value_with_and_without_its_shortcut() -> None:
    nearly = asft(POLICY, lam=0.5, beta=1 + 1e-12)
    torch.testing.assert_close(asft(POLICY, lam=0.5), nearly, rtol=1e-11, atol=0)


def test_asft_still_pulls_at_a_response_of_probability_one() -> None:
    """The gradient tends to -(1 + lam) per token; clamped odds would lose the second part."""
    certain = torch.tensor([0.0], requires_grad=True)
    one = torch.tensor([1])
    losses = asft(PairLogps(certain, torch.tensor([-2.0]), one, one), lam=0.5)
    (gradient,) = torch.autograd.grad(losses.sum(), certain)
    assert gradient.tolist() == [-1.5]


def test_asft_is_an_upper_bound_of_orpo() -> None:
    assert (asft(POLICY, lam=0.4) >= orpo(POLICY, lam=0.4)).all()


def test_orpo_over_sequences_scores_prompts_and_keeps_the_odds_of_responses() -> None:
    """Counts 2 and 6 with prompts: sums -3 and -5 over a mean of 4; the odds do not change."""
    rows = torch.tensor([[-1.0, -2.0], [-2.0, -2.5], [-2.0, -3.0], [-9.0, -9.0]])
    policy = PairLogps(rows[0], rows[1], torch.tensor([1, 4]), torch.tensor([1, 2]))
    prompt = PairLogps(rows[2], rows[3], torch.tensor([1, 2]), torch.tensor([7, 7]))
    odds = orpo(policy, lam=0.7) - orpo(policy, lam=0.0)
    losses = orpo(policy, lam=0.7, nll="sequence", policy_prompt=prompt)
    assert (losses - odds).tolist() == pytest.approx([3 / 4, 5 / 4])
    with pytest.raises(ShapeError, match="the prompts are not scored; pass policy_prompt"):
        orpo(policy, nll="sequence")


def test_orpo_over_a_batch_weighs_every_chosen_token_alike() -> None:
    """Two pairs of 2 and 4 tokens: -(S_1 + S_2) / 6 in place of the mean of S_1/2 and S_2/4."""
    policy = PairLogps(
        torch.tensor([-2.0, -2.0]),
        torch.tensor([-3.0, -9.0]),
        torch.tensor([2, 4]),
        torch.tensor([3, 3]),
    )
    likelihoods = {
        nll: orpo(policy, lam=0.0, nll=nll).mean().item() for nll in ("response", "batch")
    }
    assert likelihoods == pytest.approx({"response": 0.75, "batch": 4 / 6})
    # In row batches the count is that of the whole step.
    whole = orpo(policy, lam=0.0, nll="batch", tokens_per_pair=3.0)
    assert whole.tolist() == pytest.approx([2 / 3, 2 / 3])
