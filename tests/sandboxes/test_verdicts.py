import json
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_sandbox import Limits, Reply, Request, RequestError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["id", "mode", "source", "source_base64", "tests", "entry_point", "stdin", "limits", "run"]
)
ROW = {"id": "a", "mode": "script", "source": "print(1)"}


@pytest.mark.property
@given(st.dictionaries(FIELDS, JSON) | JSON)
def test_any_json_is_a_request_or_one_clear_error(row):
    with suppress(RequestError):
        assert Request.from_json(row).id


@pytest.mark.property
@given(st.dictionaries(FIELDS, JSON))
def test_a_valid_row_with_changed_fields_is_a_request_or_one_clear_error(changes):
    with suppress(RequestError):
        assert Request.from_json(ROW | changes).id


def test_absent_limits_come_from_the_defaults_given():
    request = Request.from_json(ROW | {"limits": {"wall_s": 2}}, limits=Limits(cpu_s=3))
    assert (request.limits.wall_s, request.limits.cpu_s) == (2.0, 3.0)


@pytest.mark.parametrize("row", [ROW, ROW | {"limits": None}, ROW | {"limits": {}}])
def test_limits_that_are_not_given_are_the_defaults(row):
    assert Request.from_json(row, limits=Limits(cpu_s=3)).limits == Limits(cpu_s=3)


def test_any_bytes_fit_into_source_base64():
    row = {"id": "a", "mode": "script", "source_base64": "/wBh"}
    assert Request.from_json(row).source == b"\xff\x00a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "scrip"}, "mode = 'scrip' (script, function or stdio)"),
        ({"id": ""}, "id = '' (a non-empty text)"),
        ({"source_base64": "aa=="}, "exactly one of source and source_base64 is needed"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"tests": "assert f()"}, "tests is not a list of texts"),
        ({"mode": "function"}, "tests is empty (function mode needs at least one test)"),
        ({"tests": ["assert f()"]}, "mode script takes no tests and no entry_point"),
        ({"mode": "stdio"}, "expected_stdout is missing"),
        ({"expected_stdout": "1"}, "mode script takes no expected_stdout"),
        ({"limits": {"wall": 1}}, "limits.wall: unknown limit (one of wall_s"),
        ({"limits": {"memory_bytes": 0}}, "limits.memory_bytes = 0 (a positive whole number)"),
        ({"limits": {"memory_bytes": 1048575}}, "memory_bytes = 1048575 (at least 1048576)"),
        ({"limits": {"wall_s": float("nan")}}, "limits.wall_s = nan"),
        ({"limits": {"output_bytes": 1 << 40}}, "limits.output_bytes = 1099511627776 (at most"),
        ({"limits": [1]}, "limits = [1] (an object"),
        ({"limits": []}, "limits = [] (an object"),
        ({"limits": ""}, "limits = '' (an object"),
        ({"limits": 0}, "limits = 0 (an object"),
        ({"limits": False}, "limits = False (an object"),
        ({"count_opcodes": 1}, "count_opcodes = 1 (true or false)"),
        ({"count_opcodes": None}, "count_opcodes = None (true or false)"),
        ({"run": -1}, "run = -1 (a whole number, 0 or above)"),
        ({"run": True}, "run = True (a whole number, 0 or above)"),
        ({"run": 1.0}, "run = 1.0 (a whole number, 0 or above)"),
        ({"source": "\ud800"}, "source holds half a surrogate pair; use source_base64"),
    ],
)
def test_a_bad_field_is_named(changes, message):
    with pytest.raises(RequestError) as error:
        Request.from_json(ROW | changes)
    assert message in str(error.value)


def test_counting_is_off_unless_it_is_asked_for():
    assert not Request.from_json(ROW).count_opcodes
    assert Request.from_json(ROW | {"count_opcodes": True}).count_opcodes


def test_a_request_is_its_first_run_unless_it_says_otherwise():
    assert Request.from_json(ROW).run == 0
    assert Request.from_json(ROW | {"run": 3}).run == 3


def test_a_bad_entry_point_is_named():
    with pytest.raises(RequestError, match="entry_point = 'a b'"):
        Request("a", "function", b"", ("assert 1",), "a b")


def test_too_many_tests_are_refused():
    with pytest.raises(RequestError, match="5001 tests"):
        Request("a", "function", b"", ("assert 1",) * 5001)


def test_a_text_that_the_memory_cannot_hold_is_refused():
    tests = ("assert f()" + "x" * 990,) * 1000
    needed = (1 << 19) + 12 * 1_000_000 + 512 * 1000
    sentence = (
        f"limits.memory_bytes = {needed - 1} (at least {needed}, "
        "to read 1000000 characters of program and 1000 tests); raise it"
    )
    with pytest.raises(RequestError, match=re.escape(sentence)):
        Request("a", "function", b"", tests, limits=Limits(memory_bytes=needed - 1))
    assert Request("a", "function", b"", tests, limits=Limits(memory_bytes=needed)).tests == tests


def test_the_default_memory_holds_the_largest_text():
    assert Request("a", "script", b"#" * (16 << 20)).limits == Limits()


def test_a_reply_is_json_whatever_the_program_printed():
    reply = Reply("a", "ok", stdout=b"\xff\x00", isolation=2)
    row = json.loads(json.dumps(reply.to_json()))
    assert row["stdout"] == "\ufffd\x00"
    assert row["tests"] == []
    assert row["isolation"] == 2


def test_a_failure_of_the_sandbox_is_no_verdict():
    assert Reply("a", "sandbox_error").sandbox_failure
    assert not Reply("a", "error").sandbox_failure
