"""Rows that are decoded together: prompts are read once, rows enter and leave, a step reads them.

`SlotPool` lets rows enter at any step: each has a slot and a position of its own (`slots`), and the
first slots are always those under way, so that a finished row costs nothing from the next step on.
`WholePool` is for models whose layers cannot be filled row by row (windows, recurrence) or that
number positions themselves: rows enter together, padded on the left, and only leave. In both,
nothing waits for the device: what a step needs is sent in one piece, its logits stay there.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trillium.errors import BackendError
from trillium.generation.cache import GrowingLayer, growing_cache
from trillium.generation.slots import SlotCache, align
from trillium.scoring.layout import declared_reason

Model = PreTrainedModel | PeftModel
_STATE = "cache_params"
"""What models without attention call their past."""


@dataclass
class ReadPrompts:
    """Prompts that the model has read: their keys and values, and the logits that follow."""

    past: DynamicCache
    padding: list[int]  # columns in front of each prompt
    lengths: list[int]
    logits: Float[Tensor, "prompt vocab"]


def read_prompts(model: Model, prompts: Sequence[Sequence[int]], pad_id: int) -> ReadPrompts:
    """Read prompts in one forward pass, padded on the left."""
    lengths = [len(prompt) for prompt in prompts]
    n_columns = max(lengths)
    padding = [n_columns - length for length in lengths]
    ids = [[pad_id] * n + list(prompt) for n, prompt in zip(padding, prompts, strict=True)]
    past = growing_cache(model.config)
    positions = [[max(column - n, 0) for column in range(n_columns)] for n in padding]
    logits = model(
        input_ids=send(ids, model.device),
        attention_mask=_padding_mask(padding, n_columns, model.device),
        position_ids=send(positions, model.device),
        **{_past_argument(model): past},
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return ReadPrompts(past, padding, lengths, logits)


def open_pool(model: Model, *, n_rows: int, max_tokens: int) -> "SlotPool | WholePool":
    """Return an empty pool for `n_rows` rows of at most `max_tokens` tokens, prompts included."""
    is_plain = all(type(layer) is GrowingLayer for layer in growing_cache(model.config).layers)
    if is_plain and declared_reason(model) is None:
        return SlotPool(model, n_rows=n_rows, max_tokens=max_tokens)
    return WholePool(model)


class SlotPool:
    """Rows that enter and leave at any step."""

    can_refill = True
    least_leaving = 0.0
    """Share of the rows that must be done before any leaves."""

    def __init__(self, model: Model, *, n_rows: int, max_tokens: int) -> None:
        """Hold no rows and no memory yet."""
        self._model = model
        self._slots = SlotCache(model.config, model.device, n_slots=n_rows, max_tokens=max_tokens)
        self._lengths: list[int] = []  # tokens that each row has read

    def expect(self, n_rows: int) -> None:
        """Know that from now on there are never more than `n_rows` rows: the rest needs no room."""
        self._slots.expect(n_rows)

    def enter(self, read: ReadPrompts, sources: Sequence[int]) -> None:
        """Add a row for each place in `read` that `sources` names; `read` may be used again."""
        if any(read.padding):
            align(read.past, send(read.padding, self._model.device))
            read.padding = [0] * len(read.padding)
        first = len(self._lengths)
        self._slots.reserve(max(read.lengths), read.past)
        self._slots.fill(first, read.past, send(list(sources), self._model.device))
        self._lengths += [read.lengths[source] for source in sources]

    def keep(self, order: Sequence[int]) -> None:
        """Let row i be what row `order[i]` was; the others leave."""
        moved = [[source, target] for target, source in enumerate(order) if source != target]
        if moved:
            sources, targets = send(moved, self._model.device).unbind(1)
            self._slots.move(sources, targets, max(self._lengths))
        self._lengths = [self._lengths[source] for source in order]

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "row vocab"]:
        """Read one more token of each row and return the logits that follow."""
        n_columns = max(self._lengths) + 1
        self._slots.reserve(n_columns)
        rows = range(len(tokens))
        sent = send([list(tokens), self._lengths, list(rows)], self._model.device)
        cursor = self._slots.cursor
        cursor.columns, cursor.rows, cursor.n_columns = sent[1], sent[2], n_columns
        logits: Tensor = self._model(
            input_ids=sent[0][:, None],
            attention_mask=self._mask(sent[1], n_columns),
            position_ids=sent[1][:, None],
            past_key_values=self._slots.past,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._lengths = [length + 1 for length in self._lengths]
        return logits

    def _mask(
        self, columns: Int[Tensor, " row"], n_columns: int
    ) -> Float[Tensor, "row 1 1 column"] | None:
        """Return 0 up to each row's token and the lowest number behind it, in the model's dtype."""
        # Rows of one length read all there is, and attention kernels are faster without a mask.
        if min(self._lengths) + 1 == n_columns:
            return None
        is_behind = torch.arange(n_columns, device=columns.device) > columns[:, None]
        dtype = self._slots.dtype
        bias = torch.zeros(is_behind.shape, dtype=dtype, device=columns.device)
        return bias.masked_fill_(is_behind, torch.finfo(dtype).min)[:, None, None]


class WholePool:
    """Rows that enter together, the first time only."""

    can_refill = False
    # Leaving copies all keys and values of the rows that stay.
    least_leaving = 0.125

    def __init__(self, model: Model) -> None:
        """Hold no rows yet."""
        self._model = model
        self._past_argument = _past_argument(model)
        self._past: DynamicCache | None = None
        self._padding: list[int] = []
        self._n_columns = 0

    def expect(self, n_rows: int) -> None:
        """Hold what there is, as always."""

    def enter(self, read: ReadPrompts, sources: Sequence[int]) -> None:
        """Become the rows that `sources` names in `read`, whose memory is used up."""
        self._past = read.past
        self._select(sources)
        self._padding = [read.padding[source] for source in sources]
        self._n_columns = max(read.lengths)

    def keep(self, order: Sequence[int]) -> None:
        """Let row i be what row `order[i]` was; the others leave."""
        self._padding = [self._padding[source] for source in order]
        if order:
            self._select(order)

    def _select(self, rows: Sequence[int]) -> None:
        assert self._past is not None
        # Its other way to choose rows is one that recurrent layers do not have.
        self._past.reorder_cache(send(list(rows), self._model.device))  # type: ignore[arg-type]

    def step(self, tokens: Sequence[int]) -> Float[Tensor, "row vocab"]:
        """Read one more token of each row and return the logits that follow."""
        positions = [self._n_columns - n for n in self._padding]
        sent = send([list(tokens), positions], self._model.device)
        self._n_columns += 1
        mask = _padding_mask(self._padding, self._n_columns, self._model.device)
        logits: Tensor = self._model(
            input_ids=sent[0][:, None],
            # A state alone has no columns that could be padding.
            attention_mask=None if self._past_argument == _STATE else mask,
            position_ids=sent[1][:, None],
            **{self._past_argument: self._past},
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits


def _past_argument(model: Model) -> str:
    """Return the name under which a model takes what it has read."""
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    known = inspect.signature(causal.forward).parameters
    for name in ("past_key_values", _STATE):
        if name in known:
            return name
    raise BackendError(
        f"model {type(causal).__name__}: takes neither past_key_values nor {_STATE} (one of them "
        "carries what it has read from token to token); sample from it with a server or vLLM"
    )


def _padding_mask(
    padding: Sequence[int], n_columns: int, device: torch.device
) -> Int[Tensor, "row column"] | None:
    # Without padding the causal rule says it all.
    if not any(padding):
        return None
    return (torch.arange(n_columns, device=device) >= send(list(padding), device)[:, None]).long()


def send(numbers: list[int] | list[list[int]], device: torch.device) -> Int[Tensor, "*shape"]:
    """Return numbers as a tensor on the device, without waiting for what it is doing."""
    return torch.tensor(numbers).to(device, non_blocking=True)
