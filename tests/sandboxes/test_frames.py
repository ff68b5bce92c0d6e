"""What comes out of a container is read as if programs had written it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_sandbox import Limits, Reply, Request
from trillium_sandbox.frames import (
    FrameError,
    frame,
    read_reply,
    read_request,
    reply_frame,
    request_frame,
    take_frames,
)

REQUEST = Request(
    "the id stays outside",
    "function",
    b"\xff\x00",
    ("assert f() == 1", "assert f() == 2"),
    "f",
    limits=Limits(wall_s=2.5, n_processes=3),
    count_opcodes=True,
    run=5,
)
REPLY = Reply(
    "0", "fail", ("pass", "fail"), b"out", b"err", True, None, 0.5, 0.25, 4096, 77, None, 3, "split"
)


def message_of(data):
    (message,) = take_frames(bytearray(data))
    return message


def test_a_request_crosses_whole_but_for_its_id_and_run():
    ticket, request = read_request(message_of(request_frame(9, REQUEST)))
    assert ticket == 9
    assert request == replace(REQUEST, id="9", run=0)


def test_a_reply_crosses_whole_and_gets_id_and_level_outside():
    message = message_of(reply_frame(9, REPLY, "worn"))
    assert message[:3] == ("done", 9, "worn")
    assert read_reply(message, REQUEST, 4) == replace(REPLY, id=REQUEST.id, isolation=4)


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 30))
def test_frames_come_out_whole_however_they_are_cut(values, size):
    stream = b"".join(frame((value,)) for value in values)
    held, found = bytearray(), []
    for at in range(0, len(stream), size):
        held += stream[at : at + size]
        found += take_frames(held)
    assert found == [(value,) for value in values]
    assert not held


@pytest.mark.property
@given(st.binary(max_size=300))
def test_any_bytes_are_messages_or_are_refused(data):
    try:
        messages = take_frames(bytearray(data))
    except FrameError:
        return
    assert all(type(message) is tuple and message for message in messages)


# A value for each field that its type, its request or its set of words rules out.
WRONG = {
    "a status of no list": {3: "passed"},
    "a status of another type": {3: b"pass"},
    "too few tests": {4: ("pass",)},
    "too many tests": {4: ("pass",) * 3},
    "a test of no list": {4: ("pass", "ok")},
    "output that is text": {5: "out"},
    "output beyond the limit": {5: bytes(65537)},
    "errors beyond the limit": {6: bytes(65537)},
    "a number for a truth": {7: 1},
    "an exit code that is none": {8: "0"},
    "time that is no float": {9: 1},
    "time before the start": {10: -1.0},
    "time that is no number": {9: float("nan")},
    "time without end": {10: float("inf")},
    "less than no memory": {11: -1},
    "half an opcode": {12: 0.5},
    "a limit of no list": {13: "hours"},
    "an integrity of no list": {14: "certain"},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_a_reply_that_the_request_cannot_have_is_refused(changes):
    message = list(message_of(reply_frame(9, REPLY, None)))
    for at, value in changes.items():
        message[at] = value
    with pytest.raises(FrameError):
        read_reply(tuple(message), REQUEST, 3)


@pytest.mark.parametrize("size", [14, 16, 0])
def test_a_reply_with_more_or_fewer_fields_is_refused(size):
    message = message_of(reply_frame(9, REPLY, None))
    with pytest.raises(FrameError, match="another shape"):
        read_reply((*message, "more")[:size], REQUEST, 3)


@pytest.mark.property
@given(st.data())
def test_a_damaged_reply_is_a_reply_or_is_refused(data):
    coded = bytearray(reply_frame(9, REPLY, None))
    at = data.draw(st.integers(4, len(coded) - 1))
    coded[at] = data.draw(st.integers(0, 255))
    try:
        for message in take_frames(coded):
            assert read_reply(message, REQUEST, 3).id == REQUEST.id
    except FrameError:
        return


def test_a_frame_that_announces_too_much_is_refused_at_once():
    with pytest.raises(FrameError, match="at most"):
        take_frames(bytearray(b"\xff\xff\xff\xff"))


def test_a_failure_of_the_sandbox_has_no_tests():
    failed = replace(REPLY, status="sandbox_error", tests=())
    assert read_reply(message_of(reply_frame(9, failed, None)), REQUEST, 3).sandbox_failure
