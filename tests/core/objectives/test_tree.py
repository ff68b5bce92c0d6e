import math

import pytest
import torch
from trillium.objectives.batch import ListLogps, ListSteps
from trillium.objectives.listwise import lipo
from trillium.objectives.tree import tree_tpo

GROUP = torch.tensor([0, 0, 0])
LABEL = torch.tensor([0.9, 0.4, -0.2], dtype=torch.float64)
POLICY = torch.tensor([[-1.0, -2.0], [-1.5, -0.5], [-3.0, -1.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-2.0, -2.5], [-1.0, -1.0], [-2.0, -1.5]], dtype=torch.float64)
ONES = torch.ones_like(POLICY)


def test_with_equal_weights_it_is_lipo_on_sums_of_steps() -> None:
    losses = tree_tpo(
        ListSteps(POLICY, GROUP), ListSteps(REFERENCE, GROUP), label=LABEL, step_weight=ONES
    )
    expected = lipo(
        ListLogps(POLICY.sum(-1), GROUP),
        ListLogps(REFERENCE.sum(-1), GROUP),
        label=LABEL,
        beta=0.5,
    )
    torch.testing.assert_close(losses, expected, rtol=1e-14, atol=0)


def test_a_step_of_weight_zero_is_padding() -> None:
    padded = torch.cat([POLICY, torch.full((3, 1), -7.0, dtype=torch.float64)], dim=1)
    zero = torch.zeros(3, 1, dtype=torch.float64)
    losses = tree_tpo(
        ListSteps(padded, GROUP),
        ListSteps(torch.cat([REFERENCE, zero], dim=1), GROUP),
        label=LABEL,
        step_weight=torch.cat([ONES, zero], dim=1),
        normalize_steps=True,
    )
    expected = tree_tpo(
        ListSteps(POLICY, GROUP),
        ListSteps(REFERENCE, GROUP),
        label=LABEL,
        step_weight=ONES,
        normalize_steps=True,
    )
    torch.testing.assert_close(losses, expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(("variant", "is_right"), [("intended", True), ("official", False)])
def test_only_the_intended_loss_falls_when_the_ranking_improves(
    variant: str, is_right: bool
) -> None:
    costs = []
    for scale in (-1.0, 1.0):
        ranked = scale * LABEL[:, None] * ONES
        losses = tree_tpo(
            ListSteps(ranked, GROUP),
            ListSteps(torch.zeros_like(ranked), GROUP),
            label=LABEL,
            step_weight=ONES,
            variant=variant,
        )
        costs.append(losses.item())
    assert (costs[1] < costs[0]) == is_right


def test_the_released_ranking_counts_its_diagonal() -> None:
    """Equal scores: all N^2 terms are ln 2, so N/(N-1) ln 2 = 1.5 ln 2 remains for N = 3."""
    losses = tree_tpo(
        ListSteps(ONES, GROUP),
        ListSteps(ONES, GROUP),
        label=LABEL,
        step_weight=ONES,
        variant="official",
        beta=1.0,
    )
    assert losses.item() == pytest.approx(math.log1p(math.exp(-1.5 * math.log(2))))


def test_a_list_of_one_teaches_the_released_ranking_nothing() -> None:
    """Its only term is its diagonal, ln 2; a list beside it costs what it costs alone."""
    z = torch.tensor([[1.0], [0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    label, group = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64), torch.tensor([0, 0, 1])

    def cost(n: int) -> torch.Tensor:
        policy, fixed = ListSteps(z[:n], group[:n]), ListSteps(torch.zeros_like(z)[:n], group[:n])
        weight = torch.ones_like(z)[:n]
        return tree_tpo(policy, fixed, label=label[:n], step_weight=weight, variant="official")

    losses = cost(3)
    assert losses[0].item() == cost(2)[0].item()
    assert math.isfinite(losses[1].item())
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    assert gradient[2].item() == 0.0
    assert (gradient[:2] != 0).all()
    assert gradient.isfinite().all()
