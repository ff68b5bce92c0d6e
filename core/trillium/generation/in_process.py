"""Sampling from a transformers model in this process.

Each prompt is prefilled once for all of its samples; then the cache is repeated and one token per
row is decoded at a time. Rows that are finished leave the batch as soon as enough of them are.
The policy's dtype is kept, probabilities are float32. Same batch, same machine, same tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from trillium.errors import BackendError
from trillium.generation.cache import growing_cache
from trillium.generation.interface import (
    Completion,
    Finish,
    PromptBatch,
    SamplingConfig,
    assemble,
    plan_batches,
)
from trillium.generation.sampling import choose_tokens, token_logps
from trillium.generation.stops import StopFinder


class TransformersGenerator:
    """Continue prompts with a causal language model, with or without adapters."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_rows: int = 64,
        compact_share: float = 0.125,
        on_tokens: Callable[[int], None] | None = None,
    ) -> None:
        """Decode at most `max_rows` completions together.

        `on_tokens` is told after every step how many tokens it added, for progress and rates.
        Finished rows are dropped once they are `compact_share` of the rows; above 1 they never are.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._max_rows = max_rows
        self._compact_share = compact_share
        self._on_tokens = on_tokens
        self._end_ids = _end_ids(model, tokenizer)

    def plan(
        self, prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int
    ) -> tuple[PromptBatch, ...]:
        """Return the batches that together draw `n_samples` completions of each prompt."""
        return plan_batches(prompts, n_samples=n_samples, seed=seed, max_rows=self._max_rows)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n_samples: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        stop: Sequence[str],
        seed: int,
    ) -> list[list[Completion]]:
        """Return `n_samples` completions per prompt, in the order of the prompts."""
        sampling = SamplingConfig(
            n_samples=n_samples,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
            stop=tuple(stop),
        )
        batches = self.plan(prompts, n_samples=n_samples, seed=seed)
        results = [self.generate_batch(batch, sampling) for batch in batches]
        return assemble(len(prompts), batches, results)

    @torch.inference_mode()
    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read.

        Raises BackendError when the policy's logits are not numbers.
        """
        was_training = self._model.training
        self._model.eval()
        try:
            rows = self._decode_rows(batch, sampling)
        finally:
            self._model.train(was_training)
        stops = StopFinder(self._decode, sampling.stop)
        completions = [self._complete(row, stops, sampling) for row in rows]
        n_samples = batch.n_samples
        return [
            completions[start : start + n_samples]
            for start in range(0, len(completions), n_samples)
        ]

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def _decode_rows(self, batch: PromptBatch, sampling: SamplingConfig) -> list["_Row"]:
        rows = [_Row() for _ in range(len(batch.prompts) * batch.n_samples)]
        stops = StopFinder(self._decode, sampling.stop)
        # One number per row and step whoever is still alive: a row's draws are its own.
        noise = torch.Generator().manual_seed(batch.seed)
        state = self._prefill(batch)
        for step in range(sampling.max_new_tokens):
            uniforms = torch.rand(len(rows), generator=noise, dtype=torch.float64)
            if step:
                state.logits = self._forward(state)
            if bool(state.logits.isnan().any()):
                raise BackendError(
                    f"generate: the policy's logits are not numbers at token {step} (a trained "
                    "policy has finite ones); its training diverged, so lower the learning rate"
                )
            tokens = choose_tokens(
                state.logits,
                uniforms[state.rows].to(state.logits.device),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
            )
            logps = token_logps(state.logits, tokens).tolist()
            state.tokens = tokens
            n_taken = 0
            for row, token, logp in zip(state.rows, tokens.tolist(), logps, strict=True):
                n_taken += rows[row].take(token, logp, self._end_ids, stops)
            if self._on_tokens is not None:
                self._on_tokens(n_taken)
            if all(row.is_stopped for row in rows):
                break
            state.drop_finished(rows, self._compact_share)
        return rows

    def _prefill(self, batch: PromptBatch) -> "_State":
        device = self._model.device
        n_longest = max(len(prompt) for prompt in batch.prompts)
        pad = self._tokenizer.pad_token_id or 0
        padding = [n_longest - len(prompt) for prompt in batch.prompts]
        ids = [[pad] * n + list(prompt) for n, prompt in zip(padding, batch.prompts, strict=True)]
        n_padding = torch.tensor(padding, device=device)
        columns = torch.arange(n_longest, device=device)
        cache = growing_cache(self._model.config)
        logits = self._model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=_mask(n_padding, n_longest),
            position_ids=(columns - n_padding[:, None]).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        cache.batch_repeat_interleave(batch.n_samples)
        return _State(
            cache=cache,
            n_padding=n_padding.repeat_interleave(batch.n_samples),
            n_columns=n_longest,
            logits=logits.repeat_interleave(batch.n_samples, dim=0),
            rows=list(range(len(ids) * batch.n_samples)),
        )

    def _forward(self, state: "_State") -> Float[Tensor, "row vocab"]:
        position_ids = (state.n_columns - state.n_padding)[:, None]
        state.n_columns += 1
        logits: Tensor = self._model(
            input_ids=state.tokens[:, None],
            attention_mask=_mask(state.n_padding, state.n_columns),
            position_ids=position_ids,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

    def _complete(self, row: "_Row", stops: StopFinder, sampling: SamplingConfig) -> Completion:
        text = self._decode(row.ids)
        finish: Finish = "stop" if row.is_stopped or stops.find(text) else "length"
        return Completion(
            ids=tuple(row.ids),
            text=stops.cut(text, keep_stop=sampling.keep_stop),
            finish=finish,
            logp=row.logp,
        )


@dataclass
class _Row:
    ids: list[int] = field(default_factory=list)
    logp: float = 0.0
    is_stopped: bool = False

    def take(self, token: int, logp: float, end_ids: frozenset[int], stops: StopFinder) -> bool:
        """Append a token, unless this row is done and only waits to leave the batch; say which."""
        if self.is_stopped:
            return False
        self.ids.append(token)
        self.logp += logp
        self.is_stopped = token in end_ids or stops.is_hit(self.ids)
        return True


@dataclass
class _State:
    cache: DynamicCache
    n_padding: Int[Tensor, " row"]
    n_columns: int
    logits: Float[Tensor, "row vocab"]
    rows: list[int]  # which completion each row of the tensors belongs to
    tokens: Int[Tensor, " row"] = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def drop_finished(self, rows: Sequence[_Row], compact_share: float) -> None:
        """Remove finished rows from all tensors once they are worth the copying."""
        alive = [place for place, row in enumerate(self.rows) if not rows[row].is_stopped]
        if len(self.rows) - len(alive) < max(1.0, compact_share * len(self.rows)):
            return
        kept = torch.tensor(alive, device=self.tokens.device)
        self.cache.batch_select_indices(kept)
        self.n_padding, self.tokens = self.n_padding[kept], self.tokens[kept]
        self.rows = [self.rows[place] for place in alive]


def _mask(n_padding: Int[Tensor, " row"], n_columns: int) -> Int[Tensor, "row column"] | None:
    # Without padding the causal rule says it all, and attention kernels are faster without a mask.
    if not bool(n_padding.any()):
        return None
    columns = torch.arange(n_columns, device=n_padding.device)
    return (columns >= n_padding[:, None]).long()


def _end_ids(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase
) -> frozenset[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    found = configured if isinstance(configured, list) else [configured]
    return frozenset(int(end) for end in [*found, tokenizer.eos_token_id] if end is not None)
