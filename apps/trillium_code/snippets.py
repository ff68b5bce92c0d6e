"""Code snippets that seed the invention of tasks: functions out of Python files or JSON lines."""

import ast
import io
import json
import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import DataError

from trillium_code.syntax import lines_of, parse

STDLIB = "stdlib"
_MIN_LINES, _MAX_LINES = 4, 30
_SKIPPED_FOLDERS = {"test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__"}


@dataclass(frozen=True)
class Snippet:
    """Hold one function and where it stands."""

    id: str
    code: str


def draw_snippets(source: str, n_snippets: int, *, seed: int) -> list[Snippet]:
    """Return functions drawn without replacement from a source; the seed decides which.

    A source is `stdlib` (the running Python's own library), a Python file, a folder of them, or a
    .jsonl file whose rows have the code under "code" or "content". Raises DataError when there is
    no function of 4 to 30 lines in it.
    """
    found = list(dict.fromkeys(_snippets(source)))
    if not found:
        raise DataError(
            f"snippets {source}: holds no function of {_MIN_LINES} to {_MAX_LINES} lines; give "
            "stdlib, a Python file, a folder of them, or a .jsonl file with code"
        )
    return random.Random(seed).sample(found, min(n_snippets, len(found)))


def _snippets(source: str) -> Iterator[Snippet]:
    path = Path(sysconfig.get_path("stdlib")) if source == STDLIB else Path(source).expanduser()
    if path.suffix == ".jsonl":
        yield from _from_rows(path)
        return
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*.py")
            if not _SKIPPED_FOLDERS & set(file.relative_to(path).parts[:-1])
        )
    else:
        files = [path]
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        yield from functions_in(_read(file), name)


def functions_in(code: str, name: str) -> list[Snippet]:
    """Return the functions of `code` that are long enough to show something and short enough."""
    try:
        tree = parse(code)
    except SyntaxError:
        return []
    lines = lines_of(code)
    return [
        Snippet(f"{name}:{node.lineno}", _dedent(lines[node.lineno - 1 : node.end_lineno]))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        and _MIN_LINES <= node.end_lineno - node.lineno + 1 <= _MAX_LINES
    ]


def _from_rows(path: Path) -> Iterator[Snippet]:
    for number, line in enumerate(io.StringIO(_read(path)), 1):
        try:
            row = json.loads(line)
            code = row.get("code", row.get("content"))
        except (ValueError, AttributeError):
            code = None
        if not isinstance(code, str):
            raise DataError(
                f'{path}:{number}: holds no code (needs a JSON object with "code" or "content"); '
                "drop the line or add the field"
            )
        yield from functions_in(code, f"{path.name}:{number}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"snippets {path}: cannot be read ({error.strerror}); check it") from None


def _dedent(lines: Sequence[str]) -> str:
    depth = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[depth:] for line in lines) + "\n"
