"""Read logs with one event per row: RecBole `.inter`, CSV and Parquet, with feedback columns.

Every bad row of a file is reported at once, with its line (Parquet: its row).
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from trillium.errors import DataError

from trillium_rec.dataset import Catalogue, RawLog, show_problems

_RECBOLE_TYPES = ("float", "token", "float_seq", "token_seq")
# Feedback is kept as float32.
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Columns:
    """Name the columns of a log; feedback columns hold numbers."""

    user: str
    item: str
    timestamp: str | None = None
    request: str | None = None
    feedback: tuple[str, ...] = ()


@dataclass
class _Parsed:
    """Collect the columns of a log while its rows are read."""

    user: list[str] = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    timestamp: list[float] = field(default_factory=list)
    request: list[str] = field(default_factory=list)
    feedback: dict[str, list[float]] = field(default_factory=dict)


def read_log(path: Path, columns: Columns) -> RawLog:
    """Read a `.csv`, `.tsv` or `.parquet` log; the first line of a text file names the columns.

    Raises DataError that lists the columns that are missing, or every row that cannot be read.
    """
    if path.suffix == ".parquet":
        names, rows = _parquet_rows(path)
    else:
        names, rows = _text_rows(path, "\t" if path.suffix in (".tsv", ".inter") else ",")
    return _parse(path, columns, names, rows)


def read_recbole(path: Path) -> RawLog:
    """Read a RecBole `.inter` file: tabs, and a header of `name:type` fields.

    Raises DataError when user_id or item_id is missing or a row cannot be read.
    """
    types, rows = _recbole_rows(path)
    time = "timestamp" if "timestamp" in types else None
    numbers = tuple(name for name, type in types.items() if type == "float" and name != time)
    return _parse(path, Columns("user_id", "item_id", time, None, numbers), list(types), rows)


def read_recbole_items(path: Path) -> Catalogue:
    """Read a RecBole `.item` file; the title is its first field whose name holds "title" or "name".

    The text is every other field but the id, joined.
    """
    types, rows = _recbole_rows(path)
    if "item_id" not in types:
        raise DataError(f"{path}:1: has no field item_id (there is: {', '.join(types)})")
    title = next((name for name in types if "title" in name or name == "name"), "item_id")
    found: dict[str, tuple[str, str]] = {}
    problems = []
    for line, row in rows:
        id = row.get("item_id", "")
        rest = [row.get(name, "").strip() for name in types if name not in ("item_id", title)]
        if id in found or not id.strip():
            problems.append(f"{path}:{line}: item id {id!r} is empty or occurs twice; correct it")
        found[id] = (row.get(title, "").strip(), ". ".join(text for text in rest if text))
    if problems:
        raise DataError(show_problems(problems))
    texts = tuple(". ".join(part for part in pair if part) for pair in found.values())
    return Catalogue(tuple(found), tuple(pair[0] for pair in found.values()), texts)


def _parse(
    path: Path, columns: Columns, names: list[str], rows: Iterator[tuple[int, Mapping[str, str]]]
) -> RawLog:
    wanted = [columns.user, columns.item, *columns.feedback]
    wanted += [name for name in (columns.timestamp, columns.request) if name]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)} (there is: {', '.join(names)}); "
            "name the columns in the run file"
        )
    parsed = _Parsed(feedback={name: [] for name in columns.feedback})
    problems: list[str] = []
    for line, row in rows:
        try:
            _append(parsed, columns, row, line)
        except DataError as error:
            problems.append(f"{path}:{line}: {error}")
    if problems:
        raise DataError(show_problems(problems))
    return RawLog(
        where=str(path),
        user=parsed.user,
        item=parsed.item,
        line=parsed.line,
        timestamp=parsed.timestamp if columns.timestamp else None,
        request=parsed.request if columns.request else None,
        feedback=parsed.feedback,
    )


def _append(parsed: _Parsed, columns: Columns, row: Mapping[str, str], line: int) -> None:
    user, item = _text(row, columns.user), _text(row, columns.item)
    timestamp = _number(row, columns.timestamp) if columns.timestamp else 0.0
    request = f"{user}\t{_text(row, columns.request)}" if columns.request else ""
    feedback = {name: _number(row, name, largest=_LARGEST) for name in columns.feedback}
    parsed.user.append(user)
    parsed.item.append(item)
    parsed.line.append(line)
    parsed.timestamp.append(timestamp)
    parsed.request.append(request)
    for name, value in feedback.items():
        parsed.feedback[name].append(value)


def _text(row: Mapping[str, str], name: str) -> str:
    value = row.get(name) or ""
    if not value.strip():
        raise DataError(f'column "{name}" is empty (needs an id); fill it or drop the row')
    return value


def _number(row: Mapping[str, str], name: str, *, largest: float = math.inf) -> float:
    text = row.get(name) or ""
    try:
        value = float(text.replace("_", "?"))  # to Python, 1_0 would be 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f'column "{name}" is {text!r} (needs a finite number); correct or drop it')
    if abs(value) > largest:
        raise DataError(f'column "{name}" is {text} (at most {largest:.1e} fits); correct it')
    return value


def _recbole_rows(path: Path) -> tuple[dict[str, str], Iterator[tuple[int, Mapping[str, str]]]]:
    """Return the type of each field by name, and the rows by bare names."""
    names, rows = _text_rows(path, "\t")
    fields = {name: name.partition(":") for name in names}
    if any(type not in _RECBOLE_TYPES for _, _, type in fields.values()):
        raise DataError(
            f"{path}:1: the header is {' '.join(names)!r} (expected name:type fields such as "
            "user_id:token); give a RecBole file, or read it as a table"
        )
    bare = {name: parts[0] for name, parts in fields.items()}
    _check_header(path, list(bare.values()))
    types = {parts[0]: parts[2] for parts in fields.values()}
    return types, ((line, {bare[name]: value for name, value in row.items()}) for line, row in rows)


def _text_rows(
    path: Path, delimiter: str
) -> tuple[list[str], Iterator[tuple[int, Mapping[str, str]]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another path") from None
    records = _records(path, text, delimiter)
    names = next(records, (1, []))[1]
    _check_header(path, names)
    return names, ((line, _by_name(f"{path}:{line}", names, values)) for line, values in records)


def _by_name(where: str, names: list[str], values: list[str]) -> dict[str, str]:
    """Return the fields of a record; those that the header does not name must be empty."""
    spare = [value for value in values[len(names) :] if value.strip()]
    if spare:
        raise DataError(
            f"{where}: has {len(values)} fields under {len(names)} names, {spare[0]!r} is beyond "
            "them; quote a value that holds the delimiter, such as 1,500"
        )
    return dict(zip(names, values, strict=False))


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Return the fields of each record with its last line; lines without any are passed over."""
    # StringIO ends lines as files do; splitlines would also do so at U+2028 and its like.
    lines = io.StringIO(text, newline="")
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{begin}: cannot be read as fields ({error}); double a quote that stands "
                "inside quotes, and close every quote"
            ) from None
        # An empty first line is a header without names.
        if values or begin == 1:
            yield reader.line_num, values


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Raise DataError for a header that names no column, or one of them twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if not names or repeated:
        what = f"names {', '.join(repeated)} twice" if repeated else "is empty"
        raise DataError(f"{path}:1: the header {what} (one name per column); correct it")


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, Mapping[str, str]]]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is not a Parquet file ({str(error).splitlines()[0]}); write it again"
        ) from error

    names = list(table.column_names)

    def rows() -> Iterator[tuple[int, Mapping[str, str]]]:
        number = 0
        for batch in table.to_batches():
            columns = {name: _strings(path, name, batch.column(name)) for name in names}
            for row in range(batch.num_rows):
                number += 1
                yield number, {name: values[row] for name, values in columns.items()}

    return names, rows()


def _strings(path: Path, name: str, column: pa.Array) -> list[str]:
    """Return the values as text, times as seconds since 1970 and no value as an empty text.

    NaN is no value either: it is what pandas writes for one. Bytes are read as UTF-8.
    """
    if pa.types.is_timestamp(column.type):
        # What is shorter than a microsecond is cut off: nothing here needs it.
        micros = pc.CastOptions(pa.timestamp("us", column.type.tz), allow_time_truncate=True)
        column = column.cast(options=micros).cast(pa.int64())
        return ["" if value is None else str(value / 1e6) for value in column.to_pylist()]
    values = column.to_pylist()
    if pa.types.is_boolean(column.type):
        return ["" if value is None else str(int(value)) for value in values]
    try:
        return [_string(value) for value in values]
    except UnicodeDecodeError as error:
        raise DataError(
            f'{path}: column "{name}" holds bytes that are not UTF-8 ({error.object[:20]!r}); '
            "write its values as texts"
        ) from None


def _string(value: object) -> str:
    if value is None or value != value:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)
