"""Requests from text that somebody else wrote: all of it is accepted, or every problem is named."""

from __future__ import annotations

import json
from collections.abc import Iterable

from trillium_sandbox.errors import RequestError
from trillium_sandbox.limits import Limits
from trillium_sandbox.verdicts import Request

_MOST_PROBLEMS = 20
_LONGEST_PROBLEM = 300


def read_request(text: bytes, limits: Limits) -> Request:
    """Return the request of one JSON object. Raises RequestError in one short sentence."""
    return accept_row(parse(text), limits)


def read_lines(
    lines: Iterable[bytes], name: str, limits: Limits, *, most: int | None = None
) -> list[Request]:
    """Return the requests of all lines, or raise one RequestError that names every bad line.

    With `most`, reading ends beyond so many requests, and beyond as many problems as are named.
    """
    accepted: list[Request] = []
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if _is_enough(accepted, problems, most):
            break
        try:
            accepted.append(accept_row(parse(line), limits))
        except RequestError as error:
            problems.append(f"{name}:{number}: {error}; correct the line or drop it")
    return _all_or_none(accepted, problems, name)


def read_rows(
    rows: list[object], name: str, limits: Limits, *, most: int | None = None
) -> list[Request]:
    """Return the requests of a parsed list, or raise one RequestError that names every bad one."""
    accepted: list[Request] = []
    problems: list[str] = []
    for number, row in enumerate(rows):
        if _is_enough(accepted, problems, most):
            break
        try:
            accepted.append(accept_row(row, limits))
        except RequestError as error:
            problems.append(f"{name}[{number}]: {error}; correct it or drop it")
    return _all_or_none(accepted, problems, name)


def accept_row(row: object, limits: Limits) -> Request:
    """Return the request of parsed JSON. Raises RequestError in one short sentence."""
    try:
        return Request.from_json(row, limits=limits)
    except RequestError as error:
        # A field may be named anything; the sentence must fit one line of a terminal and of JSON.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
        if len(text) > _LONGEST_PROBLEM:
            text = f"{text[: _LONGEST_PROBLEM // 2]} ... {text[-_LONGEST_PROBLEM // 2 :]}"
        raise RequestError(text) from None
    except RecursionError:
        raise RequestError("a field is nested too deeply") from None


def parse(text: bytes) -> object:
    """Return parsed JSON. Raises RequestError for anything else."""
    try:
        return json.loads(text.decode())
    except UnicodeDecodeError:
        raise RequestError("is no UTF-8 text") from None
    except ValueError as error:
        raise RequestError(f"is no JSON: {error}") from None
    except RecursionError:
        raise RequestError("is nested too deeply") from None


def _is_enough(accepted: list[Request], problems: list[str], most: int | None) -> bool:
    return most is not None and (len(accepted) > most or len(problems) > _MOST_PROBLEMS)


def _all_or_none(accepted: list[Request], problems: list[str], name: str) -> list[Request]:
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        problems[_MOST_PROBLEMS:] = [f"{name}: and {more} more bad lines"] if more > 0 else []
        raise RequestError("\n".join(problems))
    if not accepted:
        raise RequestError(f"{name}: holds no request (needs a JSON object per line); add one")
    return accepted
