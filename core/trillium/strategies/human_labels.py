"""What goes to people and what comes back: tasks, their answers, and measured mixtures of labels.

A task shows a pair's responses as a and b, in an order that its texts decide: neither a seed nor
which of them the file prefers. So an answer stays right when either has changed.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from trillium.errors import DataError
from trillium.files import write_atomically
from trillium.records import PairRow
from trillium.rowfiles import Broken, read_lines
from trillium.strategies.asking import as_text

Sides = Mapping[str, str]
"""What people preferred, by the id of the pair: chosen, rejected or tie."""

_PREFERRED = ("chosen", "rejected", "tie")


def write_tasks(path: Path, rows: Sequence[PairRow]) -> None:
    """Write what people are to label: id, prompt, a, b; which side is the model's stays unsaid."""
    lines = []
    for row in rows:
        a, b = _order(row)
        record = {"id": row.id, "prompt": as_text(row.prompt), "a": a, "b": b}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines))


def read_sides(path: Path, rows: Sequence[PairRow]) -> dict[str, str]:
    """Read what people said: id, and `preferred`, which is a or b of a task, or tie.

    Texts a and b of the task that are left in are compared with the pair. chosen and rejected are
    taken as well, and mean the sides of the file. Raises DataError naming the first line that is
    wrong.
    """
    known = {row.id: row for row in rows}
    sides = {}
    for number, record in _read(path):
        id, preferred = str(record.get("id")), record.get("preferred")
        if id not in known:
            raise DataError(
                f"{path}:{number}: id {id!r} is of no pair (needs ids of the routed file); give "
                "the answers that belong to it"
            )
        if preferred in ("a", "b"):
            preferred = _side_of(known[id], record, f"{path}:{number}")
        if preferred not in _PREFERRED:
            raise DataError(
                f"{path}:{number}: field 'preferred' is {preferred!r} (needs a, b or tie, or "
                "chosen or rejected); correct the line"
            )
        sides[id] = str(preferred)
    return sides


def read_mixtures(path: Path) -> list[tuple[frozenset[str], float]]:
    """Read mixtures: `human`, the ids that people labelled, and `performance`, a number.

    Raises DataError for a line that has not both, or for fewer than two lines.
    """
    found = []
    for number, record in _read(path):
        ids, result = record.get("human"), record.get("performance")
        if (
            not isinstance(ids, list)
            or isinstance(result, bool)
            or not isinstance(result, int | float)
            or not math.isfinite(result)
        ):
            raise DataError(
                f"{path}:{number}: is no mixture (needs human, a list of ids, and performance, a "
                "finite number); correct the line"
            )
        found.append((frozenset(map(str, ids)), float(result)))
    if len(found) < 2:
        raise DataError(f"{path}: has {len(found)} mixtures (needs at least two); measure more")
    return found


def _read(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the objects of a file with the numbers of their lines."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file (needs .jsonl); check the path")
    for number, record in read_lines(path):
        if not isinstance(record, Mapping):
            reason = (
                record.reason
                if isinstance(record, Broken)
                else "is no object (needs one per line); correct it"
            )
            raise DataError(f"{path}:{number}: {reason}")
        yield number, record


def _order(row: PairRow) -> tuple[str, str]:
    """Return a and b of a task, in an order that the texts alone decide."""
    texts = (as_text(row.chosen), as_text(row.rejected))
    b, a = sorted(texts, key=lambda text: hashlib.sha256(f"{row.id}/{text}".encode()).digest())
    return a, b


def _side_of(row: PairRow, record: Mapping[str, object], where: str) -> str:
    """Return the side whose letter was preferred; raises DataError for texts of another pair."""
    for a, b in (_order(row), _order(row)[::-1]):
        if record.get("a") in (None, a) and record.get("b") in (None, b):
            preferred = a if record["preferred"] == "a" else b
            return "chosen" if preferred == as_text(row.chosen) else "rejected"
    raise DataError(
        f"{where}: fields 'a' and 'b' are not the responses of {row.id!r} (needs the texts of its "
        "task, or neither); give the answers that belong to the file"
    )
