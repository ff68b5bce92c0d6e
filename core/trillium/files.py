"""Files that survive a kill: atomic writes, rows appended one by one, locks and content hashes.

Invariant: a reader sees the old content or the new one, never a half. A full disk raises
`BackendError` and leaves what was there before.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from trillium.errors import BackendError, ConfigError

log = logging.getLogger(__name__)

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# What torch says when its file takes fewer bytes than it wrote; the cause is lost inside.
_SHORT_WRITE = ("unexpected pos", "failed writing file", "iostream error")
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_SUCH_PLACE = {
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
}


@contextmanager
def explain_failed_write(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a path that cannot be, into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_ALLOWED:
            raise ConfigError(
                f"{path}: may not be written ({error.strerror}); choose a folder that may"
            ) from error
        if error.errno in _NO_SUCH_PLACE:
            raise ConfigError(
                f"{path}: cannot be written ({error.strerror}{_obstacle(path)}); "
                "choose another place"
            ) from error
        if error.errno not in _DISK_FULL:
            raise
        raise disk_full_error(path) from error


def disk_full_error(path: Path) -> BackendError:
    """Return what to raise when `path` could not be written for want of space."""
    free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
    return BackendError(
        f"{path}: the disk or a quota is full ({free / 2**20:.0f} MiB free); "
        "everything finished before is kept; free some space and run the same command again"
    )


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a failed write ran out of space, also when a library wrapped the cause."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError) and current.errno in _DISK_FULL:
            return True
        text = str(current)
        if any(words in text for words in _SHORT_WRITE):
            return True
        if any(f"os error {code}" in text or os.strerror(code) in text for code in _DISK_FULL):
            return True
        current = current.__cause__ or current.__context__
    return False


def _obstacle(path: Path) -> str:
    """Name the file that was in the way, where it is not `path` itself."""
    in_the_way = next(
        (parent for parent in path.parents if parent.exists() and not parent.is_dir()), None
    )
    return f": {in_the_way}" if in_the_way else ""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step, on disk before this returns."""
    if not path.name:
        raise ConfigError(f"{path}: is a folder; give the path of a file")
    payload = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explain_failed_write(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or a folder with all it holds; do nothing when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def hash_path(path: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of a folder, in hexadecimal."""
    if not path.is_dir():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    names = sorted(found.relative_to(path) for found in path.rglob("*") if found.is_file())
    return hash_json([[name.as_posix(), hash_path(path / name)] for name in names])


def hash_json(value: object) -> str:
    """Return the sha256 of a JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class FolderLock:
    """Hold a folder for this process, or say who holds it.

    A POSIX record lock: it goes with the process that took it, even when that is killed, and
    forked workers do not inherit it. Taking it twice in one process is not detected.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock of `folder`; raises ConfigError when that cannot be."""
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file, not a folder; choose another place")
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = (folder / ".lock").open("a+")
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._stream.seek(0)
            owner = self._stream.read().strip() or "unknown"
            self._stream.close()
            raise ConfigError(
                f"{folder}: is in use by process {owner}; wait for it, stop it, "
                "or choose another folder"
            ) from None
        self._stream.truncate(0)
        self._stream.write(str(os.getpid()))
        self._stream.flush()

    def release(self) -> None:
        """Let the next process have the folder."""
        self._stream.close()


class RowsFile:
    """Append rows to a JSON-lines file; a killed process loses at most the row it was writing.

    `finished` holds the keys of the rows already there; a caller skips those and appends the rest
    in the same order, so the final bytes equal those of a run that was never stopped.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        """Open or create `path`; drop a torn last line; index rows by their field `key`."""
        self.path = path
        self._key = key
        self.finished: set[str] = set()
        with explain_failed_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._size = self._recover()

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row and put it on disk; on a full disk the file keeps only whole rows."""
        self.extend([row])

    def extend(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write rows and put them on disk at once; on a full disk the file keeps none of them."""
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        content = lines.encode()
        with explain_failed_write(self.path):
            try:
                written = 0
                while written < len(content):
                    written += os.write(self._descriptor, content[written:])
                os.fsync(self._descriptor)
            except OSError:
                os.ftruncate(self._descriptor, self._size)
                raise
        self._size += len(content)
        self.finished.update(str(row[self._key]) for row in rows)

    def close(self) -> None:
        """Close the file; it stays where it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "RowsFile":
        """Return the file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _recover(self) -> int:
        good = 0
        with self.path.open("rb") as stream:
            for line in stream:
                key = _row_key(line, self._key)
                if key is None:
                    break
                self.finished.add(key)
                good += len(line)
        torn = self.path.stat().st_size - good
        if torn:
            log.warning(
                "%s: dropped %d bytes of an unfinished row after row %d",
                self.path,
                torn,
                len(self.finished),
            )
            os.truncate(self.path, good)
        return good


def read_rows(path: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of a JSON-lines file."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            row: dict[str, object] = json.loads(line)
            yield row


def _row_key(line: bytes, key: str) -> str | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return str(row[key]) if isinstance(row, dict) and key in row else None
