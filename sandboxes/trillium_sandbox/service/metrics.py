"""What the service counts, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trillium_sandbox.dispatch import Dispatcher
from trillium_sandbox.verdicts import Reply

_ROUTES = frozenset({"/run", "/run_batch", "/run_code", "/healthz", "/metrics"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one service."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Count from zero; the dispatcher is read when somebody asks."""
        self._registry = CollectorRegistry()
        self._registry.register(_State(dispatcher))
        self._programs = Counter(
            "trillium_sandbox_programs",
            "Programs answered, by status.",
            ["status"],
            registry=self._registry,
        )
        self._requests = Counter(
            "trillium_sandbox_requests",
            "HTTP requests, by route and status; 499 when the client left first.",
            ["route", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "trillium_sandbox_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def count_replies(self, replies: Sequence[Reply]) -> None:
        """Count programs that were answered."""
        for status, number in Tally(reply.status for reply in replies).items():
            self._programs.labels(status).inc(number)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an HTTP request that has ended."""
        # Paths that anybody may invent would fill the memory.
        route = path if path in _ROUTES else "other"
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self._registry)


class _State(Collector):
    """What the dispatcher and the cache know themselves."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def collect(self) -> Iterator[Metric]:
        queue = self._dispatcher.queue
        yield GaugeMetricFamily(
            "trillium_sandbox_open_programs", "Programs that wait or run.", queue.n_open
        )
        yield GaugeMetricFamily(
            "trillium_sandbox_up", "1 while the backend serves.", queue.shut_because is None
        )
        yield CounterMetricFamily(
            "trillium_sandbox_worker_restarts",
            "Workers that were replaced.",
            self._dispatcher.n_restarts,
        )
        yield CounterMetricFamily(
            "trillium_sandbox_backend_restarts",
            "Backends that died and were opened again.",
            self._dispatcher.n_reopened,
        )
        if self._dispatcher.cache is not None:
            lookups = CounterMetricFamily(
                "trillium_sandbox_cache_lookups", "Result cache, by outcome.", labels=["outcome"]
            )
            lookups.add_metric(["hit"], self._dispatcher.cache.n_hits)
            lookups.add_metric(["miss"], self._dispatcher.cache.n_misses)
            yield lookups
