"""From a run's data configuration to users, catalogue and split, checked before anything starts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from trillium.files import hash_json

from trillium_rec.config import RecConfig
from trillium_rec.dataset import Dataset, Events
from trillium_rec.sessions import split_sessions
from trillium_rec.sources import keep_positive, load_dataset
from trillium_rec.splits import Judged, LeaveOneOut, leave_one_out

if TYPE_CHECKING:
    from trillium_rec.evaluation import Judge


@dataclass(frozen=True)
class RunData:
    """Hold a log, its positive events and their split; `hash` names all of it by content."""

    log: Dataset
    positive: Dataset
    split: LeaveOneOut
    hash: str

    @property
    def counts(self) -> Mapping[str, int]:
        """Return what was read and what was left out."""
        return {
            "users": self.positive.n_users,
            "items": self.positive.catalogue.n_items,
            "events": self.log.events.n_events,
            "positive_events": self.positive.events.n_events,
            "judged_users": len(self.split.test.target),
            "users_not_judged": self.split.n_users_not_judged,
            "validation_targets_in_history": self.split.valid.n_repeats,
            "test_targets_in_history": self.split.test.n_repeats,
            **self.positive.counts,
        }

    def judge(
        self,
        part: Literal["valid", "test"],
        is_eligible: NDArray[np.bool_],
        *,
        vectors: NDArray[np.float32] | None = None,
        n_users: int | None = None,
        seed: int = 0,
    ) -> "Judge":
        """Return the judge of a part, of a random sample of its users where that is large."""
        from trillium_rec.evaluation import Judge

        judged = self.split.part(part)
        if n_users is not None and n_users < len(judged.target):
            random = np.random.default_rng(seed)
            rows = np.sort(random.choice(len(judged.target), n_users, replace=False))
            judged = Judged(judged.user[rows], judged.histories.take(rows), judged.target[rows])
        popularity = self.split.popularity()
        return Judge(judged, self.positive.users, popularity, is_eligible, vectors, seed)


def prepare(config: RecConfig) -> RunData:
    """Read, check, filter and split; raises DataError or ConfigError for what cannot be used."""
    log = load_dataset(config.data.source)
    positive = keep_positive(log, config.data.positive)
    split = leave_one_out(positive)
    return RunData(log, positive, split, hash_data(log, positive))


def hash_data(log: Dataset, positive: Dataset) -> str:
    """Name a log, its positive events and its catalogue by their content.

    Times, requests and feedback are part of it: sessions are cut and judged by them.
    """
    catalogue = positive.catalogue
    vectors = [] if catalogue.vectors is None else [_hash_column(catalogue.vectors)]
    names = [list(log.users), list(positive.users), list(catalogue.ids), list(catalogue.texts)]
    return hash_json([_hash_events(log.events), _hash_events(positive.events), vectors, names])


def _hash_events(events: Events) -> dict[str, str]:
    columns: list[tuple[str, NDArray[np.generic] | None]] = [
        ("user", events.user),
        ("item", events.item),
        ("timestamp", events.timestamp),
        ("request", events.request),
        *((f"feedback {name}", values) for name, values in events.feedback.items()),
    ]
    return {name: _hash_column(values) for name, values in columns if values is not None}


def _hash_column(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def describe_log(config: RecConfig) -> list[str]:
    """Return what `trillium rec check` prints: sizes, exclusions, feedback, sessions."""
    found = prepare(config)
    lines = [f"{name.replace('_', ' ')}: {count:,}" for name, count in found.counts.items()]
    for name, values in found.log.events.feedback.items():
        spread = f"mean {values.mean():.4g}, {values.min():.4g} to {values.max():.4g}"
        is_constant = values.min() == values.max()
        lines.append(f"feedback {name}: {spread}{'; constant, no reward' if is_constant else ''}")
    cold = int((found.split.popularity()[found.split.test.target] == 0).sum())
    lines.append(f"test targets without training events: {cold:,}")
    if config.sessions is not None:
        sessions = split_sessions(found.log.events, config.sessions)
        lines.append(f"sessions: {sessions.n_sessions:,}, {sessions.is_good.mean():.1%} good")
    return lines
