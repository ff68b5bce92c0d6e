"""OpenAI's answers: whole, and as server-sent events."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from trillium.serving.adapters import Served
from trillium.serving.gate import error_body
from trillium.serving.jobs import Job
from trillium.serving.metrics import Metrics
from trillium.serving.protocol import ChatRequest, CompletionRequest
from trillium.serving.rows import Piece, RefusedError

_DONE = b"data: [DONE]\n\n"


class StreamShape(Protocol):
    """Make the events of one kind of stream; `with_ids` wants one for every token."""

    with_ids: bool

    def opening(self) -> list[dict[str, object]]:
        """Return the events before the first text."""
        ...

    def event(self, index: int, piece: Piece) -> dict[str, object]:
        """Return the event of one piece."""
        ...

    def head(self) -> dict[str, object]:
        """Return what all events of the stream have in common."""
        ...


async def stream(
    job: Job, shape: StreamShape, metrics: Metrics, *, wants_usage: bool
) -> AsyncIterator[bytes]:
    """Yield server-sent events; a failure becomes a last event with an `error`."""
    for event in shape.opening():
        yield _event(event)
    try:
        async with aclosing(job.pieces(metrics)) as pieces:
            async for index, piece in pieces:
                if piece.text or piece.finish or shape.with_ids:
                    yield _event(shape.event(index, piece))
    except RefusedError as refusal:
        yield _event(error_body(refusal))
        return
    if wants_usage:
        yield _event({**shape.head(), "choices": [], "usage": usage(job)})
    yield _DONE


def completion(job: Job, request: CompletionRequest) -> dict[str, object]:
    """Return the answer of /v1/completions."""
    choices = [
        {
            "index": index,
            "text": choice.text,
            "finish_reason": choice.finish,
            "logprobs": None,
            **({"token_ids": choice.ids} if request.return_token_ids else {}),
        }
        for index, choice in enumerate(job.choices)
    ]
    return {**_head("cmpl", "text_completion", job), "choices": choices, "usage": usage(job)}


def chat(job: Job, request: ChatRequest) -> dict[str, object]:
    """Return the answer of /v1/chat/completions."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text},
            "finish_reason": choice.finish,
            "logprobs": None,
            **({"token_ids": choice.ids} if request.return_token_ids else {}),
        }
        for index, choice in enumerate(job.choices)
    ]
    return {**_head("chatcmpl", "chat.completion", job), "choices": choices, "usage": usage(job)}


class CompletionStream:
    """The events of /v1/completions."""

    def __init__(self, job: Job, request: CompletionRequest) -> None:
        """Give all events one id."""
        self._head = _head("cmpl", "text_completion", job)
        self.with_ids = bool(request.return_token_ids)

    def head(self) -> dict[str, object]:
        """Return what all events have in common."""
        return self._head

    def opening(self) -> list[dict[str, object]]:
        """Return no events: text begins at once."""
        return []

    def event(self, index: int, piece: Piece) -> dict[str, object]:
        """Return a piece of text."""
        choice: dict[str, object] = {
            "index": index,
            "text": piece.text,
            "finish_reason": piece.finish,
            "logprobs": None,
        }
        if self.with_ids:
            choice["token_ids"] = list(piece.ids)
        return {**self._head, "choices": [choice]}


class ChatStream:
    """The events of /v1/chat/completions: the role first, then text."""

    def __init__(self, job: Job, request: ChatRequest) -> None:
        """Give all events one id."""
        self._head = _head("chatcmpl", "chat.completion.chunk", job)
        self.with_ids = bool(request.return_token_ids)
        self._n_choices = len(job.choices)

    def head(self) -> dict[str, object]:
        """Return what all events have in common."""
        return self._head

    def opening(self) -> list[dict[str, object]]:
        """Return the role of every choice."""
        delta = {"role": "assistant", "content": ""}
        return [
            {**self._head, "choices": [{"index": i, "delta": delta, "finish_reason": None}]}
            for i in range(self._n_choices)
        ]

    def event(self, index: int, piece: Piece) -> dict[str, object]:
        """Return a piece of text."""
        choice: dict[str, object] = {
            "index": index,
            "delta": {"content": piece.text} if piece.text else {},
            "finish_reason": piece.finish,
            "logprobs": None,
        }
        if self.with_ids:
            choice["token_ids"] = list(piece.ids)
        return {**self._head, "choices": [choice]}


def usage(job: Job) -> dict[str, int]:
    """Return the numbers of tokens."""
    n_prompt, n_generated = job.n_prompt_tokens, job.n_generated
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
    }


def model_row(served: Served, base: str, max_length: int) -> dict[str, object]:
    """Return one entry of /v1/models; `parent` names the base of an adapter."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "trillium",
        "parent": None if served.key is None else base,
        "max_model_len": max_length,
    }


def _head(prefix: str, kind: str, job: Job) -> dict[str, object]:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": job.model,
    }


def _event(content: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"
