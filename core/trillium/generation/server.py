"""Sampling from a server that speaks OpenAI's completions protocol, such as vLLM.

Prompts travel as token ids, so that what the server continues is what was rendered here. The
server draws the samples: equal seeds give equal samples only as far as the server keeps that, and
vLLM draws the i-th samples of all prompts of one request from one seed.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from pydantic import BaseModel, NonNegativeInt
from transformers import PreTrainedTokenizerBase

from trillium.errors import BackendError
from trillium.generation.config import ServerConfig
from trillium.generation.connection import ServerConnection
from trillium.generation.interface import (
    BatchedGenerator,
    Completion,
    Finish,
    PromptBatch,
    SamplingConfig,
)
from trillium.generation.parallel import map_ahead
from trillium.generation.stops import StopFinder

# What vLLM would else take from the model's generation_config.json is turned off.
_OF_VLLM = {"return_token_ids": True, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class ServerGenerator(BatchedGenerator):
    """Continue prompts by asking a server.

    A server that returns token ids knows vLLM's fields, and is told to sample by `sampling` alone.
    Without `returns_token_ids`, ids are this tokenizer's encoding of the text: fine for training on
    the text, but not always the tokens that were sampled, and without the end-of-text token. Such
    completions say `is_encoded_again`.
    """

    def __init__(
        self, config: ServerConfig, tokenizer: PreTrainedTokenizerBase, *, model: str | None = None
    ) -> None:
        """Ask the server of `config` for its model, or for another one by name.

        Nothing is sent yet. Raises ConfigError without the server's key.
        """
        super().__init__(max_rows=config.max_rows)
        self._config = config
        self._model = model or config.model
        self._tokenizer = tokenizer
        self._connection = ServerConnection(config)

    def generate_batches(
        self, batches: Sequence[PromptBatch], sampling: SamplingConfig
    ) -> Iterator[list[list[Completion]]]:
        """Yield the completions of each batch, in order; a few requests are under way at a time."""
        draw = partial(self._draw, sampling=sampling)
        return map_ahead(draw, batches, n_ahead=self._config.n_requests)

    def _draw(self, batch: PromptBatch, sampling: SamplingConfig) -> list[list[Completion]]:
        return self.generate_batch(batch, sampling)

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read."""
        request: dict[str, object] = {
            "model": self._model,
            "prompt": [list(prompt) for prompt in batch.prompts],
            "n": batch.n_samples,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": batch.seed % 2**31,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if self._config.returns_token_ids:
            request |= _OF_VLLM
        if sampling.top_k:
            request["top_k"] = sampling.top_k
        if sampling.keep_stop:
            request["include_stop_str_in_output"] = True
        answer = self._connection.post("completions", request, _Answer)
        choices = sorted(answer.choices, key=lambda choice: choice.index)
        n_expected = len(batch.prompts) * batch.n_samples
        if [choice.index for choice in choices] != list(range(n_expected)):
            raise BackendError(
                f"{self._config.url}: answered {len(choices)} completions ({n_expected} were asked "
                "for); use a server that takes several prompts in one request, or max_rows = 1"
            )
        completions = [self._complete(choice, sampling) for choice in choices]
        return [
            completions[start : start + batch.n_samples]
            for start in range(0, n_expected, batch.n_samples)
        ]

    def _complete(self, choice: "_Choice", sampling: SamplingConfig) -> Completion:
        ids = choice.token_ids
        if ids is None:
            if self._config.returns_token_ids:
                raise BackendError(
                    f"{self._config.url}: sends no token_ids (return_token_ids was asked for); "
                    "set returns_token_ids = false to encode the text again"
                )
            ids = self._tokenizer.encode(choice.text, add_special_tokens=False)
        if max(ids, default=0) >= len(self._tokenizer):
            raise BackendError(
                f"{self._config.url}: sampled token {max(ids)} (the policy's tokenizer has "
                f"{len(self._tokenizer)}); serve the model that policy.base names"
            )
        if choice.token_ids is not None:
            self._check_ids(choice, sampling.max_new_tokens)
        if choice.finish_reason not in ("stop", "length", None):
            raise BackendError(
                f"{self._config.url}: ended a completion with {choice.finish_reason} (stop or "
                "length was expected); look into the server's log"
            )
        finish: Finish = "length" if choice.finish_reason == "length" else "stop"
        stops = StopFinder(lambda ids: "", sampling.stop)
        text = stops.cut(choice.text, keep_stop=sampling.keep_stop)
        return Completion(tuple(ids), text, finish, is_encoded_again=choice.token_ids is None)

    def _check_ids(self, choice: "_Choice", n_asked: int) -> None:
        """Raise BackendError where the ids cannot be what the text was sampled as."""
        n_ids = len(choice.token_ids or ())
        if n_ids > n_asked or (choice.text and not n_ids):
            raise BackendError(
                f"{self._config.url}: sends {n_ids} token_ids for a text of {len(choice.text)} "
                f"characters (1 to {n_asked} were expected); set returns_token_ids = false to "
                "encode the text again"
            )


class _Choice(BaseModel):
    index: int
    text: str
    finish_reason: str | None = None
    token_ids: list[NonNegativeInt] | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
