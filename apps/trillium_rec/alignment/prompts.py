"""The samples of Algorithm 2: what a user liked so far, and what the log says came next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trillium_rec.config import OneRecModel, RecConfig
from trillium_rec.fit import Batch
from trillium_rec.models.batches import SessionBatch, next_item_batch, pad
from trillium_rec.preparation import RunData
from trillium_rec.session_examples import SessionExamples, session_examples
from trillium_rec.sessions import SessionConfig
from trillium_rec.splits import Sequences, pack

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class UserSamples:
    """One sample per training user with two items, for models of the next item.

    The log's loss is over the user's whole sequence, as in training; the prompt is the sequence up
    to a place drawn per epoch from its second half.
    """

    train: Sequences
    max_items: int

    @property
    def n_samples(self) -> int:
        """Count the users that have something to predict."""
        return len(self._rows())

    def prompts(self, seed: int) -> Sequences:
        """Return the prompt of every sample."""
        random = np.random.default_rng(seed)
        sequences = [self.train.of(row) for row in self._rows().tolist()]
        return pack([s[: random.integers((len(s) + 1) // 2, len(s) + 1)] for s in sequences])

    def batch(self, rows: Ints) -> Batch:
        """Return the log's side of some samples."""
        return next_item_batch(self.train.take(self._rows()[rows]), self.max_items)

    def _rows(self) -> Ints:
        return np.flatnonzero(np.diff(self.train.starts) >= 2).astype(np.int64)


@dataclass(frozen=True)
class SessionSamples:
    """One sample per good session and what came before it, for models of sessions."""

    examples: SessionExamples
    max_items: int

    @property
    def n_samples(self) -> int:
        """Count the sessions."""
        return self.examples.histories.n_sequences

    def prompts(self, seed: int) -> Sequences:
        """Return the prompt of every sample, the same in every epoch."""
        return self.examples.histories

    def batch(self, rows: Ints) -> Batch:
        """Return the log's side of some samples."""
        longest = int(np.diff(self.examples.sessions.starts).max(initial=1))
        return SessionBatch(
            pad(self.examples.histories.take(rows), self.max_items),
            pad(self.examples.sessions.take(rows), longest),
        )


Prompted = UserSamples | SessionSamples


def plan_epoch(n_samples: int, batch_size: int, seed: int) -> Sequence[Ints]:
    """Return the rows of each step of an epoch: every sample once, in an order of the seed."""
    order = np.random.default_rng(seed).permutation(n_samples).astype(np.int64)
    return np.split(order, range(batch_size, n_samples, batch_size))


def draw_share(n_samples: int, share: float, seed: int) -> Ints:
    """Return the samples for which sessions are drawn, each with probability `share`.

    At least one is chosen: an epoch without any would be no alignment.
    """
    random = np.random.default_rng(seed)
    chosen = np.flatnonzero(random.random(n_samples) < share)
    return chosen if len(chosen) else random.integers(0, n_samples, 1)


def samples_of(config: RecConfig, found: RunData, sessions: SessionConfig) -> Prompted:
    """Return the samples that alignment goes through: sessions for OneRec, users for the others."""
    if isinstance(config.model, OneRecModel):
        examples = session_examples(
            found.log, found.positive, sessions, n_session=config.model.n_session
        )
        return SessionSamples(examples, config.model.max_items)
    return UserSamples(found.split.train, config.model.max_items)
