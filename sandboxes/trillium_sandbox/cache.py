"""Results kept in a file, keyed by all that decides them; several processes may share it.

A verdict that depends on how busy the machine was (timeout, memory, killed, output_limit) or on
the sandbox itself (sandbox_error) is never kept. What a program draws at random, and the time and
memory it took, are replayed as they were the first time: requests with a `run` of their own are
kept apart, but a measurement made again through a cache is the old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from trillium_sandbox.base import Backend
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.verdicts import Reply, Request

MAX_BYTES = 1 << 30
"""How large a cache file may grow; the oldest results make room."""

_KEPT = frozenset({"ok", "pass", "fail", "error"})
_APPLICATION = 0x54524C53
_BUSY_S = 30.0
_HITS_AHEAD = 1024
_REQUEST_NAMES = [field.name for field in fields(Request) if field.name != "id"]
_REPLY_NAMES = [field.name for field in fields(Reply)]
_CREATE = "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, reply TEXT NOT NULL)"


class ResultCache:
    """A file of results. One thread at a time; other processes may have it open as well."""

    def __init__(self, path: Path, *, backend: str, level: int, max_bytes: int = MAX_BYTES) -> None:
        """Open or create the file for results of `backend`, named by `name_backend`.

        Raises SandboxError when the file is something else or cannot be written.
        """
        self._context = hashlib.sha256(identity(backend, level).encode())
        self._path = path
        self._max_bytes = max_bytes
        self.n_hits = self.n_misses = 0
        self.failure: str | None = None
        try:
            # Who can write here can forge verdicts.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._base = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise SandboxError(
                f"{path}: cannot be used as a result cache ({error}); choose another path"
            ) from error

    def find(self, request: Request) -> Reply | None:
        """Return the kept reply to such a request, under this request's id."""
        row = None
        with self._watched():
            row = self._base.execute(
                "SELECT reply FROM results WHERE key = ?", (self._key(request),)
            ).fetchone()
        if row is None:
            self.n_misses += 1
            return None
        self.n_hits += 1
        return replace(_read(row[0]), id=request.id)

    def keep(self, answered: Sequence[tuple[Request, Reply]]) -> None:
        """Store the replies that would be the same another time."""
        rows = [(self._key(request), _write(reply)) for request, reply in answered if _lasts(reply)]
        if not rows or self.failure:
            return
        with self._watched(), self._base:
            self._base.execute("BEGIN IMMEDIATE")
            self._base.executemany("INSERT OR IGNORE INTO results VALUES (?, ?)", rows)
            self._shrink()

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def _key(self, request: Request) -> bytes:
        # The parts are of Python's own exact types, so repr tells any two of them apart.
        parts = [getattr(request, name) for name in _REQUEST_NAMES]
        digest = self._context.copy()
        digest.update(repr(parts).encode())
        return digest.digest()

    def _prepare(self) -> None:
        self._base.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last results, never the file.
        self._base.execute("PRAGMA synchronous = NORMAL")
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            application = self._number("application_id")
            if application != _APPLICATION and self._number("schema_version") > 0:
                raise sqlite3.DatabaseError("it is the database of another program")
            self._base.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._base.execute(_CREATE)

    def _shrink(self) -> None:
        """Drop the oldest tenth until the file's used pages fit."""
        page_bytes = self._number("page_size")
        while (
            self._number("page_count") - self._number("freelist_count")
        ) * page_bytes > self._max_bytes:
            n_rows = self._base.execute("SELECT count(*) FROM results").fetchone()[0]
            if not n_rows:
                return
            self._base.execute(
                "DELETE FROM results WHERE rowid IN "
                "(SELECT rowid FROM results ORDER BY rowid LIMIT ?)",
                (n_rows // 10 + 1,),
            )

    def _number(self, pragma: str) -> int:
        return int(self._base.execute(f"PRAGMA {pragma}").fetchone()[0])

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Let a run survive its cache, and say so once."""
        try:
            yield
        except sqlite3.Error as error:
            if self.failure is None:
                self.failure = f"{self._path}: the result cache failed ({error}); it is not used"
                logging.getLogger(__name__).error(self.failure)


class CachedBackend:
    """A backend that runs only what its cache does not know."""

    def __init__(self, backend: Backend, cache: ResultCache) -> None:
        """Own both; closing this closes them."""
        self._backend = backend
        self.cache = cache

    @property
    def level(self) -> int:
        """Return the isolation level that holds; see levels.py."""
        return self._backend.level

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request, in the order of the requests."""
        source = iter(requests)
        while (request := next(source, None)) is not None:
            known = self.cache.find(request)
            if known is not None:
                yield known
                continue
            # In order: a kept reply, or the request whose reply the backend still owes.
            order: deque[Reply | Request] = deque([request])
            for reply in self._backend.run(self._misses(request, source, order)):
                while isinstance(ahead := order.popleft(), Reply):
                    yield ahead
                self.cache.keep([(ahead, reply)])
                yield reply
            for ahead in order:
                assert isinstance(ahead, Reply)
                yield ahead

    def close(self) -> None:
        """Close the backend and the cache."""
        self._backend.close()
        self.cache.close()

    def __enter__(self) -> Self:
        """Return the backend itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the backend and the cache."""
        self.close()

    def _misses(
        self, first: Request, source: Iterator[Request], order: deque[Reply | Request]
    ) -> Iterator[Request]:
        """Yield what has to run; stop, for `run` to catch up, when many kept replies wait."""
        yield first
        n_hits = 0
        while n_hits < _HITS_AHEAD and (request := next(source, None)) is not None:
            known = self.cache.find(request)
            order.append(request if known is None else known)
            if known is None:
                yield request
            else:
                n_hits += 1


def name_backend(name: str, opened: object) -> str:
    """Return the name of an open backend with its origin, if it has one: its image, its service."""
    return f"{name} {getattr(opened, 'origin', '')}".rstrip()


def identity(backend: str, level: int) -> str:
    """Return a hash that changes with all that decides results beside the request itself."""
    parts = (backend, level, sys.version, _runner_hash())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def _runner_hash() -> str:
    """Return a hash of the sandbox's own sources: another runner may judge otherwise."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _lasts(reply: Reply) -> bool:
    return reply.status in _KEPT and reply.limit_hit is None and "timeout" not in reply.tests


def _write(reply: Reply) -> str:
    # Latin-1 has a character for every byte.
    row = {name: getattr(reply, name) for name in _REPLY_NAMES}
    row |= {"stdout": reply.stdout.decode("latin-1"), "stderr": reply.stderr.decode("latin-1")}
    return json.dumps(row)


def _read(text: str) -> Reply:
    row = json.loads(text)
    row |= {name: row[name].encode("latin-1") for name in ("stdout", "stderr")}
    row["tests"] = tuple(row["tests"])
    return Reply(**row)
