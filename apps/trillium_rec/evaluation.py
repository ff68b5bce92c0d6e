"""Evaluate a recommender: full ranking over items, histories masked, intervals over users.

The harness judges the lists it gets and trusts none of them: an item that is hidden, seen or listed
twice is counted as invalid. Codes play no part, so collisions cannot flatter anyone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.errors import DataError
from trillium.evaluation import Comparison, Interval, bootstrap_mean, compare

from trillium_rec.id_quality import gini
from trillium_rec.metrics import (
    are_valid,
    diversity,
    exposure,
    ndcg,
    novelty,
    popularity_deciles,
    ranks_of,
    recall,
)
from trillium_rec.ranking import Recommender, Request, seen_matrix
from trillium_rec.splits import Judged

KS = (5, 10, 20, 50)
# The list that coverage, novelty and the like look at.
_SHOWN = 10
_N_RESAMPLES = 1000


@dataclass(frozen=True)
class Group:
    """Hold how targets of one kind are found: how many there are, and recall at 10."""

    n_targets: int
    recall: float | None


@dataclass(frozen=True)
class Evaluation:
    """Hold what was measured of one recommender.

    `ranks` has one place per user, 0 beyond the longest list. `metrics` are means over users:
    recall@k and ndcg@k. Coverage, Gini, novelty and diversity describe the first ten places.
    """

    name: str
    users: tuple[str, ...]
    ranks: NDArray[np.int64]
    lists: NDArray[np.int64]
    metrics: Mapping[str, Interval]
    validity: float
    coverage: float
    exposure_gini: float
    novelty: float
    diversity: float | None
    deciles: tuple[Group, ...]
    cold: Group

    def values(self, metric: str, k: int) -> dict[str, float]:
        """Return recall or ndcg at k by user, for paired comparisons."""
        measure = {"recall": recall, "ndcg": ndcg}[metric]
        return dict(zip(self.users, measure(self.ranks, k).tolist(), strict=True))


@dataclass(frozen=True)
class Judge:
    """Hold what lists are judged by: targets, what was popular in training, and who is eligible.

    `vectors` are for diversity alone.
    """

    judged: Judged
    users: Sequence[str]
    popularity: NDArray[np.int64]
    is_eligible: NDArray[np.bool_]
    vectors: NDArray[np.float32] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise DataError when there is nobody to judge."""
        if len(self.judged.target) == 0:
            raise DataError("evaluate: there is no user to judge (needs one with a target)")

    def request(self) -> Request:
        """Return the request that a recommender is asked."""
        eligible = torch.from_numpy(self.is_eligible)
        return Request(self.judged.histories, eligible, seed=self.seed)

    def evaluate(self, recommender: Recommender, ks: Sequence[int] = KS) -> Evaluation:
        """Ask for lists and measure them; a target that is not eligible counts as missed."""
        lists = recommender.recommend(self.request(), max(ks)).items.numpy()
        ranks = ranks_of(lists, self.judged.target)
        shown = lists[:, :_SHOWN]
        counts = exposure(shown, len(self.popularity))[self.is_eligible]
        metrics = {
            f"{name}@{k}": bootstrap_mean(
                measure(ranks, k).tolist(), seed=self.seed, n_resamples=_N_RESAMPLES
            )
            for name, measure in (("recall", recall), ("ndcg", ndcg))
            for k in ks
        }
        spread = None
        if self.vectors is not None:
            spread = float(diversity(shown, self.vectors).mean())
        return Evaluation(
            name=recommender.name,
            users=tuple(self.users[user] for user in self.judged.user.tolist()),
            ranks=ranks,
            lists=lists,
            metrics=metrics,
            validity=self._validity(lists),
            coverage=float((counts > 0).mean()),
            exposure_gini=gini(counts),
            novelty=float(novelty(shown, self.popularity).mean()),
            diversity=spread,
            deciles=self._deciles(ranks),
            cold=_group(ranks, self.popularity[self.judged.target] == 0),
        )

    def _validity(self, lists: NDArray[np.int64]) -> float:
        shares = []
        for begin in range(0, len(lists), 1024):
            rows = np.arange(begin, min(begin + 1024, len(lists)))
            seen = seen_matrix(self.judged.histories.take(rows), len(self.popularity))
            shares.append(are_valid(lists[rows], seen, self.is_eligible))
        return float(np.concatenate(shares).mean())

    def _deciles(self, ranks: NDArray[np.int64]) -> tuple[Group, ...]:
        decile = popularity_deciles(self.popularity)[self.judged.target]
        return tuple(_group(ranks, decile == number) for number in range(10))


def compare_users(before: Evaluation, after: Evaluation, metric: str, k: int) -> Comparison:
    """Compare two recommenders user by user; raises DataError when their users differ."""
    return compare(before.values(metric, k), after.values(metric, k), n_resamples=_N_RESAMPLES)


def _group(ranks: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Group:
    n_targets = int(chosen.sum())
    found = float(recall(ranks[chosen], _SHOWN).mean()) if n_targets else None
    return Group(n_targets, found)
