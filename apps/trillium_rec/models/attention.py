"""Attention in parts, so that a decoder can keep keys and values by user and by beam."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class KeyValue:
    """Hold keys and values of some tokens."""

    keys: Float[Tensor, "row head token size"]
    values: Float[Tensor, "row head token size"]


class Attention(nn.Module):
    """Project queries, keys and values, and mix."""

    def __init__(self, d_model: int, n_heads: int, d_head: int) -> None:
        """Build the four projections, without biases as in T5."""
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, n_heads * d_head, bias=False)
        self.key = nn.Linear(d_model, n_heads * d_head, bias=False)
        self.value = nn.Linear(d_model, n_heads * d_head, bias=False)
        self.output = nn.Linear(n_heads * d_head, d_model, bias=False)

    def remember(self, tokens: Float[Tensor, "row token hidden"]) -> KeyValue:
        """Return the keys and values of tokens."""
        return KeyValue(self._split(self.key(tokens)), self._split(self.value(tokens)))

    def mix(
        self,
        tokens: Float[Tensor, "row query hidden"],
        memory: KeyValue,
        mask: Bool[Tensor, "..."] | None,
    ) -> Float[Tensor, "row query hidden"]:
        """Return what each token takes from the memory; `mask` says who may see what."""
        mixed = functional.scaled_dot_product_attention(
            self._split(self.query(tokens)), memory.keys, memory.values, attn_mask=mask
        )
        found: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return found

    def _split(self, projected: Float[Tensor, "row token all"]) -> Tensor:
        n_rows, n_tokens, _ = projected.shape
        return projected.view(n_rows, n_tokens, self.n_heads, -1).transpose(1, 2)


class Memory(Protocol):
    """Keep the keys and values of a decoder; one row per beam, and one per user for the encoder."""

    @property
    def n_past(self) -> int:
        """Count the tokens that each beam has already taken."""
        ...

    def extend(self, layer: int, new: KeyValue) -> KeyValue:
        """Append the newest tokens of every beam and return all of them."""
        ...

    def of_encoder(self, layer: int, attention: Attention) -> KeyValue:
        """Return the keys and values of what the encoder found; computed once per layer."""
        ...


@dataclass
class BeamMemory:
    """Keep self-attention by beam and cross-attention by user; beams never copy the latter.

    Tokens come first in the layout, so that following the parents and making room for a token is
    one pass over what is kept. Gradients flow through the first tokens only: training has no past.
    """

    encoded: Float[Tensor, "user token hidden"]
    _beams: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _users: dict[int, KeyValue] = field(default_factory=dict)
    _rows: dict[int, Tensor] = field(default_factory=dict)

    @property
    def n_past(self) -> int:
        """Count the tokens that each beam has already taken."""
        return len(self._beams[0][0]) if self._beams else 0

    def extend(self, layer: int, new: KeyValue) -> KeyValue:
        """Append the newest tokens of every beam and return all of them."""
        keys, values = (part.permute(2, 0, 1, 3) for part in (new.keys, new.values))
        if layer in self._beams:
            rows = self._rows.pop(layer, None)
            old_keys, old_values = self._beams[layer]
            keys, values = _append(old_keys, rows, keys), _append(old_values, rows, values)
        self._beams[layer] = keys, values
        return KeyValue(keys.permute(1, 2, 0, 3), values.permute(1, 2, 0, 3))

    def of_encoder(self, layer: int, attention: Attention) -> KeyValue:
        """Return the keys and values of each user's history."""
        if layer not in self._users:
            self._users[layer] = attention.remember(self.encoded)
        return self._users[layer]

    def reorder(self, rows: Int[Tensor, " row"]) -> None:
        """Let beam b continue what beam rows[b] was, once per token taken."""
        self._rows = dict.fromkeys(self._beams, rows)


def _append(
    old: Float[Tensor, "past row head size"],
    rows: Int[Tensor, " row"] | None,
    new: Float[Tensor, "token row head size"],
) -> Float[Tensor, "all row head size"]:
    grown = new.new_empty((len(old) + len(new), *new.shape[1:]))
    if rows is None:
        grown[: len(old)] = old
    else:
        torch.index_select(old, 1, rows, out=grown[: len(old)])
    grown[len(old) :] = new
    return grown
