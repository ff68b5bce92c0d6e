"""What the service counts, in Prometheus' text format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_ROUTES = frozenset({"/recommend", "/reload", "/healthz", "/metrics"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service."""

    def __init__(self) -> None:
        """Count from zero."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "trillium_rec_requests",
            "HTTP requests, by route and status; 499 when the client left first.",
            ["route", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "trillium_rec_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "trillium_rec_batch_size",
            "Questions answered in one pass of the model.",
            buckets=_SIZES,
            registry=self._registry,
        )
        self._unknown = Counter(
            "trillium_rec_unknown_items",
            "Items of histories that are not in the catalogue and were passed over.",
            registry=self._registry,
        )
        self._reloads = Counter(
            "trillium_rec_reloads",
            "Catalogues taken up while serving, by outcome.",
            ["outcome"],
            registry=self._registry,
        )
        self._revision = Gauge(
            "trillium_rec_catalogue_revision", "Revision in force.", registry=self._registry
        )
        self._active = Gauge(
            "trillium_rec_active_items", "Items that may come up.", registry=self._registry
        )

    def watch_queue(self, count: Callable[[], int]) -> None:
        """Report how many questions wait, whenever somebody reads."""
        Gauge(
            "trillium_rec_waiting", "Questions that wait for a pass.", registry=self._registry
        ).set_function(count)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an HTTP request that has ended."""
        # Paths that anybody may invent would fill the memory.
        route = path if path in _ROUTES else "other"
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_batch(self, size: int) -> None:
        """Count a pass of the model."""
        self._batches.observe(size)

    def count_unknown(self, number: int) -> None:
        """Count items that were passed over."""
        self._unknown.inc(number)

    def count_reload(self, *, is_done: bool) -> None:
        """Count a catalogue that was taken up, or could not be."""
        self._reloads.labels("done" if is_done else "failed").inc()

    def show_catalogue(self, revision: int, n_active: int) -> None:
        """Report the catalogue in force."""
        self._revision.set(revision)
        self._active.set(n_active)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self._registry)
