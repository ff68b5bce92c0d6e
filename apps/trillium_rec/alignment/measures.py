"""What a policy does for the users it is judged on: rewards of its sessions, hits, exposure.

The session that counts is the one that would be shown: the likeliest, or for re-ranking the best by
the reward model. Hits are item-level, over the full catalogue, of the items that the user liked in
the next session.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from trillium.errors import DataError

from trillium_rec.alignment.pool import Pool, session_code_logps
from trillium_rec.id_quality import gini
from trillium_rec.metrics import are_valid, diversity, exposure, novelty
from trillium_rec.modelling import Model
from trillium_rec.models.batches import pad
from trillium_rec.ranking import seen_matrix
from trillium_rec.reward.model import RewardModel
from trillium_rec.splits import Sequences, pack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

KS = (5, 10, 20, 50)
_SHOWN = 10
_BATCH = 128


@dataclass(frozen=True)
class Panel:
    """Hold those who are judged, what they liked next, and who judges.

    `oracle` takes one list per user, in this order; None where nobody knows. `n_left_out` counts
    those who have taken every item, so that no session can be shown to them.
    """

    users: tuple[str, ...]
    histories: Sequences
    targets: Sequences
    reward: RewardModel
    judge: RewardModel
    oracle: Callable[[Ints], Floats] | None
    popularity: Ints
    is_eligible: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    n_left_out: int = 0


@dataclass(frozen=True)
class Measured:
    """Hold one value per user by name, and figures of the whole panel."""

    users: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    totals: Mapping[str, float]

    def by_user(self, name: str) -> dict[str, float]:
        """Return one measure by user, for paired comparisons."""
        return dict(zip(self.users, self.values[name], strict=True))

    def mean(self, name: str) -> float:
        """Return the mean over users."""
        return float(np.mean(self.values[name]))


def rows_with_a_session(histories: Sequences, is_eligible: NDArray[np.bool_]) -> Ints:
    """Return the rows of those who have not taken every eligible item.

    Raises DataError when there is nobody.
    """
    is_left = ~seen_matrix(histories, len(is_eligible)) & is_eligible
    rows = np.flatnonzero(is_left.any(axis=1)).astype(np.int64)
    if len(rows) == 0:
        raise DataError(
            f"align: all {histories.n_sequences} users of the panel have taken every eligible item "
            "(one at least must have something left to be shown); give a log with more items"
        )
    return rows


def likeliest(pool: Pool) -> Ints:
    """Return the first session of every prompt."""
    return pool.sessions[:, 0].numpy()


def best_rewarded(pool: Pool) -> Ints:
    """Return the session with the highest reward of every prompt; the likelier of equals."""
    best = pool.rewards.argmax(dim=1)
    return pool.sessions[torch.arange(len(best)), best].numpy()


def measure_policy(panel: Panel, model: Model, sessions: Ints, lists: Ints) -> Measured:
    """Measure what a policy shows: one session and one long list per user."""
    shown = torch.from_numpy(sessions)[:, None]
    hits = _hits(lists, panel.targets)
    values: dict[str, Floats] = {
        "reward": panel.reward.score(panel.histories, shown)[:, 0].cpu().double().numpy(),
        "judge": panel.judge.score(panel.histories, shown)[:, 0].cpu().double().numpy(),
        "session_recall": _recall(_hits(sessions, panel.targets), panel.targets, sessions.shape[1]),
        "logged_logp": _logged_logps(model, panel),
    }
    if panel.oracle is not None:
        values["oracle"] = panel.oracle(sessions)
    for k in KS:
        values[f"recall@{k}"] = _recall(hits, panel.targets, k)
        values[f"ndcg@{k}"] = _ndcg(hits, panel.targets, k)
    found = {name: tuple(each.tolist()) for name, each in values.items()}
    return Measured(panel.users, found, _totals(panel, sessions, lists))


def rerank_lists(sessions: Ints, lists: Ints) -> Ints:
    """Return lists that begin with the chosen session, then the old order without its items."""
    rows = []
    for session, old in zip(sessions, lists, strict=True):
        chosen = session[session >= 0]
        rest = old[~np.isin(old, chosen)]
        rows.append(np.concatenate([chosen, rest])[: len(old)])
    return np.stack(rows)


def _totals(panel: Panel, sessions: Ints, lists: Ints) -> dict[str, float]:
    n_items = len(panel.popularity)
    short = lists[:, :_SHOWN]
    of_lists = exposure(short, n_items)[panel.is_eligible]
    of_sessions = exposure(sessions, n_items)[panel.is_eligible]
    seen = seen_matrix(panel.histories, n_items)
    return {
        "coverage": float((of_lists > 0).mean()),
        "session_coverage": float((of_sessions > 0).mean()),
        "gini": gini(of_lists),
        "session_gini": gini(of_sessions),
        "top_3_share": float(np.sort(of_sessions)[-3:].sum() / max(of_sessions.sum(), 1.0)),
        "novelty": float(novelty(sessions, panel.popularity).mean()),
        "diversity": float(diversity(sessions, panel.vectors).mean()),
        "validity": float(are_valid(sessions, seen, panel.is_eligible).mean()),
    }


def _hits(lists: Ints, targets: Sequences) -> NDArray[np.bool_]:
    """Return which places of each list hold an item that the user liked next."""
    return np.stack([np.isin(row, targets.of(user)) for user, row in enumerate(lists)])


def _recall(hits: NDArray[np.bool_], targets: Sequences, k: int) -> Floats:
    """Return the share of each user's targets among the first k places."""
    return np.asarray(hits[:, :k].sum(axis=1) / np.diff(targets.starts), np.float64)


def _ndcg(hits: NDArray[np.bool_], targets: Sequences, k: int) -> Floats:
    """Return the discounted hits of the first k places over those of a perfect list."""
    gains = 1 / np.log2(np.arange(2, k + 2))
    ideal = gains.cumsum()[np.minimum(np.diff(targets.starts), k) - 1]
    return np.asarray((hits[:, :k] * gains[: hits.shape[1]]).sum(axis=1) / ideal, np.float64)


@torch.inference_mode()
def _logged_logps(model: Model, panel: Panel) -> Floats:
    """Return the log-probability per item of what users liked next, in nats.

    Where that is longer than a session of the model, its first items count.
    """
    model.train(False)
    found = []
    n_places = int(getattr(model.config, "n_session", 5))
    for begin in range(0, panel.histories.n_sequences, _BATCH):
        rows = np.arange(begin, min(begin + _BATCH, panel.histories.n_sequences))
        targets = [panel.targets.of(row)[:n_places] for row in rows.tolist()]
        sessions = pad(pack(targets), n_places)
        logps = session_code_logps(model, panel.histories.take(rows), sessions[:, None])
        found.append(logps.sum(dim=(1, 2, 3)).cpu() / (sessions >= 0).sum(dim=1))
    return torch.cat(found).double().numpy()
