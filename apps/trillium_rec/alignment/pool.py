"""Draw sessions: the N likeliest of a snapshot for each prompt, with what they are worth."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trillium.errors import DataError
from trillium.progress import Progress

from trillium_rec.decoding.beam import search_sessions
from trillium_rec.modelling import Model
from trillium_rec.models.lazy import LazyRecommender
from trillium_rec.recommenders import open_decoder, whole_histories
from trillium_rec.reward.model import RewardModel
from trillium_rec.splits import Sequences
from trillium_rec.trie import Trie

# Users that are decoded together; more would only cost memory.
_MOST_BEAMS = 2048


@dataclass(frozen=True)
class Drawing:
    """Say how many sessions are drawn of how many items; groups of beams are diverse."""

    n_beams: int
    n_groups: int
    n_session: int


@dataclass(frozen=True)
class Pool:
    """Hold sessions by prompt, likeliest first.

    `logps` are in nats, `rewards` of the reward model. A session that is missing or has fewer items
    than asked for has -inf in both.
    """

    sessions: Int[Tensor, "prompt beam place"]
    logps: Float[Tensor, "prompt beam"]
    rewards: Float[Tensor, "prompt beam"]

    def in_memory(self) -> "Pool":
        """Return the same pool off the device that drew it."""
        return Pool(self.sessions.cpu(), self.logps.cpu(), self.rewards.cpu())

    @property
    def is_whole(self) -> Bool[Tensor, "prompt beam"]:
        """Return which sessions are there, with all their items."""
        return ~torch.isneginf(self.rewards)


def draw_pool(
    model: Model,
    trie: Trie,
    is_eligible: Bool[Tensor, " item"],
    histories: Sequences,
    reward: RewardModel,
    drawing: Drawing,
    *,
    title: str = "sessions",
) -> Pool:
    """Return the likeliest sessions of each history and their rewards.

    Raises DataError when fewer items are eligible than a session has.
    """
    n_eligible = int(is_eligible.sum())
    if n_eligible < drawing.n_session:
        raise DataError(
            f"align: {n_eligible} of {len(is_eligible)} items are eligible (a session has "
            f"{drawing.n_session}); lower align.n_session, or make more items eligible"
        )
    model.train(False)
    reward.train(False)
    parts = []
    size = max(1, _MOST_BEAMS // drawing.n_beams)
    n_histories = histories.n_sequences
    with Progress(title, n_total=n_histories, unit="users") as bar:
        for begin in range(0, n_histories, size):
            rows = np.arange(begin, min(begin + size, n_histories))
            part = histories.take(rows)
            found = search_sessions(
                open_decoder(model, part),
                trie,
                is_eligible,
                whole_histories(part),
                n_items=drawing.n_session,
                width=drawing.n_beams,
                n_groups=drawing.n_groups,
            )
            is_whole = (found.items >= 0).all(dim=2) & ~torch.isneginf(found.logps)
            rewards = reward.score(part, found.items).masked_fill(~is_whole, -torch.inf)
            logps = found.logps.masked_fill(~is_whole, -torch.inf)
            parts.append(Pool(found.items, logps, rewards))
            bar.advance(len(rows))
    return join_pools(parts, drawing.n_beams)


def join_pools(parts: list[Pool], n_beams: int) -> Pool:
    """Put pools behind one another, each filled up to the same number of beams."""
    return Pool(
        torch.cat([_widen(part.sessions, n_beams, -1) for part in parts]),
        torch.cat([_widen(part.logps, n_beams, -torch.inf) for part in parts]),
        torch.cat([_widen(part.rewards, n_beams, -torch.inf) for part in parts]),
    ).in_memory()


def session_code_logps(
    model: Model, histories: Sequences, sessions: Int[Tensor, "user beam place"]
) -> Float[Tensor, "user beam place level"]:
    """Return the log-probability of every code of several sessions per history, with gradients."""
    sessions = sessions.to(model.device)
    if isinstance(model, LazyRecommender):
        return model.session_code_logps(histories, sessions)
    return model.session_code_logps(model.read(histories), sessions)


def _widen(values: Tensor, n_beams: int, fill: float) -> Tensor:
    missing = n_beams - values.shape[1]
    if missing <= 0:
        return values[:, :n_beams]
    shape = (len(values), missing, *values.shape[2:])
    return torch.cat([values, values.new_full(shape, fill)], dim=1)
