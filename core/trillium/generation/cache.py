"""A key-value cache that grows in place.

transformers' dynamic cache copies all keys and values for every new token. These layers keep room
for the tokens to come and hand out views, which is exact and leaves the model code alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_ROOM_TOKENS = 128


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, with room for more tokens behind them."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._key_store: Tensor | None = None
        self._value_store: Tensor | None = None

    # The signature is transformers': models may add arguments that only other caches read.
    def update(
        self,
        key_states: Float[Tensor, "row head new dim"],
        value_states: Float[Tensor, "row head new value_dim"],
        *_unread: object,
        **_unread_by_name: object,
    ) -> tuple[Tensor, Tensor]:
        """Append the new tokens and return all keys and values."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        self._key_store, self.keys = _append(self._key_store, self.keys, key_states)
        self._value_store, self.values = _append(self._value_store, self.values, value_states)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        self._key_store = self._value_store = None
        super().batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows `indices`."""
        self._key_store = self._value_store = None
        super().batch_select_indices(indices)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep only the rows `beam_idx`; recurrent layers have no other way to."""
        self._key_store = self._value_store = None
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """Build a cache for a model; other layers than full attention keep transformers' own kind."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def _append(store: Tensor | None, held: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    n_held, n_new = held.shape[-2], new.shape[-2]
    if store is None or n_held + n_new > store.shape[-2]:
        shape = list(held.shape)
        shape[-2] = n_held + n_new + _ROOM_TOKENS
        store = torch.empty(shape, dtype=held.dtype, device=held.device)
        store[..., :n_held, :] = held
    store[..., n_held : n_held + n_new, :] = new
    return store, store[..., : n_held + n_new, :]
