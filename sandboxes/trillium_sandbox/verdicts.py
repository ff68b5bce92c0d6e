"""Requests and replies: what is asked of the sandbox, and what it answers, in Python and JSON."""

from __future__ import annotations

import base64
import binascii
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from trillium_sandbox.errors import RequestError
from trillium_sandbox.limits import MIN_MEMORY_BYTES, Limits

Mode = Literal["script", "function", "stdio"]
Status = Literal[
    "ok", "pass", "fail", "error", "timeout", "memory", "output_limit", "killed", "sandbox_error"
]
TestStatus = Literal["pass", "fail", "error", "timeout"]
Integrity = Literal["split", "token"]

MAX_TESTS = 5_000
MAX_REQUEST_BYTES = 16 << 20

_MEMORY_PER_CHARACTER = 12
_MEMORY_PER_TEST = 512
"""What a process takes to read its text, at most: four bytes as sent, four as held, and slack.
Without it the process would end before it is the program's, and the sandbox be to blame."""

_FIELDS = (
    "id",
    "mode",
    "source",
    "source_base64",
    "tests",
    "entry_point",
    "stdin",
    "expected_stdout",
    "limits",
    "count_opcodes",
    "run",
)


@dataclass(frozen=True)
class Request:
    """One program to run.

    script: run `source`; the status is `ok` when it exits with 0, which proves nothing.
    stdio: run it on `stdin`; `pass` when it exits with 0 and prints `expected_stdout`.
    function: load it, then run every test in the judge's process, where `entry_point` (or the
    first name of the candidate that a test uses) calls over to the candidate's.
    `count_opcodes` fills the reply's `opcode_count`; the program then takes 20 to 60 times as long,
    within the same limits. `run` tells repetitions apart that a cache shall not answer with one
    and the same result.
    """

    id: str
    mode: Mode
    source: bytes
    tests: tuple[str, ...] = ()
    entry_point: str | None = None
    stdin: bytes = b""
    expected_stdout: bytes | None = None
    limits: Limits = field(default_factory=Limits)
    count_opcodes: bool = False
    run: int = 0

    def __post_init__(self) -> None:
        """Refuse a combination that could only be a mistake."""
        if self.mode not in get_args(Mode):
            raise RequestError(f"mode = {self.mode!r} (script, function or stdio)")
        if self.mode == "function" and not self.tests:
            raise RequestError("tests is empty (function mode needs at least one test)")
        if self.mode != "function" and (self.tests or self.entry_point is not None):
            raise RequestError(f"mode {self.mode} takes no tests and no entry_point; use function")
        if self.mode == "stdio" and self.expected_stdout is None:
            raise RequestError("expected_stdout is missing (mode stdio compares with it)")
        if self.mode != "stdio" and self.expected_stdout is not None:
            raise RequestError(f"mode {self.mode} takes no expected_stdout; use stdio")
        if self.entry_point is not None and not self.entry_point.isidentifier():
            raise RequestError(f"entry_point = {self.entry_point!r} (a Python name)")
        if type(self.count_opcodes) is not bool:
            raise RequestError(f"count_opcodes = {self.count_opcodes!r} (true or false)")
        if type(self.run) is not int or self.run < 0:
            raise RequestError(f"run = {self.run!r} (a whole number, 0 or above)")
        if len(self.tests) > MAX_TESTS:
            raise RequestError(f"{len(self.tests)} tests (at most {MAX_TESTS}); split the request")
        if self.entry_point is not None:  # as Python reads it in a source
            name = unicodedata.normalize("NFKC", self.entry_point)
            object.__setattr__(self, "entry_point", name)
        self._check_size()

    @classmethod
    def from_json(cls, row: object, *, limits: Limits | None = None) -> Request:
        """Read a request from parsed JSON; absent limits come from `limits`.

        Raises RequestError, whose message names the field.
        """
        if not isinstance(row, Mapping):
            raise RequestError("not a JSON object")
        for name in row:
            if name not in _FIELDS:
                raise RequestError(f"unknown field {name!r} (one of {', '.join(_FIELDS)})")
        expected = _optional_text(row, "expected_stdout")
        return cls(
            id=_identifier(row),
            mode=_mode(row),
            source=_source(row),
            tests=_tests(row),
            entry_point=_optional_text(row, "entry_point"),
            stdin=_encode(_optional_text(row, "stdin") or "", "stdin"),
            expected_stdout=None if expected is None else _encode(expected, "expected_stdout"),
            limits=_limits(row, limits or Limits()),
            count_opcodes=row.get("count_opcodes", False),
            run=row.get("run", 0),
        )

    def _check_size(self) -> None:
        n_characters = len(self.source) + len(self.entry_point or "") + sum(map(len, self.tests))
        size = n_characters + len(self.stdin)
        if size > MAX_REQUEST_BYTES:
            raise RequestError(f"{size} bytes of text (at most {MAX_REQUEST_BYTES})")
        needed = (
            MIN_MEMORY_BYTES // 2
            + _MEMORY_PER_CHARACTER * n_characters
            + _MEMORY_PER_TEST * len(self.tests)
        )
        if self.limits.memory_bytes < needed:
            raise RequestError(
                f"limits.memory_bytes = {self.limits.memory_bytes} (at least {needed}, to read "
                f"{n_characters} characters of program and {len(self.tests)} tests); raise it"
            )


