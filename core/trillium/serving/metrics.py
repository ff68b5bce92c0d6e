"""What the server counts, in Prometheus' text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from trillium.serving.engine import Engine

ROUTES = frozenset(
    {
        "/v1/models",
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/health",
        "/metrics",
    }
)
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self, engine: Engine) -> None:
        """Count from zero; the engine is read when somebody asks."""
        self._registry = CollectorRegistry()
        self._registry.register(_State(engine))
        self._requests = Counter(
            "trillium_serve_requests",
            "HTTP requests, by route and status; 499 when the client left first.",
            ["route", "code"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "trillium_serve_tokens",
            "Tokens of prompts that were taken, and tokens that were sent.",
            ["kind"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "trillium_serve_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_token = Histogram(
            "trillium_serve_first_token_seconds",
            "From the end of reading a request to its first token.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an HTTP request that has ended."""
        # Paths that anybody may invent would fill the memory.
        route = path if path in ROUTES else "other"
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_prompt(self, n_tokens: int) -> None:
        """Count the tokens of a prompt."""
        self._tokens.labels("prompt").inc(n_tokens)

    def count_generated(self, n_tokens: int) -> None:
        """Count tokens that were sampled for somebody."""
        self._tokens.labels("generated").inc(n_tokens)

    def observe_first_token(self, seconds: float) -> None:
        """Note how long a caller waited for the first token."""
        self._first_token.observe(seconds)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self._registry)


class _State(Collector):
    """What the engine knows itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        engine = self._engine
        for name, what, value in (
            ("up", "1 while tokens are decoded.", float(engine.is_alive)),
            ("running", "Completions being decoded.", engine.n_running),
            ("waiting", "Completions waiting.", engine.n_waiting),
            ("adapters", "Adapters loaded.", len(engine.adapters.served()) - 1),
        ):
            yield GaugeMetricFamily(f"trillium_serve_{name}", what, value)
