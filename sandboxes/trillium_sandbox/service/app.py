"""The routes of the service. Every body is checked, once, before any of its programs runs.

POST /run        one request, one reply
POST /run_batch  a JSON list, answered by a list; or JSON lines, answered line by line
POST /run_code   SandboxFusion's body and answer (fusion.py)
GET  /healthz    what this service is, 503 while its backend is down; needs no token
GET  /metrics    Prometheus
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError

from trillium_sandbox import intake
from trillium_sandbox.aio import AsyncCall
from trillium_sandbox.cache import identity, name_backend
from trillium_sandbox.dispatch import Dispatcher
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import LEVELS
from trillium_sandbox.limits import Limits
from trillium_sandbox.service import fusion
from trillium_sandbox.service.gate import Gate
from trillium_sandbox.service.metrics import Metrics
from trillium_sandbox.verdicts import Reply
from trillium_sandbox.verdicts import Request as Program

MAX_BODY_BYTES = 64 << 20
MAX_HELD_BYTES = 512 << 20
"""One body, and all bodies together that are being read or served."""

_LARGE_BYTES = 1 << 16
_LIMITS = Limits()
_NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class ServiceSettings:
    """What a service allows; `backend` is the name of what it runs on."""

    backend: str
    token: str | None = None
    max_wall_s: float = 60.0
    max_memory_bytes: int = 4 << 30


class _Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def build_app(dispatcher: Dispatcher, settings: ServiceSettings) -> FastAPI:
    """Return the application."""
    metrics = Metrics(dispatcher)
    routes = _Routes(dispatcher, settings, metrics)
    app = FastAPI(openapi_url=None)
    for name, route in (
        ("/run", routes.run),
        ("/run_batch", routes.run_batch),
        ("/run_code", routes.run_code),
    ):
        app.add_route(name, route, methods=["POST"])
    app.add_route("/healthz", routes.healthz, methods=["GET"])
    app.add_route("/metrics", routes.metrics, methods=["GET"])
    app.add_exception_handler(_Refusal, _refuse)
    app.add_middleware(
        Gate,
        metrics=metrics,
        token=settings.token,
        max_body_bytes=MAX_BODY_BYTES,
        max_held_bytes=MAX_HELD_BYTES,
    )
    return app


class _Routes:
    """The routes, over one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, settings: ServiceSettings, metrics: Metrics) -> None:
        self._dispatcher = dispatcher
        self._settings = settings
        self._metrics = metrics
        self._most = dispatcher.queue.max_programs
        self._identity = identity(name_backend(settings.backend, dispatcher), dispatcher.level)

    async def run(self, http: Request) -> Response:
        call = self._offer(await _read(await http.body(), _read_one))
        return StreamingResponse(self._single(call, _dump), media_type="application/json")

    async def run_batch(self, http: Request) -> Response:
        body = await http.body()
        if body.lstrip()[:1] == b"[":
            call = self._offer(await _read(body, partial(_read_list, most=self._most)))
            return StreamingResponse(self._list(call), media_type="application/json")
        call = self._offer(await _read(body, partial(_read_lines, most=self._most)))
        return StreamingResponse(self._stream(call), media_type=_NDJSON)

    async def run_code(self, http: Request) -> Response:
        try:
            body = fusion.RunCode.model_validate_json(await http.body())
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse({"detail": problems}, status_code=422)
        try:
            call = self._offer([fusion.read(body, _LIMITS)])
        except RequestError as error:
            return _fusion(fusion.refuse(str(error)))
        except _Refusal as refusal:
            if refusal.status != 422:
                raise
            return _fusion(fusion.refuse(str(refusal)))
        return StreamingResponse(self._single(call, _dump_fusion), media_type="application/json")

    async def healthz(self, _: Request) -> Response:
        reason = self._dispatcher.queue.shut_because
        level = LEVELS[self._dispatcher.level]
        row = {
            "status": "ok" if reason is None else f"down: {reason}",
            "level": level.number,
            "isolation": level.name,
            "backend": self._settings.backend,
            "identity": self._identity,
            "open_programs": self._dispatcher.queue.n_open,
            "max_programs": self._most,
        }
        return JSONResponse(row, status_code=200 if reason is None else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _offer(self, programs: Sequence[Program]) -> AsyncCall:
        """Queue programs, all or none."""
        self._check_caps(programs)
        most = self._most
        if len(programs) > most:
            raise _Refusal(413, f"more than {most} programs; send them in parts")
        call = AsyncCall(self._dispatcher)
        try:
            accepted = call.call.offer(programs)
        except SandboxError as error:
            raise _Refusal(503, str(error)) from error
        if not accepted:
            raise _Refusal(429, f"the queue of {most} programs is full; try again later")
        return call

    def _check_caps(self, programs: Sequence[Program]) -> None:
        wall_s, memory_bytes = self._settings.max_wall_s, self._settings.max_memory_bytes
        # A work folder is memory too.
        disk_bytes = max(memory_bytes, _LIMITS.disk_bytes)
        for program in programs:
            limits = program.limits
            if limits.wall_s > wall_s:
                sentence = f"limits.wall_s = {limits.wall_s} (this service allows {wall_s})"
            elif limits.memory_bytes > memory_bytes:
                sentence = (
                    f"limits.memory_bytes = {limits.memory_bytes} "
                    f"(this service allows {memory_bytes})"
                )
            elif limits.disk_bytes > disk_bytes:
                sentence = (
                    f"limits.disk_bytes = {limits.disk_bytes} (this service allows {disk_bytes})"
                )
            else:
                continue
            raise _Refusal(422, f"request {program.id!r}: {sentence}; lower it")

    async def _replies(self, call: AsyncCall) -> AsyncGenerator[list[Reply], None]:
        async with contextlib.aclosing(call.replies()) as rounds:
            async for replies in rounds:
                self._metrics.count_replies(replies)
                yield replies

    async def _single(
        self, call: AsyncCall, encode: Callable[[Reply], bytes]
    ) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._replies(call)) as rounds:
            async for replies in rounds:
                yield encode(replies[0])

    async def _list(self, call: AsyncCall) -> AsyncGenerator[bytes, None]:
        before = b"["
        async with contextlib.aclosing(self._replies(call)) as rounds:
            async for replies in rounds:
                yield before + b",".join(map(_dump, replies))
                before = b","
        yield b"]"

    async def _stream(self, call: AsyncCall) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._replies(call)) as rounds:
            async for replies in rounds:
                yield b"".join(_dump(reply) + b"\n" for reply in replies)


