import datetime
import math
import struct
import sys
import tracemalloc
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium_sandbox.codec import MAX_DEPTH, CodecError, encode
from trillium_sandbox.decode import decode

HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.dates()
    | st.datetimes().map(lambda moment: moment.replace(fold=0))
    | st.times().map(lambda moment: moment.replace(fold=0))
    | st.timedeltas()
    | st.builds(range, st.integers(), st.integers(), st.integers(1)),
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=10,
)
PLAIN = st.recursive(
    HASHABLE | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(deque)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4).map(OrderedDict)
        | st.dictionaries(HASHABLE, inner, max_size=4).map(lambda d: defaultdict(None, d))
        | st.dictionaries(HASHABLE, st.integers(), max_size=4).map(Counter)
    ),
    max_leaves=20,
)


def same(left, right):
    """Equal by value and by exact type all the way down, with nan equal to nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and (
            left == right or (math.isnan(left) and math.isnan(right))
        )
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, Decimal):
        return str(left) == str(right)
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return len(left) == len(right) and all(any(same(x, y) for y in right) for x in left)
    if isinstance(left, list | tuple | deque):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.mark.property
@given(PLAIN)
def test_a_plain_value_survives_with_its_exact_types(value):
    assert same(decode(encode(value)), value)


@pytest.mark.property
@given(st.binary(max_size=200))
def test_any_bytes_decode_to_a_value_or_are_refused(data):
    try:
        value = decode(data)
    except CodecError:
        return
    assert same(decode(encode(value)), value)


TAGS = st.sampled_from([bytes([tag]) for tag in b"NTFEiIfcsbarlketzdognDQwy@hjBX"])
COUNTS = st.sampled_from([0, 1, 2, 3, 7, 150, 1 << 16, 1 << 31, 0xFFFFFFFF]).map(
    struct.Struct("<I").pack
)
TEXTS = st.sampled_from([b"1E+999999", b"date 2024-02-30", b"datetime 1", b"time 25", b"NaN", b""])


@pytest.mark.property
@settings(max_examples=400)
@given(st.lists(TAGS | COUNTS | TEXTS | st.binary(max_size=9), max_size=40).map(b"".join))
def test_bytes_that_look_like_values_decode_or_are_refused(data):
    try:
        value = decode(data)
    except CodecError:
        return
    encode(value)


@pytest.mark.property
@settings(max_examples=60)
@given(st.lists(TAGS | COUNTS | st.binary(max_size=4096), max_size=40).map(b"".join))
def test_decoding_takes_memory_in_proportion_to_the_bytes(data):
    tracemalloc.start()
    try:
        decode(data)
    except CodecError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 300 * len(data) + (1 << 20)


@pytest.mark.parametrize("kind", [list, tuple, deque])
def test_the_deepest_value_crosses_from_a_usual_stack(kind):
    value: object = 0
    for _ in range(MAX_DEPTH):
        value = kind([value])
    coded = encode(value)
    assert encode(decode(coded)) == coded


def test_a_stack_with_no_room_left_is_no_crash():
    coded = b"t\x01\0\0\0" * MAX_DEPTH + b"N"

    def sink(n_frames):
        return decode(coded) if n_frames == 0 else sink(n_frames - 1)

    with pytest.raises(CodecError, match="than the stack here allows"):
        sink(sys.getrecursionlimit() - 300)


@pytest.mark.property
@given(PLAIN, st.data())
def test_damaged_bytes_decode_to_a_value_or_are_refused(value, data):
    coded = bytearray(encode(value))
    at = data.draw(st.integers(0, len(coded) - 1))
    coded[at] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(coded))
    except CodecError:
        return


@pytest.mark.property
@given(PLAIN)
def test_a_truncated_value_is_refused(value):
    coded = encode(value)
    for end in {0, len(coded) // 2, len(coded) - 1}:
        with pytest.raises(CodecError):
            decode(coded[:end])


def test_bytes_after_the_value_are_refused():
    with pytest.raises(CodecError, match="1 bytes after"):
        decode(encode(5) + b"N")


@pytest.mark.parametrize(
    "kind", [int, float, str, list, dict, tuple, set, bytes, Decimal, Fraction, datetime.date]
)
def test_a_subclass_does_not_cross_as_its_base(kind):
    subclass = type("Lying", (kind,), {"__eq__": lambda self, other: True, "__hash__": None})
    value = subclass(2020, 1, 1) if kind is datetime.date else subclass()
    with pytest.raises(CodecError, match="Lying"):
        encode(value)


def test_aliases_and_cycles_survive():
    row = [0]
    grid = decode(encode([row, row]))
    grid[0].append(1)
    assert grid == [[0, 1], [0, 1]]
    loop: list[object] = []
    loop.append(loop)
    copy = decode(encode(loop))
    assert copy[0] is copy


def test_bytes_that_change_are_aliased_as_well():
    first, second = decode(encode([shared := bytearray(b"ab"), shared]))
    assert first is second


def test_what_both_sides_know_crosses_as_a_reference():
    ours, theirs = [], []
    inner, text = [1], bytearray(b"x")
    copy = decode(encode((inner, {"text": text}), known=ours), known=theirs)
    assert ours == theirs == [inner, {"text": text}, text]
    inner.append(text)
    back = decode(encode((copy[1], [copy[0]]), known=theirs), known=ours)
    assert back[0] is ours[1]
    assert back[1][0] is inner
    assert len(ours) == len(theirs) == 4
    with pytest.raises(CodecError, match="reference to nothing"):
        decode(encode(copy[0], known=theirs))


def test_nesting_beyond_the_limit_is_refused_on_both_sides():
    value: list[object] = []
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(CodecError, match="nested"):
        encode(value)
    with pytest.raises(CodecError, match="nested"):
        decode(b"l\x01\0\0\0" * (MAX_DEPTH + 2) + b"N")


def test_a_length_that_lies_is_refused_before_memory_is_spent():
    for tag in b"letzkdogn":
        with pytest.raises(CodecError):
            decode(bytes([tag]) + b"\xff\xff\xff\xff")


def test_handles_are_refused_where_only_values_may_be():
    with pytest.raises(CodecError, match="handle"):
        decode(b"h\0\0\0\0\0N")
    with pytest.raises(CodecError, match="function"):
        encode(len.__class__ and (lambda: 0))


def test_handles_go_through_the_given_functions():
    thing = object()
    data = encode([1, thing], lambda value: (0, 7, ("object", 3, None)))
    assert decode(data, lambda *handle: handle) == [1, (0, 7, ("object", 3, None))]
