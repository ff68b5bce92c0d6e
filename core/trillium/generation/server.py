"""Sampling from a server that speaks OpenAI's completions protocol, such as vLLM.

Prompts travel as token ids, so that what the server continues is what was rendered here. The
server draws the samples: equal seeds give equal samples only as far as the server keeps that.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from trillium.errors import BackendError, ConfigError
from trillium.generation.interface import (
    Completion,
    Finish,
    PromptBatch,
    SamplingConfig,
    assemble,
    plan_batches,
)
from trillium.generation.stops import StopFinder

# Busy and broken for the moment; anything else will not get better by asking again.
_RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class ServerConfig(BaseModel):
    """Where the server is and how patient to be with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(
        pattern="^https?://.", description="with the version, as in http://127.0.0.1:8000/v1"
    )
    model: str = Field(description="name of the model or adapter on the server")
    api_key_variable: str = Field(
        default="", description="environment variable with the key; a run's files never hold it"
    )
    timeout_s: float = Field(default=300.0, gt=0, description="seconds for one answer")
    n_retries: int = Field(default=4, ge=0, description="further attempts for one request")
    backoff_s: float = Field(default=1.0, ge=0, description="pause before the first; then doubled")
    max_rows: int = Field(default=64, gt=0, description="completions asked for per request")
    returns_token_ids: bool = Field(
        default=True, description="ask for sampled ids (vLLM); without, the text is encoded again"
    )


class ServerGenerator:
    """Continue prompts by asking a server.

    Without `returns_token_ids`, ids are this tokenizer's encoding of the text: fine for training on
    the text, but not always the tokens that were sampled, and without the end-of-text token.
    """

    def __init__(self, config: ServerConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        """Ask the server of `config`; nothing is sent yet. Raises ConfigError without its key."""
        self._config = config
        self._tokenizer = tokenizer
        self._api_key = ""
        if config.api_key_variable:
            self._api_key = os.environ.get(config.api_key_variable, "")
            if not self._api_key:
                raise ConfigError(
                    f"api_key_variable={config.api_key_variable}: is not set (the key for "
                    f"{config.url} was expected in it); export it"
                )

    def plan(
        self, prompts: Sequence[Sequence[int]], *, n_samples: int, seed: int
    ) -> tuple[PromptBatch, ...]:
        """Return the batches that together draw `n_samples` completions of each prompt."""
        return plan_batches(prompts, n_samples=n_samples, seed=seed, max_rows=self._config.max_rows)

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

    def generate_batch(
        self, batch: PromptBatch, sampling: SamplingConfig
    ) -> list[list[Completion]]:
        """Return `batch.n_samples` completions per prompt; `sampling.n_samples` is not read."""
        request: dict[str, object] = {
            "model": self._config.model,
            "prompt": [list(prompt) for prompt in batch.prompts],
            "n": batch.n_samples,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": batch.seed % 2**31,
        }
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if sampling.top_k:
            request["top_k"] = sampling.top_k
        if self._config.returns_token_ids:
            request["return_token_ids"] = True
        if sampling.keep_stop:
            request["include_stop_str_in_output"] = True
        choices = sorted(self._ask(request).choices, key=lambda choice: choice.index)
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
        finish: Finish = "length" if choice.finish_reason == "length" else "stop"
        stops = StopFinder(lambda ids: "", sampling.stop)
        text = stops.cut(choice.text, keep_stop=sampling.keep_stop)
        return Completion(ids=tuple(ids), text=text, finish=finish)

    def _ask(self, request: dict[str, object]) -> "_Answer":
        body = json.dumps(request).encode()
        pause_s = self._config.backoff_s
        for attempt in range(self._config.n_retries + 1):
            try:
                return self._post(body)
            except _PassingError as error:
                if attempt == self._config.n_retries:
                    raise BackendError(
                        f"{self._config.url}: {error} after {attempt + 1} attempts (an "
                        "OpenAI-compatible completions server was expected); check that it runs"
                    ) from error
            time.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: bytes) -> "_Answer":
        config = self._config
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        url = f"{config.url.rstrip('/')}/completions"
        try:
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            with urllib.request.urlopen(request, timeout=config.timeout_s) as reply:
                return _Answer.model_validate_json(reply.read())
        except urllib.error.HTTPError as error:
            said = error.read(500).decode(errors="replace").strip()
            if error.code in _RETRIED_STATUS:
                raise _PassingError(f"status {error.code}: {said}") from error
            raise BackendError(
                f"{url}: status {error.code}: {said} (200 was expected); correct the request"
            ) from error
        except ValueError as error:
            raise BackendError(
                f"{url}: the answer is not what the protocol says: {error} "
                "(OpenAI's completions format was expected); check the address"
            ) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _PassingError(str(error)) from error


class _PassingError(Exception):
    """A failure that may be over by the next attempt."""


class _Choice(BaseModel):
    index: int
    text: str
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