@dataclass(frozen=True)
class Reply:
    """What happened to one request.

    `wall_s` and `cpu_s` are measured outside the program; `peak_memory_bytes` is its peak resident
    memory less that of an empty program. `isolation` is the level that held (levels.py).
    `integrity` says what the verdict rests on. `split`: on plain data alone, compared in the
    judge's process; it is what program and test would give together, and the program could not have
    written it. `token`: also on something the program's process said of itself (an exit code,
    another of its names than the entry point, an object of its own that is compared, asked for an
    attribute or printed), or on something that two processes cannot share (captured output, an
    object that a copy would not stand for). `opcode_count` is None where it was not asked for, and
    where the program's process ended without saying; a program can falsify it.
    """

    id: str
    status: Status
    tests: tuple[TestStatus, ...] = ()
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    exit_code: int | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    opcode_count: int | None = None
    limit_hit: str | None = None
    isolation: int = 0
    integrity: Integrity = "token"

    @property
    def sandbox_failure(self) -> bool:
        """Return whether the sandbox failed: such a reply says nothing about the program."""
        return self.status == "sandbox_error"

    def to_json(self) -> dict[str, object]:
        """Return a dictionary ready for json.dumps; undecodable output bytes become U+FFFD."""
        return {
            "id": self.id,
            "status": self.status,
            "tests": list(self.tests),
            "stdout": self.stdout.decode("utf-8", "replace"),
            "stderr": self.stderr.decode("utf-8", "replace"),
            "truncated": self.truncated,
            "exit_code": self.exit_code,
            "wall_s": round(self.wall_s, 6),
            "cpu_s": round(self.cpu_s, 6),
            "peak_memory_bytes": self.peak_memory_bytes,
            "opcode_count": self.opcode_count,
            "limit_hit": self.limit_hit,
            "isolation": self.isolation,
            "integrity": self.integrity,
        }


def _identifier(row: Mapping[str, object]) -> str:
    identifier = row.get("id")
    if isinstance(identifier, str) and identifier:
        return identifier
    if type(identifier) is int:
        return str(identifier)
    raise RequestError(f"id = {identifier!r} (a non-empty text)")


def _mode(row: Mapping[str, object]) -> Mode:
    mode = row.get("mode")
    if mode == "script" or mode == "function" or mode == "stdio":
        return mode
    raise RequestError(f"mode = {mode!r} (script, function or stdio)")


def _source(row: Mapping[str, object]) -> bytes:
    if ("source" in row) == ("source_base64" in row):
        raise RequestError("exactly one of source and source_base64 is needed")
    if "source" in row:
        source = row["source"]
        if not isinstance(source, str):
            raise RequestError(f"source is {type(source).__name__} (text)")
        return _encode(source, "source")
    coded = row["source_base64"]
    if not isinstance(coded, str):
        raise RequestError(f"source_base64 is {type(coded).__name__} (text)")
    try:
        return base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"source_base64 is not base64: {error}") from error


def _tests(row: Mapping[str, object]) -> tuple[str, ...]:
    tests = row.get("tests")
    if tests is None:
        return ()
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise RequestError("tests is not a list of texts")
    return tuple(tests)


def _limits(row: Mapping[str, object], defaults: Limits) -> Limits:
    values = row.get("limits")
    return defaults if values is None else Limits.from_json(values, defaults)


def _optional_text(row: Mapping[str, object], name: str) -> str | None:
    text = row.get(name)
    if text is None or isinstance(text, str):
        return text
    raise RequestError(f"{name} is {type(text).__name__} (text)")


def _encode(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{name} holds half a surrogate pair; use source_base64") from error
