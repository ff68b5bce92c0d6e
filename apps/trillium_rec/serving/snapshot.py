"""One revision of the catalogue with the model ready for it; requests of a batch share one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from trillium.errors import DataError

from trillium_rec.live_catalogue import LiveCatalogue
from trillium_rec.ranking import Recommender, Request
from trillium_rec.served_run import ServedRun
from trillium_rec.serving.asks import Answer, Ask
from trillium_rec.splits import pack


@dataclass(frozen=True)
class Snapshot:
    """Hold what answers are made from; nothing in it changes."""

    run: ServedRun
    live: LiveCatalogue
    recommender: Recommender
    rows: dict[str, int]
    users: dict[str, int]
    is_eligible: Bool[Tensor, " item"]

    @classmethod
    def load(cls, run: ServedRun) -> "Snapshot":
        """Read the revision in force and make the model ready for it."""
        live = run.catalogue()
        snapshot = cls(
            run,
            live,
            run.recommender(live),
            {item: row for row, item in enumerate(live.ids.items)},
            {user: row for row, user in enumerate(run.data.positive.users)},
            torch.from_numpy(live.ids.is_active),
        )
        snapshot.answer([Ask(None, (), 1)])  # what is slow the first time is done, or fails, now
        return snapshot

    @property
    def most_items(self) -> int:
        """Return how many items an answer can hold."""
        return self.run.config.evaluate.width

    def answer(self, asks: Sequence[Ask]) -> list[Answer | DataError]:
        """Answer questions together; a question about an unknown user gets an error of its own."""
        histories: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        found: list[Answer | DataError] = []
        places = {}
        for number, ask in enumerate(asks):
            try:
                history = self._history(ask)
            except DataError as error:
                found.append(error)
                continue
            places[number] = len(histories)
            histories.append(np.array([row for row in history if row >= 0], np.int64))
            found.append(self._empty(sum(row < 0 for row in history)))
        if not histories:
            return found
        request = Request(pack(histories), self.is_eligible, seed=self.run.config.seed)
        # Always the widest list: an answer must not depend on what others ask for.
        lists = self.recommender.recommend(request, self.most_items)
        for number, place in places.items():
            empty = found[number]
            assert isinstance(empty, Answer)
            rows, scores = lists.items[place].tolist(), lists.scores[place].tolist()
            found[number] = self._fill(empty, rows, scores, asks[number].k)
        return found

    def _history(self, ask: Ask) -> list[int]:
        """Return the rows of a history, -1 for items that are not in the catalogue."""
        if ask.user is None:
            return [self.rows.get(item, -1) for item in ask.history]
        row = self.users.get(ask.user)
        if row is None:
            raise DataError(
                f"user {ask.user[:60]!r}: is not in the log of this run; send the user's history"
            )
        events, offsets = self.run.data.positive.events, self.run.data.positive.offsets()
        rows: list[int] = events.item[offsets[row] : offsets[row + 1]].tolist()
        return rows

    def _empty(self, n_unknown: int) -> Answer:
        return Answer((), (), (), n_unknown, self.live.ids.version, self.live.ids.revision)

    def _fill(self, empty: Answer, rows: list[int], scores: list[float], k: int) -> Answer:
        kept = [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0][:k]
        return Answer(
            tuple(self.live.ids.items[row] for row, _ in kept),
            tuple(self.live.titles[row] for row, _ in kept),
            tuple(score for _, score in kept),
            empty.n_unknown,
            empty.version,
            empty.revision,
        )
