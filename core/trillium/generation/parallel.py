"""Work on several items at a time, answers in order, with a bound on what is under way."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


def map_ahead(function: Callable[[I], O], items: Iterable[I], *, n_ahead: int) -> Iterator[O]:
    """Yield `function(item)` in the order of the items, `n_ahead` of them in threads at a time.

    An item is taken only when the answer that is `n_ahead` before it has been taken. What a call
    raises is raised here, in its turn; calls that have not begun by then are dropped.
    """
    waiting: deque[Future[O]] = deque()
    pool = ThreadPoolExecutor(n_ahead)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
