"""Read and write rows as JSON lines, Parquet or a Hugging Face data set.

Reading checks every row and reports all problems of a file in one DataError. Writing replaces the
file in one step. What a Parquet column cannot hold without loss (messages with extra fields, tool
schemas) is stored as JSON text and listed in the file's metadata.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from trillium.errors import DataError
from trillium.fields import Fields
from trillium.files import write_atomically
from trillium.problems import Place, Problem, describe_problems
from trillium.records import Row
from trillium.strict_json import read_json

_MAX_SHOWN = 100
# No JSON text holds a zero byte; UTF-16 and binary files show one early.
_N_PROBED = 4096
_JSON_COLUMNS = b"trillium.json_columns"
_PLAIN_MESSAGE = {"role", "content"}

SomeRow = TypeVar("SomeRow", bound=Row)


def load_rows(path: Path, kind: type[SomeRow]) -> list[SomeRow]:
    """Read a .jsonl or .parquet file; raises DataError naming every line that is wrong."""
    check_file(path)
    if path.suffix == ".jsonl":
        return _parse(read_lines(path), kind, str(path))
    if path.suffix == ".parquet":
        return _parse(_read_parquet(path), kind, str(path))
    raise DataError(
        f"{path}: unknown kind of file (needs .jsonl or .parquet); convert it or rename it"
    )


def read_records(path: Path) -> list[Mapping[str, object]]:
    """Return the objects of a file that `load_rows` has accepted, with all their fields."""
    numbered = _read_parquet(path) if path.suffix == ".parquet" else read_lines(path)
    return [record for _, record in numbered if isinstance(record, Mapping)]


def fields_of(path: Path) -> set[str]:
    """Return the field names of the first row; nothing where the file cannot be read as rows."""
    if not path.is_file():
        return set()
    if path.suffix == ".parquet":
        try:
            return set(pq.read_schema(path).names)
        except (pa.ArrowException, OSError):
            return set()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next((line for line in file if line.strip()), "")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return set()
    return set(record) if isinstance(record, dict) else set()


def check_file(path: Path) -> None:
    """Raise DataError where there is no file to read."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder (needs a .jsonl or .parquet file); name a file in it")
    if not path.is_file():
        raise DataError(f"{path}: there is no such file (needs .jsonl or .parquet); check the path")


def parse_rows(
    records: Iterable[Mapping[str, object]], kind: type[SomeRow], *, where: str
) -> list[SomeRow]:
    """Check records from memory, for example a Hugging Face data set; `where` names them.

    Arrow tables fill fields that a record does not have with null, at every depth; nulls are
    therefore dropped. Records are numbered from 1 in messages, like lines.
    """
    numbered = ((number, _without_nulls(record)) for number, record in enumerate(records, start=1))
    return _parse(numbered, kind, where)


def save_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to a .jsonl or .parquet file, replacing it in one step."""
    if path.suffix == ".jsonl":
        lines = (
            json.dumps(row.to_record(), ensure_ascii=False, allow_nan=False) + "\n" for row in rows
        )
        write_atomically(path, "".join(lines))
    elif path.suffix == ".parquet":
        write_atomically(path, _to_parquet([row.to_record() for row in rows]))
    else:
        raise DataError(
            f"{path}: unknown kind of file (needs .jsonl or .parquet); choose one of the two"
        )


def _parse(records: Iterable[tuple[int, object]], kind: type[SomeRow], where: str) -> list[SomeRow]:
    rows: list[SomeRow] = []
    problems: list[Problem] = []
    for number, record in records:
        place = Place(f"{where}:", str(number))
        if isinstance(record, Broken):
            problems.append(Problem(place, record.reason))
            continue
        if not isinstance(record, Mapping):
            what = "a list, not an object" if isinstance(record, list) else "no object"
            needs = ", ".join(kind.needs)
            problems.append(Problem(place, f"is {what} (needs {needs}); write one object per line"))
            continue
        fields = Fields(record, kind.needs)
        row = kind.from_record(fields)
        problems.extend(Problem(place, what) for what in fields.problems)
        assert isinstance(row, kind)
        rows.append(replace(row, where=place))
    if problems:
        raise DataError(describe_problems(problems, max_shown=_MAX_SHOWN))
    if not rows:
        raise DataError(
            f"{where}: has no rows (needs at least one with {', '.join(kind.needs)}); check how "
            "the data set was made"
        )
    return rows


@dataclass(frozen=True)
class Broken:
    """Stands for a line that is no JSON, with the reason and the remedy."""

    reason: str


def read_lines(path: Path) -> Iterator[tuple[int, object]]:
    """Yield the lines of a file of JSON lines that are not blank, with their numbers."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a file that may be read"
        ) from None
    with stream:
        if b"\0" in stream.read(_N_PROBED):
            raise DataError(f"{path}: is not UTF-8 text (it holds zero bytes); save it as UTF-8")
        stream.seek(0)
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, _parse_line(line)


def _parse_line(line: bytes) -> object:
    try:
        # Bytes would be decoded with halves of characters let through.
        return read_json(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Broken(f"is not UTF-8 ({error.reason}, byte {error.start}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return Broken(f"is not JSON ({error.msg}, column {error.colno}); correct or drop the line")
    except DataError as error:
        return Broken(f"{error}; correct or drop the line")


def _read_parquet(path: Path) -> Iterator[tuple[int, object]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is not a Parquet file ({str(error).splitlines()[0]}); write it again"
        ) from error
    encoded = json.loads((table.schema.metadata or {}).get(_JSON_COLUMNS, b"[]"))
    number = 0
    for batch in table.to_batches():
        for record in batch.to_pylist():
            number += 1
            kept = _without_nulls(record)
            for name in encoded:
                if name in record and record[name] is not None:
                    kept[name] = json.loads(record[name])
            yield number, kept


def _to_parquet(records: list[dict[str, object]]) -> bytes:
    names = dict.fromkeys(name for record in records for name in record)
    encoded = [n for n in names if not all(_is_flat(record.get(n)) for record in records)]
    for record in records:
        for name in encoded:
            if name in record:
                record[name] = json.dumps(record[name], ensure_ascii=False, allow_nan=False)
    columns = {name: [record.get(name) for record in records] for name in names}
    try:
        table = pa.table(columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"rows do not fit one Parquet table ({error}); write .jsonl, or give every row the "
            "same kind of text"
        ) from error
    table = table.replace_schema_metadata({_JSON_COLUMNS: json.dumps(encoded).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _is_flat(value: object) -> bool:
    """Tell whether Arrow keeps the value exactly: a scalar, a list of them, or plain messages."""
    if isinstance(value, Mapping):
        return False
    if isinstance(value, list):
        return all(
            set(entry) == _PLAIN_MESSAGE and isinstance(entry["content"], str)
            if isinstance(entry, Mapping)
            else isinstance(entry, str | int | float)
            for entry in value
        )
    return True


def _without_nulls(value: Mapping[str, object]) -> dict[str, object]:
    return {key: _clean(entry) for key, entry in value.items() if entry is not None}


def _clean(value: object) -> object:
    if isinstance(value, Mapping):
        return _without_nulls(value)
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    return value
