"""Read logs with one user per entry: S3-Rec text, and JSON as LETTER and CollisionGenRec have it.

S3-Rec: a line per user, the user's id and then item ids in time order. JSON: an object from user
to a list of item ids. Item texts come from a JSON object from item id to a text or to named fields.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from trillium.errors import DataError
from trillium.strict_json import read_json

from trillium_rec.dataset import Catalogue, RawLog, show_problems

_TITLES = ("title", "name")


def read_sequences(path: Path) -> RawLog:
    """Read a `.json` file of sequences, or a text file in the form of S3-Rec.

    Raises DataError with the lines of an S3-Rec file that hold no item or repeat a user, or the
    users of a JSON file whose entry is no list of ids.
    """
    return _read_json(path) if path.suffix == ".json" else _read_lines(path)


def read_item_texts(path: Path) -> Catalogue:
    """Read the titles and texts of items; fields are joined in the order of the file.

    Raises DataError for entries that are neither a text nor named texts, and for ids named twice.
    """
    titles, texts, problems = [], [], []
    entries = _load_object(path)
    for id, entry in entries.items():
        given = entry if isinstance(entry, dict) else {"title": entry}
        fields = {key: value.strip() for key, value in given.items() if isinstance(value, str)}
        if len(fields) < len(given):
            problems.append(f"{path}: item {id} holds {entry!r} (needs a text or named texts)")
            continue
        named = [fields[key] for key in _TITLES if fields.get(key)]
        titles.append(named[0] if named else id)
        texts.append(". ".join(value for value in fields.values() if value))
    if problems:
        raise DataError(show_problems(problems))
    return Catalogue(tuple(entries), tuple(titles), tuple(texts))


def _read_lines(path: Path) -> RawLog:
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    first: dict[str, int] = {}
    problems = []
    for number, text in enumerate(_read_text(path).split("\n"), 1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) == 1:
            problems.append(f"{path}:{number}: user {fields[0]} has no item; drop the line")
        if first.setdefault(fields[0], number) != number:
            problems.append(
                f"{path}:{number}: user {fields[0]} has a line already (line {first[fields[0]]}); "
                "join the two"
            )
        _extend(users, items, lines, fields[0], fields[1:], number)
    if problems:
        raise DataError(show_problems(problems))
    return RawLog(str(path), users, items, lines)


def _read_json(path: Path) -> RawLog:
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    problems = []
    for number, (user, sequence) in enumerate(_load_object(path).items(), 1):
        given = sequence if isinstance(sequence, list) else []
        names = [str(item) for item in given if isinstance(item, int | str)]
        if not names or len(names) < len(given):
            problems.append(
                f"{path}: user {user} holds {str(sequence)[:60]!r} (needs a list of item ids)"
            )
            continue
        _extend(users, items, lines, user, names, number)
    if problems:
        raise DataError(show_problems(problems))
    return RawLog(str(path), users, items, lines)


def _extend(
    users: list[str],
    items: list[str],
    lines: list[int],
    user: str,
    sequence: Sequence[str],
    number: int,
) -> None:
    users += [user] * len(sequence)
    items += sequence
    lines += [number] * len(sequence)


def _load_object(path: Path) -> dict[str, object]:
    text = _read_text(path)
    try:
        entries = read_json(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is not JSON ({error.msg}); correct it") from None
    except DataError as error:
        raise DataError(f"{path}: {error}; correct it") from None
    if not isinstance(entries, dict) or not entries:
        raise DataError(f"{path}: holds no entries (needs a JSON object of ids); give another file")
    return entries


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give another path") from None
