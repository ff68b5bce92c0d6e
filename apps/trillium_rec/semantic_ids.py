"""Semantic ids: the codes of every item, versioned, and the life of items after the fit.

The version names what a model was trained on and never changes; the revision counts changes of the
catalogue since. A tuple of codes belongs to one item for ever: retired items keep theirs, so that
no model ever takes a new item for an old one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from trillium.errors import ConfigError, DataError
from trillium.files import hash_json, write_atomically
from trillium.strict_json import read_json

from trillium_rec.item_vectors import VectorSpace
from trillium_rec.residual_kmeans import Quantised

Ints = NDArray[np.int64]
State = Literal["active", "hidden", "retired"]
_STATES: tuple[State, ...] = ("active", "hidden", "retired")
# Codes count from 0 within their level; one of ten digits is no code.
_DIGITS = "[0-9]{1,9}"
# A level has an embedding per code up to its largest: more than items, only up to here.
_MOST_CODES = 65_536


@dataclass(frozen=True)
class SemanticIds:
    """Hold one row of codes per item, and who may be recommended.

    `states` holds 0 active, 1 hidden (may come back), 2 retired (never comes back). `codebooks` are
    absent when the codes came from a file; then no item can be added.
    """

    version: str
    revision: int
    items: tuple[str, ...]
    codes: Ints
    sizes: tuple[int, ...]
    states: Ints
    codebooks: tuple[NDArray[np.float32], ...] = ()

    @property
    def n_items(self) -> int:
        """Count the items, retired ones included."""
        return len(self.items)

    @property
    def n_levels(self) -> int:
        """Count the codes of an item."""
        return len(self.sizes)

    @property
    def is_active(self) -> NDArray[np.bool_]:
        """Return which items may be recommended."""
        return np.asarray(self.states == 0, np.bool_)

    def with_state(self, items: Sequence[str], state: State) -> "SemanticIds":
        """Return the next revision, in which these items are active, hidden or retired.

        Raises ConfigError for unknown items and for retired ones, which stay retired.
        """
        states = self.states.copy()
        for row in self.rows(items).tolist():
            if states[row] == 2 and state != "retired":
                raise ConfigError(
                    f"item {self.items[row]}: is retired and cannot become {state} (its codes are "
                    "never used again); add it again under another id"
                )
            states[row] = _STATES.index(state)
        return replace(self, revision=self.revision + 1, states=states)

    def rows(self, items: Sequence[str]) -> Ints:
        """Return the rows of items by id; raises ConfigError that names the unknown ones."""
        number = {item: row for row, item in enumerate(self.items)}
        unknown = [item for item in items if item not in number]
        if unknown:
            raise ConfigError(
                f"items {', '.join(unknown[:5])}: are not in the catalogue of version "
                f"{self.version} ({len(unknown)} unknown); add them first"
            )
        return np.array([number[item] for item in items], np.int64)

    def with_items(self, items: Sequence[str], vectors: NDArray[np.float32]) -> "SemanticIds":
        """Return the next revision with new items, each at the nearest codes that are free.

        Codes of old items do not change, so a model of this version understands the new ones.
        Raises ConfigError for ids that are taken, without codebooks, or when no codes are free.
        """
        if not self.codebooks:
            raise ConfigError(
                "ids: came from a file without codebooks, so no item can be added; fit ids"
            )
        clash = sorted(set(items) & set(self.items)) or _twice(items)
        if clash:
            raise ConfigError(f"item {clash[0]}: is in the catalogue already; choose another id")
        free = _Free(self)
        placed = [free.place(vector.astype(np.float64)) for vector in vectors]
        for item, codes in zip(items, placed, strict=True):
            if codes is None:
                raise ConfigError(
                    f"item {item}: all {np.prod(self.sizes)} tuples of codes are taken "
                    f"({self.n_items} items, retired ones included); fit new ids"
                )
        new = np.array(placed, np.int64).reshape(len(items), self.n_levels)
        return replace(
            self,
            revision=self.revision + 1,
            items=self.items + tuple(items),
            codes=np.concatenate([self.codes, new]),
            states=np.concatenate([self.states, np.zeros(len(items), np.int64)]),
        )


class _Free:
    """Find the nearest codes that no item has, a level at a time."""

    def __init__(self, ids: SemanticIds) -> None:
        self._codebooks = [codebook.astype(np.float64) for codebook in ids.codebooks]
        below = [int(np.prod(ids.sizes[level + 1 :])) for level in range(ids.n_levels)]
        self._room = below
        self._taken: Counter[tuple[int, ...]] = Counter(
            tuple(codes[: level + 1])
            for codes in ids.codes.tolist()
            for level in range(ids.n_levels)
        )

    def place(self, vector: NDArray[np.float64]) -> tuple[int, ...] | None:
        """Take and return the codes for one vector; None when none is free."""
        found = next(self._search(vector, ()), None)
        if found is not None:
            for level in range(len(found)):
                self._taken[found[: level + 1]] += 1
        return found

    def _search(
        self, residual: NDArray[np.float64], prefix: tuple[int, ...]
    ) -> Iterator[tuple[int, ...]]:
        level = len(prefix)
        if level == len(self._codebooks):
            yield prefix
            return
        codebook = self._codebooks[level]
        distances = np.square(codebook - residual).sum(axis=1)
        for code in np.argsort(distances, kind="stable").tolist():
            if self._taken[*prefix, code] < self._room[level]:
                yield from self._search(residual - codebook[code], (*prefix, code))


def new_ids(items: Sequence[str], quantised: Quantised) -> SemanticIds:
    """Return revision 0 of freshly fitted ids."""
    sizes = tuple(len(codebook) for codebook in quantised.codebooks)
    return _first_revision(items, quantised.codes, sizes, quantised.codebooks)


def read_index(path: Path, items: Sequence[str]) -> SemanticIds:
    """Read ids from the `.index.json` of LETTER and CollisionGenRec, for the items of a catalogue.

    Raises DataError when an item is missing, lengths differ, two items have the same codes, or a
    code counts neither items nor the entries of a codebook.
    """
    try:
        entries = read_json(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give an .index.json file") from None
    if not isinstance(entries, dict):
        raise DataError(f"{path}: holds {str(entries)[:40]} (needs an object of items); correct it")
    missing = [item for item in items if item not in entries]
    if missing:
        raise DataError(
            f"{path}: has no codes for {len(missing)} of {len(items)} items, such as {missing[0]}"
        )
    rows = [_codes(path, item, entries[item]) for item in items]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise DataError(f"{path}: items have {lengths} codes (all need the same number)")
    codes = np.array(rows, np.int64)
    _check_codes(path, items, codes)
    _, first, counts = np.unique(codes, axis=0, return_index=True, return_counts=True)
    if len(first) < len(items):
        worst = first[counts.argmax()]
        raise DataError(
            f"{path}: {len(items)} items have {len(first)} different ids; {counts.max()} items "
            f"share that of item {items[worst]} (every item needs its own); give a file without "
            "collisions, or fit ids"
        )
    return _first_revision(items, codes, tuple((codes.max(axis=0) + 1).tolist()), ())


def save_ids(ids: SemanticIds, space: VectorSpace | None, folder: Path) -> None:
    """Write ids, and the vector space that places new items, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {"codes": ids.codes, "states": ids.states}
    arrays |= {f"codebook_{level}": book for level, book in enumerate(ids.codebooks)}
    if space is not None:
        arrays |= {"vectors": space.vectors, "content_mean": space.content_mean}
        arrays |= {"content_axes": space.content_axes}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    write_atomically(folder / _ARRAYS, content)
    record = {
        "version": ids.version,
        "revision": ids.revision,
        "sizes": list(ids.sizes),
        "items": list(ids.items),
    }
    write_atomically(folder / _RECORD, json.dumps(record) + "\n")


