"""Read items that are to be added to a catalogue: JSON lines, checked as a whole."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from trillium.errors import DataError
from trillium.strict_json import read_json

from trillium_rec.dataset import show_problems
from trillium_rec.item_vectors import Vectors

_KEYS = {"id", "title", "text", "vector"}
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class NewItem:
    """Hold one item: what it is called, and its content as a text or as a vector."""

    id: str
    title: str
    text: str
    vector: Vectors | None = None


def read_new_items(path: Path) -> list[NewItem]:
    """Read a line per item: {"id": ..., "title": ..., "text": ...} or "vector" instead of "text".

    Raises DataError with every line that is no such item or repeats an id.
    """
    try:
        # Not splitlines: a text may hold U+2028 and its like, which end no line of JSON.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a file of JSON lines") from None
    items: dict[str, NewItem] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        found = _read_item(line)
        if isinstance(found, str):
            problems.append(f"{path}:{number}: {found}")
        elif found.id in items:
            problems.append(f"{path}:{number}: item {found.id} stands there twice; drop one line")
        else:
            items[found.id] = found
    if problems:
        raise DataError(show_problems(problems))
    if not items:
        raise DataError(f"{path}: holds no item; write a JSON object with id and text per line")
    return list(items.values())


def _read_item(line: str) -> NewItem | str:
    """Return an item, or what is wrong with the line."""
    try:
        entry = read_json(line)
    except json.JSONDecodeError as error:
        return f"is not JSON ({error}); correct it"
    except DataError as error:
        return f"{error}; correct it"
    if not isinstance(entry, dict):
        return f"holds {line[:40]} (needs an object with id and text); correct it"
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        return f"has the key {unknown[0]!r} (known are id, title, text, vector); drop it"
    texts = {key: entry.get(key, "") for key in ("id", "title", "text")}
    for key, text in texts.items():
        if not isinstance(text, str):
            return f"{key} is {text!r} (needs a text); put it in quotes"
    id = texts["id"]
    if not id or id != id.strip():
        return f"id is {id!r} (needs a text without white space around it); name the item"
    if ("vector" in entry) == bool(texts["text"].strip()):
        return f"item {id} needs a text or a vector, one of the two; give one"
    vector = _read_vector(entry["vector"]) if "vector" in entry else None
    if isinstance(vector, str):
        return f"item {id}: {vector}"
    return NewItem(id, texts["title"] or id, texts["text"], vector)


def _read_vector(entry: object) -> Vectors | str:
    is_list = isinstance(entry, list) and len(entry) > 0
    numbers = entry if isinstance(entry, list) else []
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return f"vector holds {number!r} (needs numbers); correct it"
        # Also false for NaN; an integer is compared exactly, however long it is.
        if not -_LARGEST <= number <= _LARGEST:
            shown = str(number)[:40]
            return f"vector holds {shown} (needs finite numbers); keep it within {_LARGEST:.1e}"
    if not is_list:
        return f"vector is {str(entry)[:40]!r} (needs a list of numbers); correct it"
    return np.array(numbers, np.float32)
