"""A generator that samples from one of the adapters on a model, whichever is active otherwise."""

from collections.abc import Sequence
from functools import partial

from peft import PeftModel

from trillium.generation.interface import (
    BatchedGenerator,
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
)
from trillium.policies.adapters import using_adapter


class AdapterGenerator(BatchedGenerator):
    """A generator that computes with one adapter, or with none."""

    def __init__(self, inner: Generator, model: PeftModel, adapter: str | None) -> None:
        """Let `inner` generate with `adapter` of `model`; None is the base alone."""
        self._inner = inner
        self._using = partial(using_adapter, model, adapter)

    def plan(
        self, prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int
    ) -> tuple[PromptBatch, ...]:
        """Return the batches that together draw `n_samples` completions of each prompt."""
        return self._inner.plan(prompts, n_samples=n_samples, seed=seed)

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt."""
        with self._using():
            return self._inner.generate_batch(batch, sampling)
