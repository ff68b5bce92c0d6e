"""One thread that owns the model: it admits rows, decodes a token for all of them, and repeats.

Requests wait in a queue with a bound; what changes the model (loading, discarding) runs between two
steps. A failure of a step ends the rows that were in it and nothing else.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from trillium.errors import BackendError
from trillium.serving.adapters import Adapters
from trillium.serving.batch import DecodeBatch
from trillium.serving.rows import RefusedError, Row

log = logging.getLogger(__name__)


class Engine:
    """Serve rows until closed; use it as a context manager."""

    def __init__(
        self, adapters: Adapters, *, max_rows: int, max_waiting: int, end_ids: frozenset[int]
    ) -> None:
        """Decode `max_rows` together and let `max_waiting` more wait."""
        self.adapters = adapters
        self.max_waiting = max_waiting
        self._batch = DecodeBatch(adapters, max_rows=max_rows, end_ids=end_ids)
        self._waiting: deque[Row] = deque()
        self._orders: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._loaded: set[str] = set()
        self._retired: set[str] = set()
        self._changed = threading.Condition()
        self._is_closing = False
        self._admitting: Row | None = None
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    def __enter__(self) -> "Engine":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the rows under way with an error, and stop."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Say whether rows are being decoded."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def n_waiting(self) -> int:
        """Return how many rows wait; those that nobody waits for any more are not among them."""
        with self._changed:
            return sum(not row.is_cancelled for row in self._waiting)

    @property
    def n_running(self) -> int:
        """Return how many rows are being decoded."""
        return len(self._batch.rows) + (self._admitting is not None)

    @property
    def max_rows(self) -> int:
        """Return how many rows are decoded together, at most."""
        return self._batch.max_rows

    def submit(self, rows: Sequence[Row]) -> None:
        """Queue rows, all or none.

        Raises RefusedError when the queue is full or closed, or an adapter was unloaded meanwhile.
        """
        with self._changed:
            if not self.is_alive:
                raise RefusedError(503, "the server is shutting down; ask another one")
            self.check_size(len(rows))
            if any(row.key is not None and row.key not in self._loaded for row in rows):
                raise RefusedError(
                    404, "the adapter was unloaded; load it again, or ask another", param="model"
                )
            free = self.max_waiting + max(0, self.max_rows - self.n_running) - self.n_waiting
            if len(rows) > free:
                raise RefusedError(
                    429, f"the queue of {self.max_waiting} completions is full; try again later"
                )
            self._drop_cancelled()
            self._waiting.extend(rows)
            self._changed.notify_all()

    def check_size(self, n_rows: int) -> None:
        """Raise RefusedError when a request asks for more completions than can ever be queued."""
        most = self.max_waiting + self.max_rows
        if n_rows > most:
            raise RefusedError(
                400, f"{n_rows} completions in one request (at most {most}); ask for fewer"
            )

    def load(self, folder: Path) -> str:
        """Put an adapter on the model between two steps, and return its key; blocks until done."""
        key = str(self._order(lambda: self.adapters.load(folder)))
        with self._changed:
            self._loaded.add(key)
        return key

    def retire(self, key: str) -> None:
        """Free an adapter as soon as the rows that were asked of it have ended."""
        with self._changed:
            self._retired.add(key)
            self._changed.notify_all()

    def _order(self, work: Callable[[], object]) -> object:
        done: Future[object] = Future()
        with self._changed:
            if not self.is_alive:
                raise BackendError("serve: the server is shutting down; start it again")
            self._orders.append((work, done))
            self._changed.notify_all()
        return done.result()

    def _run(self) -> None:
        while self._wait_for_work():
            while self._orders:
                _obey(*self._orders.popleft())
            self._admit_one()
            try:
                self._batch.step()
            except Exception:
                log.exception("serve: a decoding step failed; its completions are given up")
                self._give_up(self._batch.rows)
            self._discard_retired()
        self._give_up([*self._batch.rows, *self._waiting])
        self._waiting.clear()
        while self._orders:
            self._orders.popleft()[1].set_exception(BackendError("serve: is shutting down; retry"))

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; False when that is to end."""
        with self._changed:
            while not (self._is_closing or self._has_work()):
                self._changed.wait()
            return not self._is_closing

    def _has_work(self) -> bool:
        return bool(self._waiting or self._orders or self._batch.rows or self._retired)

    def _admit_one(self) -> None:
        """Let the row that waited longest join, where there is room."""
        if len(self._batch.rows) >= self._batch.max_rows:
            self._batch.drop_finished()
        with self._changed:
            self._drop_cancelled()
            if not self._waiting or len(self._batch.rows) >= self._batch.max_rows:
                return
            row = self._admitting = self._waiting.popleft()
        try:
            self._batch.admit(row)
        except Exception:
            log.exception("serve: a prompt could not be read in; its completion is given up")
            self._give_up([row])
        finally:
            self._admitting = None

    def _drop_cancelled(self) -> None:
        """Forget the waiting rows that were cancelled; the lock is held."""
        self._waiting = deque(row for row in self._waiting if not row.is_cancelled)

    def _give_up(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if not row.is_finished:
                row.fail()
        self._batch.drop_finished()

    def _discard_retired(self) -> None:
        with self._changed:
            in_use = {row.key for row in [*self._batch.rows, *self._waiting]}
            unused = self._retired - {key for key in in_use if key is not None}
            self._retired -= unused
            self._loaded -= unused
        for key in unused:
            try:
                self.adapters.discard(key)
            except Exception:
                log.exception("serve: the weights of an unloaded adapter could not be freed")


def _obey(work: Callable[[], object], done: "Future[object]") -> None:
    try:
        done.set_result(work())
    except Exception as error:  # whoever ordered it is told
        done.set_exception(error)
