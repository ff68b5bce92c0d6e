"""From a checked request to rows of the engine, and their pieces back to the event loop."""

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.fields import Message
from trillium.generation.interface import N_CONTEXT, SamplingConfig
from trillium.serving.adapters import Served
from trillium.serving.engine import Engine
from trillium.serving.metrics import Metrics
from trillium.serving.protocol import ChatRequest, CompletionRequest
from trillium.serving.rows import Piece, RefusedError, Row, decoder
from trillium.serving.text_stream import TextStream
from trillium.tokenize import tokenize_prompts

_ENCODING = threading.Lock()  # tokenizers change state while they encode


@dataclass(frozen=True)
class TokenLimits:
    """Bound what one completion may take: prompt and completion together, and the completion."""

    max_length: int
    max_new_tokens: int
    n_vocab: int


@dataclass
class Choice:
    """Gather what was sampled for one completion."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish: str | None = None


class Job:
    """The rows of one request, and the pieces that come back from them."""

    def __init__(self, served: Served, prompts: Sequence[tuple[int, ...]], n_rows: int) -> None:
        """Expect `n_rows` completions of `prompts`, in order."""
        self.model = served.name
        self.prompts = tuple(prompts)
        self.choices = [Choice() for _ in range(n_rows)]
        self.rows: list[Row] = []
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    @property
    def n_prompt_tokens(self) -> int:
        """Return the number of prompt tokens, each prompt counted once."""
        return sum(map(len, self.prompts))

    @property
    def n_generated(self) -> int:
        """Return the number of sampled tokens so far."""
        return sum(len(choice.ids) for choice in self.choices)

    def post(self, index: int, piece: Piece) -> None:
        """Take a piece of completion `index`; called from the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, (index, piece))
        except RuntimeError:  # the loop has ended: nobody waits for this any more
            self.cancel()

    def cancel(self) -> None:
        """End all rows at the next step."""
        for row in self.rows:
            row.is_cancelled = True

    async def pieces(self, metrics: Metrics) -> AsyncGenerator[tuple[int, Piece], None]:
        """Yield pieces until every completion has ended; leaving early ends the rows.

        Raises RefusedError when a completion could not go on.
        """
        started_s, n_open, is_first = time.perf_counter(), len(self.choices), True
        try:
            while n_open:
                index, piece = await self._pieces.get()
                if piece.finish == "error":
                    raise RefusedError(
                        500, "the model failed on this request; see the server's log"
                    )
                if is_first:
                    metrics.observe_first_token(time.perf_counter() - started_s)
                    is_first = False
                choice = self.choices[index]
                choice.text += piece.text
                choice.ids.extend(piece.ids)
                choice.finish = piece.finish
                n_open -= piece.finish is not None
                yield index, piece
        finally:
            self.cancel()
            metrics.count_generated(self.n_generated)


def start_job(
    request: CompletionRequest | ChatRequest,
    prompts: Sequence[tuple[int, ...]],
    served: Served,
    engine: Engine,
    limits: TokenLimits,
) -> Job:
    """Queue the completions of a request; raises RefusedError where it asks for too much."""
    job = Job(served, prompts, len(prompts) * request.n_choices)
    seed = secrets.randbits(63) if request.seed is None else request.seed % 2**63
    n_context = N_CONTEXT if isinstance(request, CompletionRequest) else 0
    index = 0
    for prompt in prompts:
        sampling = _sampling(request, len(prompt), limits)
        for _ in range(request.n_choices):
            job.rows.append(_make_row(job, index, served, prompt, sampling, seed, n_context))
            index += 1
    engine.submit(job.rows)
    return job


def encode_completion(
    request: CompletionRequest, served: Served, limits: TokenLimits
) -> list[tuple[int, ...]]:
    """Return the token ids of each prompt."""
    prompts = request.prompts()
    if isinstance(prompts[0], str):
        ids = _encode([str(prompt) for prompt in prompts], served.tokenizer)
    else:
        ids = [tuple(int(token) for token in prompt) for prompt in prompts]
    for prompt in ids:
        if not prompt:
            raise RefusedError(400, "prompt: has no tokens; send some text", param="prompt")
        if max(prompt) >= limits.n_vocab:
            raise RefusedError(
                400,
                f"prompt: token {max(prompt)} (the model knows {limits.n_vocab})",
                param="prompt",
            )
    return ids


def encode_chat(request: ChatRequest, served: Served, limits: TokenLimits) -> list[tuple[int, ...]]:
    """Return the token ids of the conversation, rendered as in training."""
    names = [{"name": each.name} if each.name else {} for each in request.messages]
    messages = [
        Message(each.role, each.text, fields)
        for each, fields in zip(request.messages, names, strict=True)
    ]
    return _encode([tuple(messages)], served.tokenizer)


def _encode(
    prompts: Sequence[str | tuple[Message, ...]], tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, ...]]:
    try:
        with _ENCODING:
            return tokenize_prompts(prompts, tokenizer)
    except DataError as error:
        raise RefusedError(400, str(error)) from None


def _sampling(
    request: CompletionRequest | ChatRequest, n_prompt: int, limits: TokenLimits
) -> SamplingConfig:
    room = limits.max_length - n_prompt
    if room < 1:
        raise RefusedError(
            400, f"the prompt has {n_prompt} tokens (at most {limits.max_length - 1}); shorten it"
        )
    most = min(room, limits.max_new_tokens)
    asked = request.max_tokens
    if isinstance(request, ChatRequest):
        asked = request.max_completion_tokens or asked or most
    asked = asked or min(16, most)  # OpenAI's default of /v1/completions
    if asked > most:
        raise RefusedError(
            400,
            f"max_tokens: {asked} (at most {most} after this prompt of {n_prompt} tokens; one "
            f"completion has at most {limits.max_new_tokens}, with its prompt {limits.max_length})",
            param="max_tokens",
        )
    return SamplingConfig(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=max(0, request.top_k or 0),
        max_new_tokens=asked,
        stop=request.stops,
        keep_stop=request.include_stop_str_in_output,
    )


def _make_row(
    job: Job,
    index: int,
    served: Served,
    prompt: tuple[int, ...],
    sampling: SamplingConfig,
    seed: int,
    n_context: int,
) -> Row:
    decode, context = decoder(served.tokenizer), prompt[-n_context:] if n_context else ()
    return Row(
        key=served.key,
        prompt=prompt,
        sampling=sampling,
        noise=torch.Generator().manual_seed(_noise_seed(seed, index)),
        text=TextStream(decode, sampling.stop, keep_stop=sampling.keep_stop, context=context),
        post=lambda piece: job.post(index, piece),
    )


def _noise_seed(seed: int, index: int) -> int:
    """Return the seed of one choice: a sum would give the seeds beside this one the same noise."""
    digest = hashlib.sha256(f"{seed}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
