"""What every generator takes and returns, and how prompts are planned into batches.

A batch is the unit of work and of randomness: it carries its own seed, so a stage that was
interrupted continues with the missing batches and ends with the same completions. Nothing here
imports torch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from trillium.errors import DataError

Finish = Literal["stop", "length"]

StopString = Annotated[str, Field(min_length=1)]
"""What ends a completion; the empty string would end each before it began."""

N_CONTEXT = 8
"""Last tokens of a prompt behind which its continuation is decoded: some tokenizers leave out the
space before the first token of a text."""


class SamplingConfig(BaseModel):
    """How completions are drawn from a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(default=1, gt=0, description="completions per prompt")
    temperature: float = Field(
        default=0.8, ge=0, description="0 takes the likeliest token every time"
    )
    top_p: float = Field(
        default=0.95, gt=0, le=1, description="mass of the nucleus; 1 turns it off"
    )
    top_k: int = Field(default=0, ge=0, description="keep the k likeliest tokens; 0 turns it off")
    max_new_tokens: int = Field(default=256, gt=0, description="tokens per completion, at most")
    stop: tuple[StopString, ...] = Field(default=(), description="strings that end a completion")
    keep_stop: bool = Field(
        default=False, description="leave the stop string at the end of the text"
    )


@dataclass(frozen=True)
class Completion:
    """One sampled continuation of a prompt.

    `ids` are all sampled tokens, the end-of-text token and those of a stop string included, so that
    they can be scored as written. `text` is what they add to that of the prompt, without special
    tokens and, unless it is kept, the stop string. `logp` is the sum of the tokens'
    log-probabilities in nats under the policy at temperature 1; None when the backend does not
    tell. `is_encoded_again` marks ids that are this tokenizer's reading of the text, because the
    backend did not say what it sampled.
    """

    ids: tuple[int, ...]
    text: str
    finish: Finish
    logp: float | None = None
    is_encoded_again: bool = False


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are decoded together, with the seed of their noise."""

    indices: tuple[int, ...]  # place of each prompt in the planned list
    prompts: tuple[tuple[int, ...], ...]
    n_samples: int
    seed: int


@runtime_checkable
class Generator(Protocol):
    """Anything that continues token prompts."""

    def plan(
        self, prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int
    ) -> tuple[PromptBatch, ...]:
        """Return the batches that together draw `n_samples` completions of each prompt."""
        ...

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, seed: int
    ) -> list[list[Completion]]:
        """Return `sampling.n_samples` completions per prompt, in the order of the prompts."""
        ...


@runtime_checkable
class BatchesGenerator(Generator, Protocol):
    """A generator that works on several batches at a time, a bounded number of them."""

    def generate_batches(
        self, batches: Sequence[PromptBatch], sampling: SamplingConfig
    ) -> Iterator[list[list[Completion]]]:
        """Yield what `generate_batch` returns for each batch, in order."""
        ...


def generate_batches(
    generator: Generator, batches: Sequence[PromptBatch], sampling: SamplingConfig
) -> Iterator[list[list[Completion]]]:
    """Yield the completions of each batch, in order, several at a time where that is possible."""
    if isinstance(generator, BatchesGenerator):
        yield from generator.generate_batches(batches, sampling)
        return
    for batch in batches:
        yield generator.generate_batch(batch, sampling)


class BatchedGenerator(ABC):
    """A generator that needs only say how one batch is drawn; plans hold `max_rows` completions."""

    def __init__(self, *, max_rows: int) -> None:
        """Draw at most `max_rows` completions in a batch."""
        self._max_rows = max_rows

    @abstractmethod
    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read."""

    def plan(
        self, prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int
    ) -> tuple[PromptBatch, ...]:
        """Return the batches that together draw `n_samples` completions of each prompt."""
        return plan_batches(prompts, n_samples=n_samples, seed=seed, max_rows=self._max_rows)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingConfig, *, seed: int
    ) -> list[list[Completion]]:
        """Return `sampling.n_samples` completions per prompt, in the order of the prompts."""
        batches = self.plan(prompts, n_samples=sampling.n_samples, seed=seed)
        return assemble(len(prompts), batches, list(generate_batches(self, batches, sampling)))


def plan_batches(
    prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int, max_rows: int
) -> tuple[PromptBatch, ...]:
    """Group prompts of similar length into batches of at most `max_rows` completions.

    Longest first, so that a batch that does not fit in memory fails at once. A prompt with more
    samples than `max_rows` is spread over several batches. The same arguments give the same plan.
    Raises DataError when a prompt has no tokens.
    """
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompt {index}: has no tokens (at least one is needed); drop it")
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    per_batch = max(1, max_rows // n_samples)
    groups = [tuple(order[start : start + per_batch]) for start in range(0, len(order), per_batch)]
    shares = _even_shares(n_samples, max_rows)
    batches: list[PromptBatch] = []
    for group in groups:
        for share in shares:
            batches.append(
                PromptBatch(
                    indices=group,
                    prompts=tuple(tuple(prompts[index]) for index in group),
                    n_samples=share,
                    seed=_batch_seed(seed, len(batches)),
                )
            )
    return tuple(batches)


def assemble(
    n_prompts: int, batches: Sequence[PromptBatch], results: Sequence[list[list[Completion]]]
) -> list[list[Completion]]:
    """Return the completions of each prompt in the order of the prompts that were planned."""
    completions: list[list[Completion]] = [[] for _ in range(n_prompts)]
    for batch, result in zip(batches, results, strict=True):
        for index, drawn in zip(batch.indices, result, strict=True):
            completions[index].extend(drawn)
    return completions


def _even_shares(n_samples: int, max_rows: int) -> list[int]:
    n_parts = -(-n_samples // max_rows)
    return [n_samples // n_parts + (part < n_samples % n_parts) for part in range(n_parts)]


def _batch_seed(seed: int, position: int) -> int:
    digest = hashlib.sha256(f"{seed}/{position}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
