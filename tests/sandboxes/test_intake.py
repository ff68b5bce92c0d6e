"""Any text is accepted or refused in clear sentences, whoever wrote it and wherever it came in."""

import contextlib
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trillium_sandbox import Limits, Request, RequestError
from trillium_sandbox.http_line import write
from trillium_sandbox.intake import accept_row, parse, read_lines, read_request, read_rows

pytestmark = pytest.mark.property

LIMITS = Limits()
NAMES = [
    *("id", "mode", "source", "source_base64", "tests", "entry_point", "stdin"),
    *("expected_stdout", "limits", "count_opcodes", "run"),
]
LIMIT_NAMES = ["wall_s", "cpu_s", "memory_bytes", "disk_bytes", "n_processes", "output_bytes"]
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=12)  # half surrogate pairs included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS | SCALARS,
        "mode": st.sampled_from(["script", "function", "stdio"]) | VALUES,
        "source": TEXTS | VALUES,
        "source_base64": st.sampled_from(["", "cHJpbnQoMSk=", "%"]) | VALUES,
        "tests": st.lists(TEXTS, max_size=3) | VALUES,
        "entry_point": st.sampled_from(["f", "for", "a b", ""]) | VALUES,
        "stdin": TEXTS | VALUES,
        "expected_stdout": TEXTS | VALUES,
        "limits": st.dictionaries(st.sampled_from(LIMIT_NAMES), SCALARS, max_size=6) | VALUES,
        "count_opcodes": st.booleans() | VALUES,
        "run": st.integers() | VALUES,
    },
)
JSON = ROWS | VALUES | st.dictionaries(st.sampled_from(NAMES) | TEXTS, VALUES, max_size=6)


def accept_or_refuse(read, *arguments):
    """Return what was accepted, None for what was refused in a sentence; let the rest be raised."""
    try:
        return read(*arguments)
    except RequestError as error:
        sentence = str(error).encode()
        return None if 0 < len(sentence) < 10_000 and b"\r" not in sentence else error


@given(JSON)
@example({"id": "a", "mode": "script", "source": "", "limits": {"\ud800": 1}})
@example({"id": "a", "mode": "script", "source": "", "limits": {"a\nb": 1}})
@example({"id": "a", "mode": "x" * 100_000, "source": ""})
def test_any_json_is_a_request_or_refused(row):
    request = accept_or_refuse(accept_row, row, LIMITS)
    if request is not None:
        # What was accepted means the same once it went over the wire.
        again = read_request(write(7, request), LIMITS)
        assert {**vars(again), "id": ""} == {**vars(request), "id": ""}


@given(st.binary(max_size=60) | JSON.map(json.dumps).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"limits": {"memory_bytes": 1' + b"0" * 5000 + b"}}")
@example(b'{"limits": {"memory_bytes": 1' + b"0" * 4000 + b"}}")
@example(b'{"id": NaN}')
@example("{}".encode("utf-16"))
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_are_a_request_or_refused(text):
    accept_or_refuse(parse, text)
    request = accept_or_refuse(read_request, text, LIMITS)
    assert request is None or isinstance(request, Request)


@given(st.lists(st.binary(max_size=30) | ROWS.map(json.dumps).map(str.encode), max_size=5))
@settings(max_examples=50)
def test_lines_are_all_accepted_or_each_bad_one_is_named(lines):
    lines = [line.replace(b"\n", b" ") for line in lines]
    try:
        accepted = read_lines(lines, "requests.jsonl", LIMITS)
    except RequestError as error:
        named = [text.split(" ")[0] for text in str(error).split("\n")]
        bad = [
            f"requests.jsonl:{number}:"
            for number, line in enumerate(lines, 1)
            if line.strip() and accept_or_refuse(read_request, line, LIMITS) is None
        ]
        assert named == bad or named == ["requests.jsonl:"]
    else:
        assert len(accepted) == sum(1 for line in lines if line.strip())


def test_reading_ends_where_the_answer_is_certain():
    """Beyond so many requests, or so many problems, no line is looked at any more."""
    good = json.dumps({"id": "a", "mode": "script", "source": "pass"}).encode()
    for line, n_read in ((good, 8), (b"1", 22)):
        lines = iter([line] * 100)
        with contextlib.suppress(RequestError):
            assert len(read_lines(lines, "body", LIMITS, most=6)) == 7
        assert len(list(lines)) == 100 - n_read


@given(st.lists(JSON, max_size=4))
@settings(max_examples=50)
def test_rows_are_all_accepted_or_refused(rows):
    accepted = accept_or_refuse(read_rows, rows, "body", LIMITS)
    assert accepted is None or len(accepted) == len(rows) > 0


def test_a_value_that_is_long_is_cut_in_the_middle():
    with pytest.raises(RequestError) as refused:
        accept_row({"id": "a", "mode": "x" * 100_000}, LIMITS)
    assert len(str(refused.value)) < 320
    assert str(refused.value).startswith("mode = 'xxx")
    assert str(refused.value).endswith("(script, function or stdio)")


def test_the_smallest_and_the_largest_limits_that_are_accepted_do_no_harm(backend):
    for numbers in (
        [5e-324, 5e-324, 1 << 20, 1, 1, 1],
        [86400, 86400, *[(1 << 60) - 1] * 2, 4096, 1 << 24],
    ):
        limits = Limits.from_json(dict(zip(LIMIT_NAMES, numbers, strict=True)), LIMITS)
        (reply,) = backend.run([Request("a", "script", b"pass", limits=limits)])
        assert reply.status == ("timeout" if numbers[0] < 1 else "ok")
    with pytest.raises(RequestError, match=r"limits.n_processes = 4097 \(at most 4096\)"):
        Limits(n_processes=4097)


@pytest.mark.security
@pytest.mark.parametrize(
    ("text", "n_tests"), [("", 5000), ("#" + "x" * (1 << 20), 1), ("#" + "\U0001f600" * 99999, 1)]
)
def test_the_least_memory_that_is_accepted_costs_no_worker(backend, text, n_tests):
    source = b"def f(x): return x + 1"
    tests = ("assert f(1) == 2" + text,) * n_tests
    with pytest.raises(RequestError) as refused:
        Request("a", "function", source, tests, "f", limits=Limits(memory_bytes=1 << 20))
    least = Limits(memory_bytes=int(re.findall(r"at least (\d+)", str(refused.value))[0]))
    before = backend.n_restarts
    (reply,) = backend.run([Request("a", "function", source, tests, "f", limits=least)])
    assert reply.status in ("pass", "memory")
    assert backend.n_restarts == before
