"""Sampling from a transformers model in this process.

A batch is drawn through a pool of at most `max_rows` rows (`pool`). Longest prompts come first. A
prompt is read once; its keys and values are copied for each of its samples that enters, and freed
with the last. A row that is finished leaves after the step, and the next sample takes its place: at
once where its prompt has been read, otherwise when an eighth of the rows is free, so that prompts
are read several at a time. Every step is one forward pass over the rows under way, and one wait for
the device, for the tokens. With nobody left to enter, the pool shrinks to its last row.

A row's noise depends on the batch, its place there and its step: not on when it entered, nor beside
whom. A batch larger than the pool (`batch_rows`) is what keeps the pool full; it begins with an
empty pool, so that the same batch gives the same bits. The policy's dtype is kept.
"""

import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trillium.errors import BackendError
from trillium.generation.interface import (
    N_CONTEXT,
    BatchedGenerator,
    Completion,
    Finish,
    PromptBatch,
    SamplingConfig,
)
from trillium.generation.pool import ReadPrompts, open_pool, read_prompts, send
from trillium.generation.sampling import draw_tokens
from trillium.generation.stops import StopFinder

# Share of the rows that is free before further prompts are read.
_REFILL_SHARE = 0.125
# Tokens of prompts, padding included, that one forward pass reads.
_READ_TOKENS = 8192


