"""The routes of the service.

POST /recommend  {"history": [...], "k": 10} or {"user": ...}: items with titles and scores
POST /reload     take up the newest revision of the catalogue now; it is also looked for by itself
GET  /healthz    what is served, and why the last reload failed; needs no token
GET  /metrics    Prometheus
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from trillium.errors import ConfigError, DataError
from trillium_sandbox.service.gate import Gate

from trillium_rec.live_catalogue import current_mark
from trillium_rec.served_run import ServedRun
from trillium_rec.serving.asks import Answer, Ask, read_ask
from trillium_rec.serving.batching import Batcher, FullError
from trillium_rec.serving.metrics import Metrics
from trillium_rec.serving.snapshot import Snapshot

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 1 << 20
_MAX_HELD_BYTES = 64 << 20


@dataclass(frozen=True)
class ServingSettings:
    """What a service allows; times in seconds. `watch_s` is between looks for a new revision."""

    token: str | None = None
    max_batch: int = 64
    wait_s: float = 0.002
    max_waiting: int = 1024
    watch_s: float = 2.0


class Shelf:
    """Hold the snapshot in force; a new one replaces it between two passes."""

    def __init__(self, run: ServedRun, metrics: Metrics) -> None:
        """Load the first snapshot; raises what loading raises."""
        self._run, self._metrics = run, metrics
        self._changing = asyncio.Lock()
        self.reload_error: str | None = None
        mark = current_mark(run.folder)
        self._take(Snapshot.load(run), mark)

    def answer(self, asks: Sequence[Ask]) -> list[Answer | DataError]:
        """Answer by the snapshot of this moment."""
        return self.snapshot.answer(asks)

    async def reload(self, *, is_forced: bool) -> None:
        """Take up the revision in force, if it is another one; answers go on meanwhile.

        Raises ConfigError or DataError when it cannot be used; then the old one stays. So it does
        after an error that nobody expected, which is recorded like those.
        """
        async with self._changing:
            try:
                # Read first: of a revision that appears meanwhile the next look takes notice.
                mark = await asyncio.to_thread(current_mark, self._run.folder)
                if mark == self._mark and not is_forced:
                    return
                self._take(await asyncio.to_thread(Snapshot.load, self._run), mark)
            except Exception as error:
                self.reload_error = _reason(error)
                self._metrics.count_reload(is_done=False)
                raise
            self.reload_error = None
            self._metrics.count_reload(is_done=True)

    def _take(self, snapshot: Snapshot, mark: str) -> None:
        self.snapshot, self._mark = snapshot, mark
        ids = snapshot.live.ids
        self._metrics.show_catalogue(ids.revision, int(ids.is_active.sum()))


def build_app(run: ServedRun, settings: ServingSettings) -> FastAPI:
    """Return the application; raises DataError when the run cannot be served."""
    metrics = Metrics()
    shelf = Shelf(run, metrics)
    batcher = Batcher(
        shelf.answer,
        max_batch=settings.max_batch,
        wait_s=settings.wait_s,
        max_waiting=settings.max_waiting,
        count=metrics.count_batch,
    )
    metrics.watch_queue(lambda: batcher.n_waiting)
    routes = _Routes(shelf, batcher, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        watcher = asyncio.create_task(_watch(shelf, settings.watch_s))
        yield
        watcher.cancel()
        batcher.close()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_route("/recommend", routes.recommend, methods=["POST"])
    app.add_route("/reload", routes.reload, methods=["POST"])
    app.add_route("/healthz", routes.healthz, methods=["GET"])
    app.add_route("/metrics", routes.metrics, methods=["GET"])
    app.add_middleware(
        Gate,
        metrics=metrics,
        token=settings.token,
        max_body_bytes=_MAX_BODY_BYTES,
        max_held_bytes=_MAX_HELD_BYTES,
    )
    return app


class _Routes:
    """The routes, over one shelf."""

    def __init__(self, shelf: Shelf, batcher: Batcher, metrics: Metrics) -> None:
        self._shelf, self._batcher, self._metrics = shelf, batcher, metrics

    async def recommend(self, http: Request) -> Response:
        try:
            ask = read_ask(await http.body(), most_items=self._shelf.snapshot.most_items)
            answer = await self._batcher.ask(ask)
        except DataError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        except FullError as error:
            return JSONResponse(
                {"error": str(error)}, status_code=429, headers={"Retry-After": "1"}
            )
        self._metrics.count_unknown(answer.n_unknown)
        return Response(answer.to_json(), media_type="application/json")

    async def reload(self, _: Request) -> Response:
        try:
            await self._shelf.reload(is_forced=True)
        except (ConfigError, DataError) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        return JSONResponse(self._state())

    async def healthz(self, _: Request) -> Response:
        return JSONResponse(self._state())

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    def _state(self) -> dict[str, object]:
        snapshot = self._shelf.snapshot
        ids = snapshot.live.ids
        return {
            "status": "ok",
            "recommender": snapshot.recommender.name,
            "ids_version": ids.version,
            "catalogue_revision": ids.revision,
            "items": ids.n_items,
            "active_items": int(ids.is_active.sum()),
            "waiting": self._batcher.n_waiting,
            "reload_error": self._shelf.reload_error,
        }


async def _watch(shelf: Shelf, every_s: float) -> None:
    """Take up new revisions as they appear; one that cannot be used is said once."""
    said = None
    while True:
        await asyncio.sleep(every_s)
        try:
            await shelf.reload(is_forced=False)
            said = None
        except Exception as error:  # also what nobody expected must not end the watch
            if _reason(error) != said:
                said = _reason(error)
                log.warning("the catalogue stays at its old revision: %s", said)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError | DataError) else repr(error)
