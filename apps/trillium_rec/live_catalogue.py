"""The catalogue of a run after training: items come, hide and go, without a new model.

Every change is a revision, a folder of its own that is never written again; `current.json` names
the one in force. A reader sees the old revision or the new one, never a half. Codes, and with them
the version a model was trained on, stay what they were.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from trillium.errors import ConfigError, DataError
from trillium.files import (
    FolderLock,
    explain_failed_write,
    hash_path,
    remove,
    sync_folder,
    write_atomically,
)

from trillium_rec.item_vectors import Vectors, VectorSpace, encode_texts
from trillium_rec.new_items import NewItem
from trillium_rec.semantic_ids import SemanticIds, State, load_ids, load_space, save_ids

_FOLDER, _CURRENT, _TITLES = "catalogue", "current.json", "titles.json"


@dataclass(frozen=True)
class LiveCatalogue:
    """Hold the ids of all items, their titles, and the vectors that new items are placed among.

    `space` is absent when the ids came from a file; then no item can be added.
    """

    ids: SemanticIds
    titles: tuple[str, ...]
    space: VectorSpace | None

    def with_items(self, items: Sequence[NewItem]) -> "LiveCatalogue":
        """Return the next revision with new items, placed by their content.

        Raises ConfigError when they cannot be placed, clash with known ids or find no free codes.
        """
        if self.space is None:
            raise ConfigError(
                "catalogue: the ids of this run came from a file, so no item can be added; fit ids"
            )
        vectors = self.space.place(_content(items, len(self.space.content_mean)))
        return LiveCatalogue(
            self.ids.with_items([item.id for item in items], vectors),
            self.titles + tuple(item.title for item in items),
            replace(self.space, vectors=np.concatenate([self.space.vectors, vectors])),
        )

    def with_state(self, items: Sequence[str], state: State) -> "LiveCatalogue":
        """Return the next revision, in which these items are active, hidden or retired.

        Raises ConfigError for unknown items, retired ones, and when no active item would be left.
        """
        ids = self.ids.with_state(items, state)
        if not ids.is_active.any():
            raise ConfigError(
                f"catalogue: with {len(items)} more {state}, none of {ids.n_items} items would be "
                "active (one at least must be); keep some"
            )
        return replace(self, ids=ids)


def open_catalogue(run: Path, titles: Sequence[str]) -> LiveCatalogue:
    """Read the revision in force; `titles` are those of the items that the run was trained on.

    Raises DataError when the run holds no ids, or a catalogue of another version.
    """
    trained = load_ids(run / "ids")
    revision = current_revision(run)
    if revision == 0:
        return LiveCatalogue(trained, tuple(titles), _space(run / "ids", trained))
    folder = run / _FOLDER / _name(revision)
    ids = load_ids(folder)
    if ids.version != trained.version:
        raise DataError(
            f"{folder}: is of version {ids.version}, and the run was trained on version "
            f"{trained.version} since; move {run / _FOLDER} away and make the changes again"
        )
    return LiveCatalogue(ids, _titles(folder / _TITLES, ids.n_items), _space(folder, ids))


def current_revision(run: Path) -> int:
    """Return the number of the revision in force; 0 is what the run was trained on."""
    path = run / _FOLDER / _CURRENT
    if not path.exists():
        return 0
    try:
        return int(json.loads(path.read_text())["revision"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: names no revision ({error}); write {{'revision': N}} with the number of a "
            "folder beside it"
        ) from None


def current_mark(run: Path) -> str:
    """Return what tells the revision in force from every other, of the same number too.

    It is empty for what the run was trained on.
    """
    path = run / _FOLDER / _CURRENT
    return path.read_text() if path.exists() else ""


def publish(run: Path, live: LiveCatalogue) -> None:
    """Write a revision and put it in force, in one step; hold `lock_catalogue` from its reading.

    Raises BackendError on a full disk, and leaves the revision in force.
    """
    folder = run / _FOLDER / _name(live.ids.revision)
    partial = folder.with_name(f".{folder.name}.part")
    for path in (partial, folder):  # left by a process that was killed before it was done
        remove(path)
    with explain_failed_write(folder):
        save_ids(live.ids, live.space, partial)
        write_atomically(partial / _TITLES, json.dumps(list(live.titles)) + "\n")
        ids = live.ids
        current = {"revision": ids.revision, "version": ids.version, "content": hash_path(partial)}
        partial.rename(folder)
        sync_folder(folder.parent)
    write_atomically(run / _FOLDER / _CURRENT, json.dumps(current) + "\n")


@contextmanager
def lock_catalogue(run: Path) -> Iterator[None]:
    """Keep other processes from changing the catalogue; raises ConfigError when one does now."""
    if not (run / "ids").is_dir():
        raise ConfigError(f"{run}: holds no semantic ids; give the folder of a trained run")
    with explain_failed_write(run / _FOLDER):
        lock = FolderLock(run / _FOLDER)
    try:
        yield
    finally:
        lock.release()


def _content(items: Sequence[NewItem], width: int) -> Vectors:
    """Return the content of new items in the space of the old ones' content."""
    if width == 0:
        raise ConfigError(
            "catalogue: the ids of this run were fitted without content, so a new item has no "
            "place among them; fit ids with item texts or vectors"
        )
    with_text = [item for item in items if item.vector is None]
    encoded = iter(encode_texts([item.text for item in with_text]) if with_text else ())
    rows = [next(encoded) if item.vector is None else item.vector for item in items]
    for item, row in zip(items, rows, strict=True):
        if len(row) != width:
            raise ConfigError(
                f"item {item.id}: has content of {len(row)} numbers, those of this run have "
                f"{width}; give a vector of that length"
                + ("" if item.vector is not None else " (its texts were not what was encoded)")
            )
        if not np.isfinite(row).all():
            raise ConfigError(
                f"item {item.id}: its content is not finite, and would make every score NaN; give "
                "a vector of finite numbers"
            )
    return np.asarray(rows, np.float32).reshape(len(items), width)


def _titles(path: Path, n_items: int) -> tuple[str, ...]:
    try:
        names = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: holds no titles ({error}); make the changes again") from None
    if not isinstance(names, list) or len(names) != n_items:
        raise DataError(f"{path}: holds no list of {n_items} titles; make the changes again")
    return tuple(names)


def _space(folder: Path, ids: SemanticIds) -> VectorSpace | None:
    return load_space(folder) if ids.codebooks else None


def _name(revision: int) -> str:
    return f"revision-{revision}"