class TransformersGenerator(BatchedGenerator):
    """Continue prompts with a causal language model, with or without adapters."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_rows: int = 64,
        batch_rows: int | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        """Decode at most `max_rows` completions together.

        Plans hold `batch_rows` completions in a batch, by default `max_rows`. With more, finished
        rows make room for others; but a batch is what an interrupted stage repeats.
        `on_tokens` is told after every step how many tokens it added, for progress and rates.
        """
        super().__init__(max_rows=batch_rows or max_rows)
        self._model = model
        self._tokenizer = tokenizer
        self._n_rows = max_rows
        self._on_tokens = on_tokens
        self._end_ids = _end_ids(model, tokenizer)

    @torch.inference_mode()
    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read.

        Raises BackendError when the policy's logits are not numbers.
        """
        stops = StopFinder(self._decode, sampling.stop)
        draw = _Draw(self._model, batch, sampling, n_rows=self._n_rows, pad_id=self._pad_id)
        was_training = self._model.training
        self._model.eval()
        try:
            while not draw.is_done:
                n_taken = draw.step(self._end_ids, stops)
                if self._on_tokens is not None:
                    self._on_tokens(n_taken)
        finally:
            self._model.train(was_training)
        prompts = batch.prompts
        completions = [
            self._complete(prompts[row.prompt], row, stops, sampling) for row in draw.rows
        ]
        n_samples = batch.n_samples
        return [
            completions[start : start + n_samples]
            for start in range(0, len(completions), n_samples)
        ]

    @property
    def _pad_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _text_behind(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Decode `ids` as what they add to the prompt's text, as servers do.

        Decoded alone they lose their first space with some tokenizers, and code its indentation.
        """
        context = prompt[-N_CONTEXT:]
        before, whole = self._decode(context), self._decode([*context, *ids])
        # A prompt may end inside a character, which the first tokens then complete.
        return whole[len(before) :] if whole.startswith(before) else self._decode(ids)

    def _complete(
        self, prompt: Sequence[int], row: "_Row", stops: StopFinder, sampling: SamplingConfig
    ) -> Completion:
        text = self._text_behind(prompt, row.ids)
        finish: Finish = "stop" if row.is_stopped or stops.find(text) else "length"
        return Completion(
            ids=tuple(row.ids),
            text=stops.cut(text, keep_stop=sampling.keep_stop),
            finish=finish,
            logp=row.logp,
        )


@dataclass
class _Row:
    place: int  # in the batch, which decides its noise
    prompt: int
    ids: list[int] = field(default_factory=list)
    logp: float = 0.0
    is_stopped: bool = False
    is_done: bool = False

    def take(self, token: int, logp: float, end_ids: frozenset[int], stops: StopFinder) -> None:
        """Append a token."""
        if math.isnan(logp):
            raise BackendError(
                f"generate: the policy's logits are not numbers at token {len(self.ids)} (a "
                "trained policy has finite ones); its training diverged, so lower the learning rate"
            )
        self.ids.append(token)
        self.logp += logp
        self.is_stopped = token in end_ids or stops.is_hit(self.ids)


class _Draw:
    """The drawing of one batch: rows that wait, rows in the pool, rows that are done."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        batch: PromptBatch,
        sampling: SamplingConfig,
        *,
        n_rows: int,
        pad_id: int,
    ) -> None:
        self._model, self._batch, self._sampling, self._pad_id = model, batch, sampling, pad_id
        n_samples = batch.n_samples
        self.rows = [_Row(place, place // n_samples) for place in range(self._n_completions)]
        self._n_rows = min(n_rows, len(self.rows))
        longest = max(map(len, batch.prompts))
        self._pool = open_pool(
            model, n_rows=self._n_rows, max_tokens=longest + sampling.max_new_tokens
        )
        by_length = sorted(self.rows, key=lambda row: -len(batch.prompts[row.prompt]))
        self._waiting = deque(by_length)
        self._live: list[_Row] = []
        self._read: ReadPrompts | None = None
        self._sources: dict[int, int] = {}  # where in `_read` each prompt is
        self._noise = _Noise(batch.seed, len(self.rows))

    @property
    def _n_completions(self) -> int:
        return len(self._batch.prompts) * self._batch.n_samples

    @property
    def is_done(self) -> bool:
        """Say whether no row waits and none is under way."""
        return not self._waiting and not self._live

    def step(self, end_ids: frozenset[int], stops: StopFinder) -> int:
        """Draw one more token for every row, old and new; returns how many were drawn."""
        logits = []
        self._pool.expect(min(self._n_rows, len(self._live) + len(self._waiting)))
        if self._live:
            logits.append(self._pool.step([row.ids[-1] for row in self._live]))
        logits += self._admit()
        sampling, device = self._sampling, self._model.device
        uniforms = torch.tensor(
            [self._noise.uniform(len(row.ids), row.place) for row in self._live],
            dtype=torch.float64,
        )
        drawn = draw_tokens(
            torch.cat(logits) if len(logits) > 1 else logits[0],
            uniforms.to(device, non_blocking=True),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
        )
        n_taken = 0
        for row, token, logp in zip(self._live, drawn.tokens, drawn.logps, strict=True):
            # One that is done and waits to leave draws as well; nobody looks.
            if not row.is_done:
                row.take(token, logp, end_ids, stops)
                row.is_done = row.is_stopped or len(row.ids) == sampling.max_new_tokens
                n_taken += 1
        self._release()
        return n_taken

    def _admit(self) -> list[Tensor]:
        """Let rows enter while there is room; returns the logits of their first tokens."""
        logits = []
        while self._waiting and len(self._live) < self._n_rows:
            n_free = self._n_rows - len(self._live)
            if self._live and not self._pool.can_refill:
                break
            if self._waiting[0].prompt not in self._sources:
                if self._live and n_free < _REFILL_SHARE * self._n_rows:
                    break
                self._read_next(n_free)
            assert self._read is not None
            entering = []
            while self._waiting and self._waiting[0].prompt in self._sources and n_free:
                entering.append(self._waiting.popleft())
                n_free -= 1
            sources = [self._sources[row.prompt] for row in entering]
            logits.append(self._read.logits[send(sources, self._model.device)])
            self._pool.enter(self._read, sources)
            self._live += entering
            is_used_up = not self._pool.can_refill
            if is_used_up or not self._waiting or self._waiting[0].prompt not in self._sources:
                self._read, self._sources = None, {}
        return logits

    def _read_next(self, n_free: int) -> None:
        """Read the prompts of the next rows: of all that fit, within the tokens of one pass."""
        places = list(dict.fromkeys(row.prompt for row in list(self._waiting)[:n_free]))
        if self._pool.can_refill:
            longest = len(self._batch.prompts[places[0]])
            places = places[: max(1, _READ_TOKENS // longest)]
        prompts = [self._batch.prompts[place] for place in places]
        self._read = read_prompts(self._model, prompts, self._pad_id)
        self._sources = {place: source for source, place in enumerate(places)}

    def _release(self) -> None:
        """Let rows that are done leave; the last ones move to their places."""
        kept = [place for place, row in enumerate(self._live) if not row.is_done]
        n_leaving = len(self._live) - len(kept)
        if not n_leaving or (kept and n_leaving < self._pool.least_leaving * len(self._live)):
            return
        staying = [place for place in kept if place < len(kept)]
        moving = kept[len(staying) :]
        taken = set(staying)
        order = [place if place in taken else moving.pop() for place in range(len(kept))]
        self._pool.keep(order)
        self._live = [self._live[place] for place in order]


class _Noise:
    """A uniform number for each row and step of a batch, whenever it is asked for."""

    def __init__(self, seed: int, n_rows: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._n_rows = n_rows
        self._steps: list[array[float]] = []

    def uniform(self, step: int, row: int) -> float:
        """Return the number of a row's step, drawing the steps up to it first."""
        while len(self._steps) <= step:
            drawn = torch.rand(self._n_rows, generator=self._generator, dtype=torch.float64)
            self._steps.append(array("d", drawn.tolist()))
        return self._steps[step][row]


def _end_ids(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> frozenset[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(int(end) for end in [*found, tokenizer.eos_token_id] if end is not None)
