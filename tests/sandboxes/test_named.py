"""What crosses by name or as its parts, and what of Python never does."""

import builtins
import datetime
import json
import pathlib
import re
import struct
import uuid
from collections import Counter, defaultdict
from contextlib import suppress
from decimal import Decimal

import pytest
from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.decode import decode

NAMED = [
    int,
    object,
    type(None),
    NotImplemented,
    ValueError,
    json.JSONDecodeError,
    Counter,
    Decimal,
]


@pytest.mark.parametrize("value", NAMED)
def test_what_is_listed_crosses_by_name(value):
    assert decode(encode(value)) is value


@pytest.mark.parametrize("name", ["type", "eval", "exec", "property", "super", "__import__"])
def test_what_runs_or_makes_code_is_not_listed(name):
    data = f"builtins {name}".encode()
    with pytest.raises(CodecError, match="cannot cross"):
        encode(getattr(builtins, name))
    with pytest.raises(CodecError, match="cannot cross by name"):
        decode(b"j" + struct.pack("<I", len(data)) + data)


@pytest.mark.parametrize(
    "value",
    [
        slice(1, None, (2,)),
        re.compile("a+", re.IGNORECASE),
        uuid.UUID(int=5),
        datetime.timezone(datetime.timedelta(hours=1), "x"),
        pathlib.PurePosixPath("a/b"),
    ],
)
def test_what_never_changes_crosses_as_its_parts(value):
    assert decode(encode(value)) == value


@pytest.mark.parametrize("parts", [b"N", encode(()), encode(("(", 0)), encode((1, 2, 3, 4))])
@pytest.mark.parametrize("name", [b"slice", b"Pattern", b"UUID", b"timezone", b"type"])
def test_parts_that_make_nothing_are_refused_or_a_value(name, parts):
    with suppress(CodecError):
        assert decode(b"B" + struct.pack("<I", len(name)) + name + parts) == slice("(", 0)


def test_an_exception_crosses_as_its_class_arguments_cause_and_attributes():
    error = KeyError("k", 1)
    error.code = 5
    error.__cause__ = OSError(2, "no", "here")
    copy = decode(encode(error))
    assert (type(copy), copy.args, copy.code) == (KeyError, ("k", 1), 5)
    assert (type(copy.__cause__), copy.__cause__.filename) == (FileNotFoundError, "here")


@pytest.mark.parametrize(
    ("kind", "arguments"), [(5, ()), (int, ()), (ValueError, []), (ExceptionGroup, (1, 2))]
)
def test_an_exception_of_no_exception_class_is_refused(kind, arguments):
    with pytest.raises(CodecError, match="malformed exception"):
        decode(b"X" + encode(kind) + encode(arguments) + b"NNN")


def test_a_nan_keeps_its_identity():
    first, second = float("nan"), float("nan")
    one, two, three = decode(encode([first, second, first]))
    assert one is three
    assert one is not two


@pytest.mark.parametrize("fold", [0, 1])
def test_the_fold_of_a_time_survives(fold):
    for moment in (datetime.datetime(2020, 1, 1, fold=fold), datetime.time(1, fold=fold)):
        copy = decode(encode(moment))
        assert (copy, copy.fold) == (moment, fold)


def test_a_default_is_made_by_what_made_it():
    assert decode(encode(defaultdict(list, a=1)))["b"] == []
