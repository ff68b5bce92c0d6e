"""Lists of items: who may be recommended, and the best k of full scores with fair ties.

Ties are broken by a hash of seed, history and item: neither the order of the items nor the place of
a user in a batch decides, so a service that sees one user at a time lists what an evaluation lists.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from trillium.errors import DataError

from trillium_rec.splits import Sequences

NO_ITEM = -1


@dataclass(frozen=True)
class Lists:
    """Hold one list per user, best first, with scores; -1 and -inf fill what is missing."""

    items: Int[Tensor, "user place"]
    scores: Float[Tensor, "user place"]

    @classmethod
    def join(cls, parts: "list[Lists]") -> "Lists":
        """Put the lists of several batches of users behind one another, in memory."""
        items = torch.cat([part.items for part in parts]).cpu()
        return cls(items, torch.cat([part.scores for part in parts]).cpu())


@dataclass(frozen=True)
class Request:
    """Ask for lists: the users' histories, whose items are left out, and the items allowed."""

    histories: Sequences
    is_eligible: Bool[Tensor, " item"]
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise DataError when no item is eligible."""
        if not bool(self.is_eligible.any()):
            raise DataError(
                f"recommend: none of {len(self.is_eligible)} items is eligible (at least one must "
                "be); check which items are active, hidden or retired"
            )

    @property
    def n_users(self) -> int:
        """Count the users."""
        return self.histories.n_sequences

    def allowed(self, device: torch.device) -> Bool[Tensor, "user item"]:
        """Return which items each user may get: eligible and not in the history."""
        allowed = self.is_eligible.to(device).repeat(self.n_users, 1)
        histories = self.histories
        owner = np.repeat(np.arange(histories.n_sequences), np.diff(histories.starts))
        rows, items = (torch.from_numpy(x).to(device) for x in (owner, histories.items))
        allowed[rows, items] = False
        return allowed

    def batches(self, size: int) -> "list[Request]":
        """Cut the request into requests of at most `size` users."""
        return [
            Request(
                self.histories.take(np.arange(begin, min(begin + size, self.n_users))),
                self.is_eligible,
                self.seed,
            )
            for begin in range(0, self.n_users, size)
        ]


class Recommender(Protocol):
    """Return the best k items for each user of a request."""

    @property
    def name(self) -> str:
        """Return how reports call it."""
        ...

    def recommend(self, request: Request, k: int) -> Lists:
        """Return lists of at most k items; shorter ones end in -1."""
        ...


class Scorer(Protocol):
    """Give every item a score for every user; `ScoreRecommender` makes lists of it."""

    def score_items(self, histories: Sequences) -> Float[Tensor, "user item"]:
        """Return one score per user and item; higher is better."""
        ...


@dataclass(frozen=True)
class ScoreRecommender:
    """Rank the full catalogue by a scorer."""

    name: str
    scorer: Scorer
    batch_size: int = 512

    def recommend(self, request: Request, k: int) -> Lists:
        """Return the k best items of each user; raises nothing that the scorer does not."""
        return Lists.join(
            [
                best_items(self.scorer.score_items(batch.histories), batch, k)
                for batch in request.batches(self.batch_size)
            ]
        )


def best_items(scores: Float[Tensor, "user item"], request: Request, k: int) -> Lists:
    """Return the k best allowed items per user, equal scores in random order.

    The key of an item is its float32 score, made an integer of the same order, and below it 31 bits
    of the hash; so one top-k decides both.
    """
    n_items = scores.shape[1]
    bits = (scores.float() + 0.0).contiguous().view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    # The bits of a seed that 64 have room for.
    seed = request.seed % (1 << 23) << 40
    user = _hash_histories(request.histories).to(scores.device) + seed
    noise = _hash(user[:, None] + torch.arange(n_items, device=scores.device))
    keys = ordered * 2**31 + noise
    keys = keys.masked_fill(~request.allowed(scores.device), torch.iinfo(torch.int64).min)
    top = keys.topk(min(k, n_items), dim=1)
    is_found = top.values > torch.iinfo(torch.int64).min
    items = top.indices.masked_fill(~is_found, NO_ITEM)
    found = scores.gather(1, top.indices).masked_fill(~is_found, -torch.inf)
    return Lists(items, found)


def seen_matrix(histories: Sequences, n_items: int) -> NDArray[np.bool_]:
    """Return which items each history holds."""
    seen = np.zeros((histories.n_sequences, n_items), np.bool_)
    owner = np.repeat(np.arange(histories.n_sequences), np.diff(histories.starts))
    seen[owner, histories.items] = True
    return seen


def _hash_histories(histories: Sequences) -> Int[Tensor, " user"]:
    """Return 62 bits per history, which depend on its items and their places from its end."""
    sizes = np.diff(histories.starts)
    from_end = np.repeat(histories.starts[1:], sizes) - np.arange(len(histories.items))
    entries = torch.from_numpy(histories.items + (from_end << 32))
    # Sums that overflow wrap around alike however users are batched.
    sums = np.concatenate([[0], np.cumsum(_hash(entries).numpy())])
    keys = torch.from_numpy(sums[histories.starts[1:]] - sums[histories.starts[:-1]])
    return (_hash(keys) << 31) + _hash(keys + 1)


def _hash(values: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Return 31 well-mixed bits per value (the finaliser of splitmix64, signed)."""
    mixed = values * 0x1E3779B97F4A7C15
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (mixed >> 32) & 0x7FFFFFFF