async def _read(body: bytes, read: Callable[[bytes], list[Program]]) -> list[Program]:
    """Read a body, a large one beside the event loop; what is wrong with it becomes the answer."""
    try:
        return read(body) if len(body) < _LARGE_BYTES else await asyncio.to_thread(read, body)
    except RequestError as error:
        raise _Refusal(422, str(error)) from error


def _read_one(body: bytes) -> list[Program]:
    return [intake.read_request(body, _LIMITS)]


def _read_lines(body: bytes, *, most: int) -> list[Program]:
    return intake.read_lines(io.BytesIO(body), "body", _LIMITS, most=most)


def _read_list(body: bytes, *, most: int) -> list[Program]:
    rows = intake.parse(body)
    assert isinstance(rows, list)  # it begins with a bracket
    return intake.read_rows(rows, "body", _LIMITS, most=most)


async def _refuse(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, _Refusal)
    headers = {"Retry-After": "1"} if refusal.status in (429, 503) else None
    return JSONResponse({"error": str(refusal)}, status_code=refusal.status, headers=headers)


def _fusion(answer: fusion.RunCodeAnswer) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _dump_fusion(reply: Reply) -> bytes:
    return fusion.answer(reply).model_dump_json().encode()


def _dump(reply: Reply) -> bytes:
    return json.dumps(reply.to_json()).encode()
