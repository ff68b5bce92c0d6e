"""Read task files: our own set, the asset HumanEval, or any file of JSON lines in a known format.

A bad row is told with its line and reason: a check of the file reports all of them, a run sets them
aside and goes on.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from trillium.errors import DataError

from trillium_code.task_rows import Row, Skipped, parse_row
from trillium_code.tasks import CodeTask

OWN = "own"
HUMANEVAL = "humaneval"
_MOST_PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class TaskFile:
    """Hold the tasks of a file, and one sentence for each row that gives none.

    `problems` are bad rows; `skipped` are rows of published files that no program can pass.
    """

    tasks: tuple[CodeTask, ...]
    problems: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def read_tasks(source: str) -> list[CodeTask]:
    """Read all tasks of `own`, the asset `humaneval`, or the file at the path `source`.

    Raises DataError that lists every bad row, or says that there is no row. Rows that are known to
    be unusable (`plus_tests.SKIPPED`) are left out.
    """
    found = read_task_file(source)
    if found.problems:
        raise DataError(_shorten(found.problems))
    return list(found.tasks)


def read_task_file(source: str) -> TaskFile:
    """Read the tasks of a source and set bad rows aside, each with its line and reason.

    Raises DataError when the file cannot be read, has no row, or none of its rows is a task.
    """
    path = _locate(source)
    tasks: dict[str, CodeTask] = {}
    problems: list[str] = []
    skipped: list[str] = []
    n_rows = 0
    for line, text in _lines(path):
        n_rows += 1
        try:
            task = parse_row(_parse_json(text))
            if isinstance(task, Skipped):
                skipped.append(f"{path}:{line}: {task.id}: {task.reason}")
                continue
            if task.id in tasks:
                raise DataError(f'task id "{task.id}" occurs twice (must be unique); rename one')
            tasks[task.id] = task
        except DataError as error:
            problems.append(f"{path}:{line}: {error}")
    if n_rows == 0:
        raise DataError(f"{path}: holds no task (needs one JSON object per line); give another")
    if not tasks:
        raise DataError(_shorten([*problems, *skipped]))
    return TaskFile(tuple(tasks.values()), tuple(problems), tuple(skipped))


def _shorten(problems: Sequence[str]) -> str:
    hidden = len(problems) - _MOST_PROBLEMS_SHOWN
    more = [f"... and {hidden} more"] if hidden > 0 else []
    return "\n".join([*problems[:_MOST_PROBLEMS_SHOWN], *more])


def own_tasks_path() -> Path:
    """Return the file of our own tasks inside the package."""
    return Path(str(resources.files("trillium_code"))) / "own_tasks.jsonl"


def _locate(source: str) -> Path:
    if source == OWN:
        return own_tasks_path()
    if source == HUMANEVAL:
        from trillium.assets import fetch_asset

        path = fetch_asset(HUMANEVAL)
        return next(iter(sorted(path.glob("*.jsonl*")))) if path.is_dir() else path
    return Path(source)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        what = "it is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise DataError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or what}); "
            "give own, humaneval, or the path of a JSONL file"
        ) from None


def _parse_json(text: str) -> Row:
    try:
        row = json.loads(text)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError("holds half a surrogate pair (needs whole characters); mend it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error}); one JSON object per line is needed") from None
    if not isinstance(row, dict):
        raise DataError(f"holds {type(row).__name__} (needs a JSON object); wrap it in braces")
    return row
