import math

import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.pairwise import dpo
from trillium.objectives.targets import flex_dpo, gpo, modpo, sppo


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


POLICY = PairLogps(column(-10.0, -20.0), column(-12.0, -19.0))
REFERENCE = PairLogps(column(-11.0, -22.0), column(-11.5, -18.0))


def test_flex_dpo_with_equal_betas_is_dpo() -> None:
    flexible = flex_dpo(POLICY, REFERENCE, beta_pos=0.3, beta_neg=0.3)
    torch.testing.assert_close(flexible, dpo(POLICY, REFERENCE, beta=0.3), rtol=1e-15, atol=0)


def test_a_smaller_beta_for_rejected_responses_pushes_them_down_less() -> None:
    rejected = POLICY.rejected.clone().requires_grad_()
    chosen = POLICY.chosen.clone().requires_grad_()
    losses = flex_dpo(PairLogps(chosen, rejected), REFERENCE, beta_pos=0.1, beta_neg=0.02)
    down, up = torch.autograd.grad(losses.sum(), [rejected, chosen])
    assert (down / -up).tolist() == pytest.approx([0.2, 0.2])


def test_modpo_without_other_margins_is_dpo_at_a_larger_beta() -> None:
    """With margins of zero a = beta * u / w[0]."""
    nothing = column(0.0, 0.0)
    losses = modpo(
        POLICY, REFERENCE, margin_chosen=nothing, margin_rejected=nothing, w=(0.25, 0.75)
    )
    torch.testing.assert_close(losses, dpo(POLICY, REFERENCE, beta=0.4), rtol=1e-15, atol=0)


def test_modpo_asks_for_less_where_the_other_objective_disagrees() -> None:
    """a_w - a_l = (0.1 * 1.5 - 0.5 * 0.4) / 0.5 = -0.1."""
    losses = modpo(
        POLICY, REFERENCE, margin_chosen=column(0.4, 0.0), margin_rejected=column(0.0, 0.0)
    )
    assert losses[0].item() == pytest.approx(math.log1p(math.exp(0.1)))


def test_modpo_with_a_margin_too_few_is_refused() -> None:
    one = column(0.4, 0.0)
    with pytest.raises(ShapeError, match="1 margins per response for 3 weights"):
        modpo(POLICY, REFERENCE, margin_chosen=one, margin_rejected=one, w=(0.5, 0.25, 0.25))


def test_sppo_is_zero_at_its_targets() -> None:
    """u = (p - 1/2)/beta: 1 = (0.6 - 0.5)/0.1 and -0.5 = (0.45 - 0.5)/0.1."""
    losses = sppo(
        PairLogps(POLICY.chosen[:1], POLICY.rejected[:1]),
        PairLogps(REFERENCE.chosen[:1], REFERENCE.rejected[:1]),
        p_win_chosen=column(0.6),
        p_win_rejected=column(0.45),
        beta=0.1,
    )
    assert losses.item() == pytest.approx(0.0, abs=1e-28)


def test_sppo_sum_is_twice_the_half() -> None:
    win = {"p_win_chosen": column(1.0, 0.7), "p_win_rejected": column(0.0, 0.2)}
    half = sppo(POLICY, REFERENCE, **win)
    torch.testing.assert_close(sppo(POLICY, REFERENCE, **win, reduction="sum"), 2 * half)


def test_gpo_of_centred_win_probabilities_is_sppo() -> None:
    chosen, rejected = column(0.9, 0.7), column(0.1, 0.4)
    general = gpo(
        POLICY, REFERENCE, score_chosen=chosen - 0.5, score_rejected=rejected - 0.5, beta=0.01
    )
    expected = sppo(POLICY, REFERENCE, p_win_chosen=chosen, p_win_rejected=rejected, beta=0.01)
    torch.testing.assert_close(general, expected, rtol=1e-14, atol=0)
