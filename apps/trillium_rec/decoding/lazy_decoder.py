"""The lazy recommender as a `CodeDecoder`: one state per user, one sum of code vectors per beam."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trillium_rec.models.batches import keep_last
from trillium_rec.models.lazy import LazyReading, LazyRecommender


class LazyDecoder:
    """Decode codes from the state after a history; a finished item makes a new state."""

    def __init__(self, model: LazyRecommender, reading: LazyReading) -> None:
        """Begin with the users that were read."""
        self._model, self._vectors = model, reading.vectors
        self._items = reading.items[:, None]
        self._states = reading.states[:, None]
        self._prefix = torch.zeros_like(self._states)
        self._level = 0

    def first(self) -> Float[Tensor, "user 1 code"]:
        """Return the logits of the first code of each user."""
        return self._model.level_logits(self._states, 0)

    def advance(
        self, parents: Int[Tensor, "user beam"], codes: Int[Tensor, "user beam"]
    ) -> Float[Tensor, "user beam code"]:
        """Add one code to each beam and return the logits of the next level."""
        prefix = _of(self._prefix, parents)
        self._prefix = prefix + self._model.code_inputs[self._level](codes)
        # Before the first item every beam of a user continues from one state.
        if self._states.shape[1] > 1:
            self._states, self._items = _of(self._states, parents), _of(self._items, parents)
        self._level += 1
        return self._model.level_logits(self._states + self._prefix, self._level)

    def finish_item(
        self,
        parents: Int[Tensor, "user beam"],
        codes: Int[Tensor, "user beam"],
        items: Int[Tensor, "user beam"],
    ) -> Float[Tensor, "user beam code"]:
        """Append an item to each beam's history and return the logits of the next first code."""
        history = _of(self._items, parents if self._items.shape[1] > 1 else parents * 0)
        history = torch.cat([history, items[..., None]], dim=2)
        n_users, n_beams, _ = history.shape
        rows = keep_last(history.flatten(0, 1), self._model.config.max_items)
        states = self._model.states_after(rows, self._vectors)
        self._items = rows.view(n_users, n_beams, -1)
        self._states = states.view(n_users, n_beams, -1)
        self._prefix = torch.zeros_like(self._states)
        self._level = 0
        return self._model.level_logits(self._states, 0)


def _of(values: Tensor, parents: Int[Tensor, "user beam"]) -> Tensor:
    """Return the rows of the beams that are continued."""
    return values[torch.arange(len(parents), device=parents.device)[:, None], parents]