def load_ids(folder: Path) -> SemanticIds:
    """Read ids that `save_ids` wrote; raises DataError when its two files are not whole."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        arrays = load_file(folder / _ARRAYS)
        books = [f"codebook_{level}" for level in range(len(record["sizes"]))]
        ids = SemanticIds(
            version=record["version"],
            revision=record["revision"],
            items=tuple(record["items"]),
            codes=arrays["codes"],
            sizes=tuple(record["sizes"]),
            states=arrays["states"],
            codebooks=tuple(arrays[name] for name in books if name in arrays),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{folder}: holds no semantic ids ({error}); fit them again") from None
    if len(ids.codes) != ids.n_items:
        raise DataError(
            f"{folder}: {ids.n_items} items and {len(ids.codes)} rows of codes; the folder was "
            "not written whole; fit the ids again"
        )
    return ids


def load_space(folder: Path) -> VectorSpace:
    """Read the vector space of fitted ids; raises DataError where there is none."""
    try:
        arrays = load_file(folder / _ARRAYS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: holds no item vectors ({error}); fit the ids again") from None
    if "vectors" not in arrays:
        raise DataError(f"{folder}: has no item vectors (its ids came from a file); fit ids")
    return VectorSpace(arrays["vectors"], arrays["content_mean"], arrays["content_axes"])


_RECORD, _ARRAYS = "ids.json", "ids.safetensors"


def _first_revision(
    items: Sequence[str],
    codes: Ints,
    sizes: tuple[int, ...],
    codebooks: tuple[NDArray[np.float32], ...],
) -> SemanticIds:
    version = hash_json([list(items), codes.tolist(), [book.tolist() for book in codebooks]])[:12]
    states = np.zeros(len(items), np.int64)
    return SemanticIds(version, 0, tuple(items), codes, sizes, states, codebooks)


def _codes(path: Path, item: str, tokens: object) -> list[int]:
    """Return the codes of one item; raises DataError for what is no list of them."""
    if not isinstance(tokens, list) or not tokens:
        raise DataError(
            f"{path}: item {item} holds {str(tokens)[:40]!r} (needs a list of codes such as "
            "<a_171>); correct it"
        )
    codes = []
    for token in tokens:
        digits = str(token).rpartition("_")[2].rstrip(">")
        if re.fullmatch(_DIGITS, digits) is None:
            raise DataError(f"{path}: item {item} has the code {token!r} (expected <a_171>)")
        codes.append(int(digits))
    return codes


def _check_codes(path: Path, items: Sequence[str], codes: Ints) -> None:
    """Refuse codes for which a level would need far more embeddings than it has items."""
    row, level = divmod(int(codes.argmax()), codes.shape[1])
    most = max(len(items), _MOST_CODES)
    if codes[row, level] >= most:
        raise DataError(
            f"{path}: item {items[row]} has the code {codes[row, level]} in place {level + 1} "
            f"(codes of {len(items)} items are below {most}); number those of a level from 0"
        )


def _twice(items: Sequence[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]
