"""The routes, in OpenAI's shapes; loading and unloading as vLLM has them.

GET  /v1/models                 the base and the adapters; /v1/models/NAME is one of them
POST /v1/completions            text or token prompts, several at once
POST /v1/chat/completions       conversations, rendered by the model's own template
POST /v1/load_lora_adapter      {"lora_name", "lora_path"}; only below the allowed folder
POST /v1/unload_lora_adapter    {"lora_name"}
GET  /health                    503 while nothing is decoded; needs no token
GET  /metrics                   Prometheus
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from trillium.serving import answers
from trillium.serving.adapters import Served
from trillium.serving.engine import Engine
from trillium.serving.gate import Gate, error_body
from trillium.serving.jobs import Job, TokenLimits, encode_chat, encode_completion, start_job
from trillium.serving.loading import Loader
from trillium.serving.metrics import Metrics
from trillium.serving.protocol import (
    ChatRequest,
    CompletionRequest,
    LoadRequest,
    UnloadRequest,
    parse,
)
from trillium.serving.rows import RefusedError

MAX_BODY_BYTES = 4 << 20
MAX_HELD_BYTES = 64 << 20
"""One body, and all bodies together that are being read or served."""

R = TypeVar("R")


@dataclass(frozen=True)
class ServerSettings:
    """What a server allows; without `adapters_folder` nothing can be loaded over HTTP.

    `chat_template` takes the place of that of every tokenizer.
    """

    limits: TokenLimits
    token: str | None = None
    adapters_folder: Path | None = None
    max_adapters: int = 16
    chat_template: str | None = None


def build_app(engine: Engine, settings: ServerSettings) -> FastAPI:
    """Return the application over a started engine."""
    metrics = Metrics(engine)
    routes = _Routes(engine, settings, metrics)
    app = FastAPI(openapi_url=None)
    for name, route in (
        ("/v1/completions", routes.completions),
        ("/v1/chat/completions", routes.chat),
        ("/v1/load_lora_adapter", routes.load),
        ("/v1/unload_lora_adapter", routes.unload),
    ):
        app.add_route(name, route, methods=["POST"])
    app.add_route("/v1/models", routes.models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", routes.model, methods=["GET"])
    app.add_route("/health", routes.health, methods=["GET"])
    app.add_route("/metrics", routes.metrics, methods=["GET"])
    app.add_exception_handler(RefusedError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_middleware(
        Gate,
        metrics=metrics,
        token=settings.token,
        max_body_bytes=MAX_BODY_BYTES,
        max_held_bytes=MAX_HELD_BYTES,
    )
    return app


class _Routes:
    """The routes, over one engine."""

    def __init__(self, engine: Engine, settings: ServerSettings, metrics: Metrics) -> None:
        self._engine = engine
        self._limits = settings.limits
        self._metrics = metrics
        self._loader = Loader(
            engine,
            settings.adapters_folder,
            settings.max_adapters,
            chat_template=settings.chat_template,
        )

    async def models(self, _: Request) -> Response:
        rows = [self._row(served) for served in self._engine.adapters.served()]
        return JSONResponse({"object": "list", "data": rows})

    async def model(self, http: Request) -> Response:
        return JSONResponse(self._row(self._find(http.path_params["name"])))

    async def completions(self, http: Request) -> Response:
        request = parse(CompletionRequest, await http.body())
        served = self._find(request.model)
        self._engine.check_size(len(request.prompts()) * request.n_choices)
        ids = await asyncio.to_thread(encode_completion, request, served, self._limits)
        job = self._start(request, ids, served)
        if request.stream:
            return self._stream(job, request, answers.CompletionStream(job, request))
        await _unless_gone(http, self._gather(job))
        return JSONResponse(answers.completion(job, request))

    async def chat(self, http: Request) -> Response:
        request = parse(ChatRequest, await http.body())
        served = self._find(request.model)
        ids = await asyncio.to_thread(encode_chat, request, served, self._limits)
        job = self._start(request, ids, served)
        if request.stream:
            return self._stream(job, request, answers.ChatStream(job, request))
        await _unless_gone(http, self._gather(job))
        return JSONResponse(answers.chat(job, request))

    async def load(self, http: Request) -> Response:
        request = parse(LoadRequest, await http.body())
        name, path = request.lora_name, request.lora_path
        await asyncio.to_thread(self._loader.load_over_http, name, path)
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, http: Request) -> Response:
        request = parse(UnloadRequest, await http.body())
        self._loader.unload(request.lora_name)
        return Response(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")

    async def health(self, _: Request) -> Response:
        if not self._engine.is_alive:
            return JSONResponse({"status": "down"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _row(self, served: Served) -> dict[str, object]:
        adapters = self._engine.adapters
        return answers.model_row(served, adapters.base_name, self._limits.max_length)

    def _find(self, name: str) -> Served:
        served = self._engine.adapters.find(name)
        if served is None:
            known = ", ".join(each.name for each in self._engine.adapters.served())
            raise RefusedError(
                404, f"model {name!r} does not exist; there is: {known}", param="model"
            )
        return served

    def _start(
        self, request: CompletionRequest | ChatRequest, ids: list[tuple[int, ...]], served: Served
    ) -> Job:
        job = start_job(request, ids, served, self._engine, self._limits)
        self._metrics.count_prompt(job.n_prompt_tokens)
        return job

    async def _gather(self, job: Job) -> None:
        async for _ in job.pieces(self._metrics):
            pass

    def _stream(
        self,
        job: Job,
        request: CompletionRequest | ChatRequest,
        shape: answers.CompletionStream | answers.ChatStream,
    ) -> Response:
        events = answers.stream(job, shape, self._metrics, wants_usage=request.wants_usage)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _unless_gone(http: Request, work: Awaitable[R]) -> R:
    """Await `work`, and give it up when the client closes the connection."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_wait_for_end(http))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RefusedError(499, "the client closed the connection")
        return await task
    finally:
        for each in (task, watch):
            each.cancel()
            with suppress(asyncio.CancelledError, RefusedError):
                await each


async def _wait_for_end(http: Request) -> None:
    receive: Callable[[], Awaitable[object]] = http.receive
    message = await receive()
    while not (isinstance(message, dict) and message.get("type") == "http.disconnect"):
        message = await receive()


async def _refuse(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, RefusedError)
    headers = {"Retry-After": "1"} if refusal.status in (429, 503) else None
    return JSONResponse(error_body(refusal), status_code=refusal.status, headers=headers)


async def _refuse_route(http: Request, error: Exception) -> Response:
    """Answer for a route or a method that this server has not."""
    assert isinstance(error, HTTPException)
    place, reason = f"{http.method} {http.url.path}", error.detail.lower()
    refusal = RefusedError(
        error.status_code, f"{place}: {reason}; the routes are those of OpenAI's API below /v1"
    )
    return JSONResponse(error_body(refusal), error.status_code, headers=error.headers)
