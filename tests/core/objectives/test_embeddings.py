import math

import pytest
import torch
from trillium.errors import ShapeError
from trillium.objectives.batch import PairLogps
from trillium.objectives.embeddings import gpm, gpm_scores, oppo, oppo_norm, spo_degree
from trillium.objectives.pairwise import dpo


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_preference_scores_are_antisymmetric_and_zero_against_oneself() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(gpm_scores(first, second), -gpm_scores(second, first))
    assert gpm_scores(first, first).tolist() == pytest.approx([0.0] * 5, abs=1e-15)


def test_embeddings_can_hold_a_cycle() -> None:
    """Three unit vectors at 120 degrees: each beats the next by sin(120)."""
    corners = rows(*([math.cos(a), math.sin(a)] for a in (0.0, 2 * math.pi / 3, 4 * math.pi / 3)))
    scores = gpm_scores(corners, corners.roll(-1, 0))
    assert scores.tolist() == pytest.approx([math.sqrt(3) / 2] * 3)
    assert gpm(corners, corners.roll(-1, 0), tau=0.1).max().item() < 2e-4


def test_scales_weigh_the_planes() -> None:
    first, second = rows([1.0, 0.0, 1.0, 0.0]), rows([0.0, 1.0, 0.0, 1.0])
    assert gpm_scores(first, second, scales=(2.0, 0.5)).item() == 2.5


def test_spo_degree_adds_the_surprise_of_the_degree() -> None:
    pair = PairLogps(torch.tensor([-3.0, -2.0]), torch.tensor([-4.0, -2.0]))
    losses = spo_degree(
        pair,
        pair,
        degree_logits=torch.zeros(2, 4),
        degree_label=torch.tensor([0, 3]),
        gamma=0.5,
    )
    torch.testing.assert_close(losses, dpo(pair, pair) + 0.5 * math.log(4))


def test_oppo_of_a_satisfied_triplet_on_the_sphere_is_the_reconstruction() -> None:
    near, far = rows([1.0, 0.0]), rows([-1.0, 0.0])
    loss = oppo(near[0], near, far, recon=torch.tensor(0.75, dtype=torch.float64))
    assert loss.item() == pytest.approx(0.75)


def test_the_norm_is_taken_on_both_kinds_and_added() -> None:
    """(2 - 1)^2 for the preferred, mean of (3 - 1)^2 and 0 for the others."""
    assert oppo_norm(rows([2.0, 0.0], [0.0, 2.0]), rows([3.0, 0.0], [1.0, 0.0])).item() == 3.0


def test_an_embedding_without_planes_is_refused() -> None:
    odd = rows([1.0, 2.0, 3.0])
    with pytest.raises(ShapeError, match=r"gpm: an embedding has 3 numbers \(needs an even count"):
        gpm(odd, odd)
