"""Keys and values where transformers' `generate` keeps them: its own cache, one row per beam."""

from jaxtyping import Float
from torch import Tensor
from transformers import EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

from trillium_rec.models.attention import Attention, KeyValue


class GenerateMemory:
    """Read and write the cache that `generate` hands over, or nothing when it uses none."""

    def __init__(self, encoded: Float[Tensor, "row token hidden"], cache: object) -> None:
        """Keep both; `cache` is an EncoderDecoderCache or None."""
        self._encoded = encoded
        self._cache = cache if isinstance(cache, EncoderDecoderCache) else None
        self.n_past = self._cache.get_seq_length() if self._cache is not None else 0

    def extend(self, layer: int, new: KeyValue) -> KeyValue:
        """Append the newest tokens and return all of them."""
        if self._cache is None:
            return new
        return KeyValue(*self._cache.self_attention_cache.update(new.keys, new.values, layer))

    def of_encoder(self, layer: int, attention: Attention) -> KeyValue:
        """Return the keys and values of the encoder, computed at the first step."""
        if self._cache is None:
            return attention.remember(self._encoded)
        if self._cache.is_updated.get(layer):
            kept = self._cache.cross_attention_cache.layers[layer]
            assert isinstance(kept, DynamicLayer)
            assert kept.keys is not None
            assert kept.values is not None
            return KeyValue(kept.keys, kept.values)
        found = attention.remember(self._encoded)
        self._cache.is_updated[layer] = True
        return KeyValue(*self._cache.cross_attention_cache.update(found.keys, found.values, layer))
