"""Questions that come at about the same time are answered in one pass of the model.

While a pass runs, newcomers wait for the next one; so batches grow with the load by themselves, and
`wait_s` only matters when the service is idle.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from trillium.errors import BackendError, DataError

from trillium_rec.serving.asks import Answer, Ask

Pass = Callable[[Sequence[Ask]], list[Answer | DataError]]


class FullError(BackendError):
    """Say that too many questions wait."""


class Batcher:
    """Gather questions of one event loop and answer them in a thread, one batch at a time."""

    def __init__(
        self,
        answer: Pass,
        *,
        max_batch: int,
        wait_s: float,
        max_waiting: int,
        count: Callable[[int], None],
    ) -> None:
        """Bound batches and queue; `count` is told the size of every batch."""
        self._answer, self._count = answer, count
        self._max_batch, self._wait_s, self._max_waiting = max_batch, wait_s, max_waiting
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recommend")

    @property
    def n_waiting(self) -> int:
        """Count the questions that no pass has taken yet."""
        return len(self._waiting)

    async def ask(self, ask: Ask) -> Answer:
        """Return the answer to one question.

        Raises FullError when too many wait, DataError when the question cannot be answered.
        """
        if len(self._waiting) >= self._max_waiting:
            raise FullError(f"{self._max_waiting} questions wait already; try again later")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    def close(self) -> None:
        """End the thread when its pass is over."""
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        """Pass after pass until nobody waits."""
        try:
            await asyncio.sleep(self._wait_s)
            while self._waiting:
                batch = self._waiting[: self._max_batch]
                del self._waiting[: self._max_batch]
                # Whoever went away meanwhile is not answered.
                await self._run([(ask, future) for ask, future in batch if not future.done()])
        finally:
            self._worker = None

    async def _run(self, batch: list[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        self._count(len(batch))
        asks = [ask for ask, _ in batch]
        loop = asyncio.get_running_loop()
        found: Sequence[Answer | Exception]
        try:
            found = await loop.run_in_executor(self._thread, self._answer, asks)
        except Exception as error:  # told to everyone who waits for this pass, and raised there
            found = [error] * len(batch)
        for (_, future), answer in zip(batch, found, strict=True):
            if future.done():
                continue
            if isinstance(answer, Answer):
                future.set_result(answer)
            else:
                future.set_exception(answer)
