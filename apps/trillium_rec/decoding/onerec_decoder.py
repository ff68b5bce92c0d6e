"""OneRec as a `CodeDecoder`: the history's keys and values by user, the session's by beam."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from trillium.errors import ConfigError

from trillium_rec.models.attention import BeamMemory
from trillium_rec.models.onerec import OneRec, Reading


class OneRecDecoder:
    """Decode one token at a time; BOS goes in by itself before every item."""

    def __init__(self, model: OneRec, reading: Reading) -> None:
        """Begin with the users that were read."""
        self._model, self._reading = model, reading
        self._memory = BeamMemory(reading.encoded)
        self._n_beams = 1
        self._n_finished = 0
        self._level = 0

    def first(self) -> Float[Tensor, "user 1 code"]:
        """Return the logits of the first code of each user."""
        n_users = len(self._reading.encoded)
        shape, bos_id = (n_users, 1, 1), self._model.config.bos_token_id
        bos = torch.full(shape, bos_id, device=self._reading.encoded.device)
        return self._logits(bos)

    def advance(
        self, parents: Int[Tensor, "user beam"], codes: Int[Tensor, "user beam"]
    ) -> Float[Tensor, "user beam code"]:
        """Take one more code per beam and return the logits of the next level."""
        self._follow(parents)
        token = codes + sum(self._model.config.sizes[: self._level])
        self._level += 1
        return self._logits(token[..., None])

    def finish_item(
        self,
        parents: Int[Tensor, "user beam"],
        codes: Int[Tensor, "user beam"],
        items: Int[Tensor, "user beam"],
    ) -> Float[Tensor, "user beam code"]:
        """Take the last code and a BOS, and return the logits of the next item's first code.

        Raises ConfigError when the session gets longer than those the model was made for.
        """
        self._n_finished += 1
        if self._n_finished >= self._model.config.n_session:
            raise ConfigError(
                f"session: item {self._n_finished + 1} is asked for, and model.n_session is "
                f"{self._model.config.n_session}; ask for shorter sessions, or train a model with "
                "longer ones"
            )
        self._follow(parents)
        last = codes + sum(self._model.config.sizes[: self._level])
        self._level = 0
        bos = torch.full_like(last, self._model.config.bos_token_id)
        return self._logits(torch.stack([last, bos], dim=2))

    def _logits(self, tokens: Int[Tensor, "user beam token"]) -> Float[Tensor, "user beam code"]:
        hidden = self._model.decode(tokens, self._memory, self._reading.mask)
        found: Tensor = self._model.heads[self._level](hidden[:, :, -1])
        return found

    def _follow(self, parents: Int[Tensor, "user beam"]) -> None:
        """Let every beam continue its parent."""
        first = torch.arange(len(parents), device=parents.device)[:, None] * self._n_beams
        self._memory.reorder((first + parents).flatten())
        self._n_beams = parents.shape[1]
