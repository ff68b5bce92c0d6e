"""The cache of reference log-probabilities: one record per path, named by content, in SQLite.

A record's key is sha256 over what the reference computes with, and how, and the path's digest; its
value is the float32 log-probability of every scored token, with a checksum. One transaction per
batch, so a kill loses at most the batch in work. A damaged record is dropped and computed again; a
damaged file is set aside. Hashes of weight files are kept here too, by path, size and time of
change.
"""

import hashlib
import logging
import shutil
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from trillium.assets import cache_folder
from trillium.errors import BackendError
from trillium.files import explain_failed_write, hash_path

log = logging.getLogger(__name__)

_TABLES = """
CREATE TABLE IF NOT EXISTS logps (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS = {
    "logps": {"key", "value", "checksum"},
    "files": {"path", "size", "mtime_ns", "sha256"},
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# A full disk is told as the first; a quota, or no room for the write-ahead log, as the second.
_OUT_OF_SPACE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_FOREIGN = "foreign: "
_KEYS_PER_QUERY = 500


def record_key(identity: str, path_digest: str) -> bytes:
    """Name a record by what the reference computes with, and how, and what the path holds."""
    return hashlib.sha256(f"{identity}\n{path_digest}".encode()).digest()


class LogpCache:
    """A file of records; use it as a context manager, or close it.

    `n_damaged` counts the records that were there but could not be trusted.
    """

    def __init__(self, path: Path) -> None:
        """Open or create `path`; a file that is no sound database, or another's, is set aside."""
        self.path = path
        self.n_damaged = 0
        with explain_failed_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._explain():
            try:
                self._database = self._connect()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                self._database = self._connect()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the records that are there and intact, and drop those that are damaged."""
        found: dict[bytes, NDArray[np.float32]] = {}
        damaged: list[bytes] = []
        for key, value, checksum in self._select(keys):
            if len(value) % 4 == 0 and checksum == _checksum(key, value):
                found[key] = np.frombuffer(value, "<f4").astype(np.float32)
            else:
                damaged.append(key)
        if damaged:
            self._drop(damaged)
        return found

    def put(self, records: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Add records in one transaction; a record that is already there is kept as it is.

        Raises BackendError when the disk is full; what was stored before stays.
        """
        rows = []
        for key, logps in records.items():
            value = logps.astype("<f4").tobytes()
            rows.append((key, value, _checksum(key, value)))
        with self._explain(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO logps VALUES (?, ?, ?)", rows)

    def file_hash(self, path: Path) -> str:
        """Return the sha256 of a file, read again only when its size or time of change differ."""
        status = path.stat()
        name, size, mtime_ns = str(path.resolve()), status.st_size, status.st_mtime_ns
        query = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ?"
        with self._explain():
            row = self._database.execute(query, (name, size, mtime_ns)).fetchone()
        if row is not None:
            return str(row[0])
        sha256 = hash_path(path)
        with self._explain(), self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (name, size, mtime_ns, sha256)
            )
        return sha256

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> "LogpCache":
        """Return the cache itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _select(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, int]]:
        rows: list[tuple[bytes, bytes, int]] = []
        with self._explain():
            try:
                for start in range(0, len(keys), _KEYS_PER_QUERY):
                    part = keys[start : start + _KEYS_PER_QUERY]
                    marks = ",".join("?" * len(part))
                    query = f"SELECT key, value, checksum FROM logps WHERE key IN ({marks})"
                    rows += self._database.execute(query, part).fetchall()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._database.close()
                self._set_aside(error)
                self._database = self._connect()
                return []
        return rows

    def _drop(self, keys: Sequence[bytes]) -> None:
        self.n_damaged += len(keys)
        log.warning(
            "%s: %d damaged records (checksum does not match) were dropped and are computed again",
            self.path,
            len(keys),
        )
        with self._explain(), self._database:
            self._database.executemany("DELETE FROM logps WHERE key = ?", [(key,) for key in keys])

    def _connect(self) -> sqlite3.Connection:
        # Another process may be writing; half a minute is far longer than one batch takes to store.
        database = sqlite3.connect(self.path, timeout=30)
        try:
            _check_tables(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_TABLES)
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError:
            database.close()
            raise
        if verdict != "ok":
            database.close()
            raise sqlite3.DatabaseError(f"malformed: {verdict}")
        return database

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        number = 1
        while (kept := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        self.path.replace(kept)
        for suffix in ("-wal", "-shm"):
            beside = self.path.with_name(self.path.name + suffix)
            if beside.exists():
                beside.replace(kept.with_name(kept.name + suffix))
        problem = "holds other tables" if str(error).startswith(_FOREIGN) else "is damaged"
        log.warning(
            "%s: the file %s; it was set aside as %s and its records are computed again",
            self.path,
            problem,
            kept.name,
        )

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn what SQLite says about disks and locks into a sentence with a remedy."""
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            if _primary_code(error) in _OUT_OF_SPACE:
                free = shutil.disk_usage(self.path.parent).free / 2**20
                # SQLite may call a full disk an I/O error.
                full = ", the disk is full" if free < 1 and "full" not in str(error) else ""
                reason = f"{error}{full}, {free:.0f} MiB free"
                remedy = (
                    "free some space, or raise the quota, and run the same command again; what is "
                    "stored is kept"
                )
            else:
                remedy = "check that the folder can be written and that no other run holds the file"
            raise BackendError(
                f"{self.path}: the reference cache cannot be used ({reason}); {remedy}"
            ) from error


def open_cache() -> LogpCache:
    """Open the cache of this user: log-probabilities of references, hashes of large files."""
    return LogpCache(cache_folder() / "reference-logps.sqlite")


def _check_tables(database: sqlite3.Connection) -> None:
    """Raise DatabaseError for a table that is not ours, or has other columns."""
    tables = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    for (name,) in tables.fetchall():
        columns = database.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
        if _COLUMNS.get(name) != {column for (column,) in columns}:
            raise sqlite3.DatabaseError(f"{_FOREIGN}{name}")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return _primary_code(error) in _DAMAGED or str(error).startswith(("malformed: ", _FOREIGN))


def _primary_code(error: sqlite3.Error) -> int:
    """Return the kind of failure; the bits above the lowest eight only refine it."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _checksum(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key))
