"""Near-duplicates between tasks, by entry point and by shared word n-grams of their statements.

What every task shares ("Return the ...") must not count, so runs are long and the share is taken of
the smaller side. Solutions are not compared: those of short tasks share most of their words.
"""

import re
from collections import Counter
from collections.abc import Sequence

from trillium_code.tasks import CodeTask

_WORD = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]")


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """Return the runs of `n` words, numbers or signs in `text`, in lower case."""
    words = [word.lower() for word in _WORD.findall(text)]
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def shared_part(a: set[tuple[str, ...]], b: set[tuple[str, ...]]) -> float:
    """Return |a & b| / min(|a|, |b|), or 0 when one of the sets is empty."""
    smaller = min(len(a), len(b))
    return len(a & b) / smaller if smaller else 0.0


def find_duplicates(
    train: Sequence[CodeTask], evaluation: Sequence[CodeTask], *, n: int = 5, limit: float = 0.6
) -> dict[str, str]:
    """Map each training task that repeats an evaluation task to that task's id.

    A task repeats another when they share the entry point, the header, the statement, or more than
    `limit` of the n-grams of the shorter statement; one below `n` words has none.
    """
    by_text = {_plain(task): task.id for task in evaluation if task.statement}
    by_name = {task.entry_point: task.id for task in evaluation}
    by_header = {task.header: task.id for task in evaluation}
    grams = {task.id: ngrams(task.statement, n) for task in evaluation}
    found: dict[str, str] = {}
    for task in train:
        mine = ngrams(task.statement, n)
        near = (id for id, other in grams.items() if shared_part(mine, other) > limit)
        twin = by_name.get(task.entry_point) or by_header.get(task.header)
        twin = twin or by_text.get(_plain(task)) or next(near, None)
        if twin is not None:
            found[task.id] = twin
    return found


def drop_repeats(tasks: Sequence[CodeTask], *, n: int = 5, limit: float = 0.6) -> list[CodeTask]:
    """Return the tasks without those that repeat an earlier one, by entry point or statement.

    An index from n-gram to tasks keeps the comparison to tasks that share one at all.
    """
    kept: list[CodeTask] = []
    names: set[str] = set()
    statements: set[str] = set()
    index: dict[tuple[str, ...], list[int]] = {}
    sizes: list[int] = []
    for task in tasks:
        grams = ngrams(task.statement, n)
        shared = Counter(place for gram in grams for place in index.get(gram, ()))
        is_near = any(
            count > limit * min(len(grams), sizes[place]) for place, count in shared.items()
        )
        plain = _plain(task)
        if task.entry_point in names or plain in statements or is_near:
            continue
        for gram in grams:
            index.setdefault(gram, []).append(len(kept))
        sizes.append(len(grams))
        names.add(task.entry_point)
        statements.add(plain)
        kept.append(task)
    return kept


def _plain(task: CodeTask) -> str:
    return " ".join(task.statement.lower().split())
