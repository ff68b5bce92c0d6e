"""Rows that the stages of a run hand to one another, each a line of a JSON-lines file."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter
from trillium.files import read_rows, write_atomically

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")


def write_records(path: Path, records: Iterable["Record"]) -> None:
    """Write a file of records in one step; half surrogates, which no file holds, are escaped."""
    write_atomically(path, "".join(json.dumps(asdict(record)) + "\n" for record in records))


def read_records(path: Path, kind: type["Record"]) -> list["Record"]:
    """Read a file of records back; the files are our own and hashed by the run's manifest."""
    return parse_records(read_rows(path), kind)


def parse_records(rows: Iterable[object], kind: type["Record"]) -> list["Record"]:
    """Turn rows from a file of ours into records."""
    adapter = TypeAdapter(list[kind])  # type: ignore[valid-type]
    return adapter.validate_python(list(rows))
