"""What objectives on vectors are for, and where a Bradley-Terry reward differs."""

import math

import torch
from trillium.objectives.embeddings import gpm, gpm_scores, oppo
from trillium.objectives.pairwise import dpo

from .tabular import (
    EACH_SEED,
    F64,
    SEEDS,
    Pairs,
    World,
    descend,
    normal,
    per_seed,
    report,
    train_pairs,
    uniform,
)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def test_gpm_fits_a_cycle_that_bradley_terry_cannot() -> None:
    """Six responses in a circle, each beating those up to half a turn ahead: GPM orders all pairs.

    DPO's implicit reward is a Bradley-Terry reward, one number for each response: no cycle.
    """
    angle = 2 * math.pi * (torch.arange(6) + 0.5 * uniform(7, 6)) / 6
    first, second = torch.combinations(torch.arange(6)).T.expand(len(SEEDS), -1, -1).unbind(1)
    is_win = (angle.gather(1, second) - angle.gather(1, first)).sin() > 0
    pairs = Pairs(torch.zeros_like(first), first, second).flipped(~is_win)

    def sides(vectors: torch.Tensor) -> list[torch.Tensor]:
        return [
            unit(vectors)[EACH_SEED, side].flatten(0, 1) for side in (pairs.chosen, pairs.rejected)
        ]

    vectors = descend(lambda each: gpm(*sides(each)), normal(9, 6, 4))
    general = per_seed(gpm_scores(*sides(vectors)) > 0)
    flat = torch.zeros(len(SEEDS), 1, 6, dtype=F64)
    world = World(flat.log_softmax(-1), flat)
    one_number = pairs.accuracy(train_pairs(world, pairs, dpo))
    report("gpm: share of pairs in order", gpm=general, dpo=one_number)
    assert (general == 1.0).all()
    assert (one_number < 0.9).all()


def test_oppo_finds_the_preferred_direction_from_comparisons_alone() -> None:
    """No reward is ever seen: 30 comparisons of embeddings pull z to what is preferred.

    There is no DPO here, which needs a likelihood; chance is a cosine of zero.
    """
    direction = unit(normal(40, 4))
    vectors = unit(normal(41, 60, 4))
    taste = torch.einsum("snf,sf->sn", vectors, direction)
    first, second = vectors.chunk(2, dim=1)
    is_first = (taste[:, :30] > taste[:, 30:])[..., None]
    preferred, other = torch.where(is_first, first, second), torch.where(is_first, second, first)

    def loss(z: torch.Tensor) -> torch.Tensor:
        recon = z.new_zeros(())
        return torch.stack(
            [oppo(z[s], preferred[s], other[s], recon=recon) for s in range(len(SEEDS))]
        )

    z = descend(loss, torch.zeros(len(SEEDS), 4, dtype=F64))
    cosine = (unit(z) * direction).sum(-1)
    report("oppo: cosine of z to the preferred direction", oppo=cosine)
    assert (cosine > 0.75).all()
