"""Keys and values of rows that come and go: a slot for each row, and a position in it of its own.

A slot begins at the first token of its row's prompt, so rows of any age share a step, and one that
enters disturbs nobody. Room grows in blocks, up to the longest row that can be asked for. Columns
behind a row's last token hold zeros or what an earlier row left, always numbers, and are masked.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_BLOCK_TOKENS = 128


class Cursor:
    """Where the layers put the next token of each row, and how far they read."""

    def __init__(self, device: torch.device) -> None:
        """Hold no rows yet."""
        empty = torch.empty(0, dtype=torch.long, device=device)
        self.columns: Int[Tensor, " row"] = empty
        self.rows: Int[Tensor, " row"] = empty
        self.n_columns = 0


class SlotLayer(DynamicLayer):
    """The keys and values of one layer; the first slots are those of the rows under way."""

    def __init__(self, cursor: Cursor) -> None:
        """Start without room."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._cursor = cursor

    # The signature is transformers': models may add arguments that only other caches read.
    def update(
        self,
        key_states: Float[Tensor, "row head 1 dim"],
        value_states: Float[Tensor, "row head 1 value_dim"],
        *_unread: object,
        **_unread_by_name: object,
    ) -> tuple[Tensor, Tensor]:
        """Put one token of each row in its place; return what the rows attend to."""
        assert self.keys is not None
        assert self.values is not None
        cursor = self._cursor
        n_rows = len(cursor.rows)
        self.keys[cursor.rows, :, cursor.columns] = key_states[:, :, 0]
        self.values[cursor.rows, :, cursor.columns] = value_states[:, :, 0]
        read = slice(n_rows), slice(None), slice(cursor.n_columns)
        return self.keys[read], self.values[read]

    def get_seq_length(self) -> int:
        """Return the tokens before the one of this step, in the longest row."""
        return max(self._cursor.n_columns - 1, 0)

    def reserve(self, n_slots: int, n_tokens: int, like: DynamicLayer) -> None:
        """Make room for `n_slots` rows of `n_tokens` tokens, shaped as those of `like`."""
        assert like.keys is not None
        assert like.values is not None
        self.keys = _grown(self.keys, like.keys, n_slots, n_tokens)
        self.values = _grown(self.values, like.values, n_slots, n_tokens)


class SlotCache:
    """The slots of all layers."""

    def __init__(
        self, config: PretrainedConfig, device: torch.device, *, n_slots: int, max_tokens: int
    ) -> None:
        """Hold at most `n_slots` rows of at most `max_tokens` tokens."""
        self.cursor = Cursor(device)
        self.past = DynamicCache(config=config)
        self._layers = [SlotLayer(self.cursor) for _ in self.past.layers]
        self.past.layers = list(self._layers)
        self._n_slots, self._max_tokens, self._n_reserved = n_slots, max_tokens, 0

    def expect(self, n_slots: int) -> None:
        """Let slots beyond `n_slots` go when the cache next grows."""
        self._n_slots = min(self._n_slots, n_slots)

    def reserve(self, n_tokens: int, like: DynamicCache | None = None) -> None:
        """Make room for rows of `n_tokens` tokens, the first time with heads as in `like`.

        Layers grow one by one, so that only one of them is held twice.
        """
        if n_tokens <= self._n_reserved:
            return
        in_blocks = -(-n_tokens // _BLOCK_TOKENS) * _BLOCK_TOKENS
        self._n_reserved = min(in_blocks, self._max_tokens)
        shapes = self._layers if like is None else like.layers
        for layer, shaped in zip(self._layers, shapes, strict=True):
            assert isinstance(shaped, DynamicLayer)
            layer.reserve(self._n_slots, self._n_reserved, shaped)

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of what is held."""
        return _content(self._layers[0])[0].dtype

    def fill(self, first: int, read: DynamicCache, sources: Int[Tensor, " row"]) -> None:
        """Copy rows of a prompt cache to the slots from `first` on."""
        for layer, source in zip(self._layers, read.layers, strict=True):
            for store, held in zip(_content(layer), _content(source), strict=True):
                store[first : first + len(sources), :, : held.shape[2]] = held[sources]

    def move(self, sources: Int[Tensor, " row"], targets: Int[Tensor, " row"], width: int) -> None:
        """Copy the first `width` tokens of slots onto others."""
        for layer in self._layers:
            for store in _content(layer):
                store[targets, :, :width] = store[sources, :, :width]


def align(cache: DynamicCache, padding: Int[Tensor, " row"]) -> None:
    """Shift rows that are padded on the left so that each begins in the first column."""
    n_columns = cache.get_seq_length()
    columns = torch.arange(n_columns, device=padding.device) + padding[:, None]
    columns = columns.clamp(max=n_columns - 1)
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        keys, values = _content(layer)
        layer.keys = keys.take_along_dim(columns[:, None, :, None], dim=2)
        layer.values = values.take_along_dim(columns[:, None, :, None], dim=2)


def _content(layer: object) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, DynamicLayer)
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _grown(store: Tensor | None, like: Tensor, n_slots: int, n_tokens: int) -> Tensor:
    # Zeros, because a masked weight of 0 does not silence what is not a number.
    _, n_heads, _, size = like.shape
    grown = like.new_zeros(n_slots, n_heads, n_tokens, size)
    if store is not None:
        grown[:, :, : store.shape[2]] = store[:n_slots]
    return grown
