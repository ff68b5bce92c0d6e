"""JSON that people wrote: what `json.loads` passes over, or dies of, is refused with a reason."""

import json

from trillium.errors import DataError

_MOST_SHOWN = 5


def read_json(text: str) -> object:
    """Return what a text of JSON holds.

    Raises json.JSONDecodeError for a text that is no JSON, and DataError, which the caller tells
    the place, for keys that stand twice in an object, for half of a surrogate pair (no file can
    hold it), for numbers without end and for lists within lists without end.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                twice.append(key)
            found[key] = value
        return found

    try:
        entries: object = json.loads(text, object_pairs_hook=unique)
        # Half of a pair can only come from an escape; without one nothing need be looked through.
        if "\\u" in text:
            json.dumps([entries, twice], ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise DataError("nests its lists too deeply; flatten it") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(f"holds {half}, one half of a surrogate pair; correct it") from None
    except ValueError as error:
        raise DataError(f"holds a number that cannot be read ({error}); correct it") from None
    if twice:
        shown = ", ".join(twice[:_MOST_SHOWN])
        raise DataError(f"names {shown} twice; give every id one entry")
    return entries
