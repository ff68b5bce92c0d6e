"""From drawn sessions to preferences: which session wins, and which it is compared with."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from trillium_rec.alignment.config import SelectionConfig
from trillium_rec.alignment.pool import Pool


@dataclass(frozen=True)
class Preferences:
    """Hold, by prompt, the winner's beam and those of the losers; `is_kept` leaves prompts out."""

    winner: Int[Tensor, " prompt"]
    losers: Int[Tensor, "prompt loser"]
    is_kept: Bool[Tensor, " prompt"]


def select(pool: Pool, config: SelectionConfig, generator: torch.Generator) -> Preferences:
    """Choose a winner and losers per prompt by the rewards.

    Algorithm 2 of OneRec takes the best and the worst of the N; the worst is often where the reward
    model errs most, so quantiles within (0, 1) are the safer choice. Losers are different beams,
    all worse than the winner; prompts with too few, or with a gap below the margin, are left out.
    """
    is_usable = pool.is_whole
    if config.distinct_sets:
        is_usable = is_usable & ~repeats_a_set(pool.sessions)
    rewards = pool.rewards.masked_fill(~is_usable, -torch.inf)
    order = rewards.argsort(dim=1, descending=True, stable=True)
    n_usable = is_usable.sum(dim=1)
    rows = torch.arange(len(rewards))
    last = (n_usable - 1).clamp(min=0)
    place = ((1 - config.winner) * last).round().long()
    winner = order[rows, place]
    losers = _losers(order, place, n_usable, config, generator)
    gap = rewards[rows, winner] - rewards.gather(1, losers).amax(dim=1)
    is_kept = (n_usable - 1 - place >= config.n_losers) & (gap > 0) & (gap >= config.margin)
    return Preferences(winner, losers, is_kept)


def repeats_a_set(sessions: Int[Tensor, "prompt beam place"]) -> Bool[Tensor, "prompt beam"]:
    """Return which sessions hold the items of an earlier, likelier one in another order."""
    ordered = sessions.sort(dim=2).values
    same = (ordered[:, :, None] == ordered[:, None, :]).all(dim=3)
    return same.tril(diagonal=-1).any(dim=2)


def _losers(
    order: Int[Tensor, "prompt beam"],
    winner_place: Int[Tensor, " prompt"],
    n_usable: Int[Tensor, " prompt"],
    config: SelectionConfig,
    generator: torch.Generator,
) -> Int[Tensor, "prompt loser"]:
    """Return beams of losers; their places in the order of rewards lie below the winner's."""
    if config.loser == "random":
        keys = torch.rand(order.shape, generator=generator)
        places = torch.arange(order.shape[1])
        is_below = (places > winner_place[:, None]) & (places < n_usable[:, None])
        chosen = keys.masked_fill(~is_below, -1.0).argsort(dim=1, descending=True, stable=True)
        return order.gather(1, chosen[:, : config.n_losers])
    # From the quantile upwards, so that several losers are the worst ones next to it; where the
    # winner is too near for that, from as far below it as there are losers.
    last = (n_usable - 1).clamp(min=0)
    lowest = ((1 - float(config.loser)) * last).round().long()
    lowest = lowest.maximum(winner_place + config.n_losers).minimum(last)
    places = lowest[:, None] - torch.arange(config.n_losers)
    # Too few sessions, and so places before the first, are only there where no prompt is kept.
    return order.gather(1, places.clamp(min=0))
