import math

import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import SingleLogps
from trillium.objectives.unpaired import kto, kto_reference_point


def rows(*values: float) -> SingleLogps:
    return SingleLogps(torch.tensor(values, dtype=torch.float64))


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


LABELS = torch.tensor([1.0, 0.0], dtype=torch.float64)


def test_kto_at_the_reference_point_costs_one_half() -> None:
    losses = kto(rows(-3.0, -3.0), rows(-5.0, -5.0), label=LABELS, kl=scalar(2.0))
    assert losses.tolist() == pytest.approx([0.5, 0.5])


def test_kto_weighs_its_two_kinds_separately() -> None:
    """One unit above the reference point at beta 1: sigmoid(-1) desirable, sigmoid(1) not."""
    losses = kto(
        rows(-1.0, -1.0),
        rows(-3.0, -3.0),
        label=LABELS,
        kl=scalar(1.0),
        beta=1.0,
        w_desirable=1.33,
        w_undesirable=3.0,
    )
    low, high = 1 / (1 + math.e), math.e / (1 + math.e)
    assert losses.tolist() == pytest.approx([1.33 * low, 3.0 * high], rel=1e-15)


def test_the_reference_point_is_a_mean_clamped_at_zero_without_gradient() -> None:
    policy = SingleLogps(torch.tensor([-1.0, -5.0], requires_grad=True))
    assert kto_reference_point(policy, SingleLogps(torch.tensor([-4.0, -4.0]))).item() == 1.0
    below = kto_reference_point(policy, SingleLogps(torch.tensor([0.0, 0.0])))
    assert below.item() == 0.0
    assert not below.requires_grad


def test_batches_of_different_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="policy has 2 responses, reference has 3"):
        kto(rows(-1.0, -2.0), rows(-1.0, -2.0, -3.0), label=LABELS, kl=scalar(0.0))


def test_a_reference_point_of_no_response_is_refused() -> None:
    with pytest.raises(ShapeError, match="kto: no mismatched response to estimate"):
        kto_reference_point(rows(), rows())
