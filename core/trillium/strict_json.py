"""JSON that people wrote: what `json.loads` passes over, or dies of, is refused with a reason."""

import json

from trillium.errors import DataError


def read_json(text: str) -> object:
    """Return what a text of JSON holds.

    Raises json.JSONDecodeError for a text that is no JSON, and DataError with the reason alone,
    which the caller gives place and remedy, for a field that stands twice in an object, for half of
    a surrogate pair (no file can hold it), for numbers without end and for lists within lists
    without end.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice.extend(name for name in found if names.count(name) > 1)
        return found

    try:
        entries: object = json.loads(text, object_pairs_hook=unique)
        # Half of a pair can only come from an escape; without one nothing need be looked through.
        if "\\u" in text:
            json.dumps([entries, twice], ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise DataError("is nested too deeply to be read") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(f"holds {half}, half of a character") from None
    except ValueError:
        raise DataError("holds a number of thousands of digits") from None
    if twice:
        raise DataError(f"has the field {twice[0]!r} twice")
    return entries
