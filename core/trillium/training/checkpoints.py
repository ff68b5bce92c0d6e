"""Checkpoints that are either whole or not there: sealed last, verified before use.

A seal lists every file of a checkpoint with its size and sha256, and the identity of the run (what
was trained on what, and how). A checkpoint without a seal was interrupted while it was written.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from trillium.errors import BackendError
from trillium.files import hash_path, is_disk_full, write_atomically

log = logging.getLogger(__name__)

SEAL = "sealed.json"


def seal_checkpoint(folder: Path, identity: str) -> None:
    """Record all files of `folder`; from now on it counts as a checkpoint of run `identity`."""
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hash_path(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL
    }
    write_atomically(
        folder / SEAL, json.dumps({"identity": identity, "files": files}, indent=1) + "\n"
    )


def newest_checkpoint(output: Path, identity: str, *, last_recorded: int) -> Path | None:
    """Return the latest intact checkpoint of this run, or None; warn about those passed over.

    A checkpoint later than step `last_recorded` of the journal is passed over too: continuing from
    it would end in a record with a hole.
    """
    passed: list[str] = []
    for folder in _by_step(output):
        problem = _problem(folder, identity)
        if problem is None and step_of(folder) > last_recorded:
            problem = f"the record of its steps is complete only up to step {last_recorded}"
        if problem is None:
            for sentence in passed:
                log.warning("%s; continuing from %s", sentence, folder.name)
            return folder
        passed.append(f"{folder}: {problem}")
    for sentence in passed:
        log.warning("%s; starting from the beginning", sentence)
    return None


def prune_checkpoints(output: Path, keep: int) -> None:
    """Delete all but the newest `keep` sealed checkpoints, and unsealed ones older than those."""
    folders = _by_step(output)
    sealed = [folder for folder in folders if (folder / SEAL).exists()]
    if len(sealed) <= keep:
        return
    oldest = step_of(sealed[keep - 1])
    for folder in folders:
        if step_of(folder) < oldest:
            # The seal goes first: a deletion cut short must not leave a folder that looks whole.
            (folder / SEAL).unlink(missing_ok=True)
            shutil.rmtree(folder)


def step_of(folder: Path) -> int:
    """Return the optimizer step a checkpoint folder is named after."""
    return int(folder.name.rpartition("-")[2])


@contextmanager
def guard_disk(folder: Path) -> Iterator[None]:
    """Delete a half-written `folder` when the disk is full, and say so; pass other errors on."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free / 2**20
        raise BackendError(
            f"{folder}: cannot be written, the disk or a quota is full ({free:.0f} MiB free); "
            "earlier checkpoints are intact; free some space and run the same command again"
        ) from error


def _by_step(output: Path) -> list[Path]:
    folders = [
        path
        for path in output.glob("checkpoint-*")
        if path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()
    ]
    return sorted(folders, key=step_of, reverse=True)


def _problem(folder: Path, identity: str) -> str | None:
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files, sealed_for = dict(seal["files"]), seal["identity"]
    except FileNotFoundError:
        return "was interrupted while it was written"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{SEAL} is damaged"
    if sealed_for != identity:
        return "belongs to another configuration or other data"
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{name} has {path.stat().st_size} bytes ({entry['bytes']} were written)"
        if hash_path(path) != entry["sha256"]:
            return f"{name} has changed since it was written"
    return None
