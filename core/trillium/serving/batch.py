"""Rows that are decoded together and may come and go between any two tokens.

A row is prefilled alone, without padding, and then joins: its keys and values are padded on the
left to the columns of the batch. Padded columns are masked, and positions do not count them. Rows
of several adapters share the batch; only the small update differs.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from trillium.errors import BackendError
from trillium.generation.cache import GrowingLayer, growing_cache
from trillium.generation.sampling import choose_tokens
from trillium.serving.adapters import Adapters
from trillium.serving.rows import Row


class DecodeBatch:
    """Hold the rows under way, their cache, and the logits of their next tokens."""

    def __init__(self, adapters: Adapters, *, max_rows: int, end_ids: frozenset[int]) -> None:
        """Decode at most `max_rows` together; one where the model's cache cannot be joined."""
        self._adapters = adapters
        self._end_ids = end_ids
        self.rows: list[Row] = []
        self._cache: DynamicCache | None = None
        self._n_padding = torch.empty(0, dtype=torch.long)
        self._n_columns = 0
        can_join = all(type(layer) is GrowingLayer for layer in self._new_cache().layers)
        self.max_rows = max_rows if can_join else 1

    @torch.inference_mode()
    def admit(self, row: Row) -> None:
        """Prefill a row, sample its first token, and let it join unless that was its last."""
        device = self._adapters.device
        cache = self._new_cache()
        logits = self._adapters.forward(
            [row.key],
            input_ids=torch.tensor([row.prompt], device=device),
            past_key_values=cache,
        )
        self._sample([row], logits)
        if row.is_finished:
            return
        if self._cache is None or not self.rows:
            self._cache = cache
            self._n_padding = torch.zeros(1, dtype=torch.long, device=device)
            self._n_columns = len(row.prompt)
        else:
            self._join(cache, len(row.prompt))
        self.rows.append(row)

    @torch.inference_mode()
    def step(self) -> None:
        """Sample one more token of every row; finished and cancelled rows leave before that."""
        self.drop_finished()
        if not self.rows:
            return
        device = self._adapters.device
        position_ids = (self._n_columns - self._n_padding)[:, None]
        self._n_columns += 1
        last = [[row.text.ids[-1]] for row in self.rows]
        logits = self._adapters.forward(
            [row.key for row in self.rows],
            input_ids=torch.tensor(last, device=device),
            attention_mask=self._mask(),
            position_ids=position_ids,
            past_key_values=self._cache,
        )
        self._sample(self.rows, logits)

    @torch.inference_mode()
    def drop_finished(self) -> None:
        """Remove rows that are done, and the columns that only they needed."""
        kept = [i for i, row in enumerate(self.rows) if not row.is_finished]
        kept = [i for i in kept if not self.rows[i].is_cancelled]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self.clear()
            return
        assert self._cache is not None
        index = torch.tensor(kept, device=self._n_padding.device)
        self._n_padding = self._n_padding[index]
        unused = int(self._n_padding.min())
        self._cache.layers = [
            _filled(keys[index, :, unused:], values[index, :, unused:])
            for keys, values in map(_content, self._cache.layers)
        ]
        self._n_padding = self._n_padding - unused
        self._n_columns -= unused

    def clear(self) -> None:
        """Forget all rows and their cache."""
        self.rows, self._cache, self._n_columns = [], None, 0

    def _new_cache(self) -> DynamicCache:
        return growing_cache(self._adapters.config)

    def _mask(self) -> Tensor | None:
        if not bool(self._n_padding.any()):
            return None
        columns = torch.arange(self._n_columns, device=self._n_padding.device)
        return (columns >= self._n_padding[:, None]).long()

    def _join(self, new: DynamicCache, n_new: int) -> None:
        """Put a row's cache below the others', both padded on the left to the longer."""
        assert self._cache is not None
        longest = max(self._n_columns, n_new)
        old_extra, new_extra = longest - self._n_columns, longest - n_new
        self._cache.layers = [
            _filled(
                *(
                    torch.cat([pad(held, (0, 0, old_extra, 0)), pad(added, (0, 0, new_extra, 0))])
                    for held, added in zip(_content(old), _content(joining), strict=True)
                )
            )
            for old, joining in zip(self._cache.layers, new.layers, strict=True)
        ]
        added = torch.tensor([new_extra], device=self._n_padding.device)
        self._n_padding = torch.cat([self._n_padding + old_extra, added])
        self._n_columns = longest

    def _sample(self, rows: list[Row], logits: Tensor) -> None:
        if bool(logits.isnan().any()):
            raise BackendError(
                "serve: the model's logits are not numbers (an intact adapter gives finite ones); "
                "run trillium deploy check on the adapters"
            )
        for index, row in enumerate(rows):
            scores = logits[index : index + 1]
            uniform = torch.rand(1, generator=row.noise, dtype=torch.float64)
            token = choose_tokens(
                scores,
                uniform.to(scores.device),
                temperature=row.sampling.temperature,
                top_p=row.sampling.top_p,
                top_k=row.sampling.top_k,
            )
            row.take(int(token), self._end_ids)


def _content(layer: object) -> tuple[Tensor, Tensor]:
    assert isinstance(layer, GrowingLayer)
    assert layer.keys is not None
    assert layer.values is not None
    return layer.keys, layer.values


def _filled(keys: Tensor, values: Tensor) -> GrowingLayer:
    layer = GrowingLayer()
    layer.update(keys, values)
    return layer
