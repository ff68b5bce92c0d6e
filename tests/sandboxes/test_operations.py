"""What the judge's side refuses to a candidate, and what it makes of handles that lie."""

import socket
import struct
from abc import ABCMeta
from enum import Enum, EnumMeta
from functools import partial

import pytest
from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.operations import OPERATIONS
from trillium_sandbox.peer import Peer
from trillium_sandbox.remote import Remote

HANDLES = [
    (0, 5, None),
    (0, 5, 7),
    (0, 5, ("A", "x", None)),
    (0, 5, ("A", -1, [])),
    (0, 5, ("A", 1 << 200, {})),
    (0, 5, (b"A", 3, "builtins int")),
    (0, 5, ("A\0", 3, None)),
    (0, 5, ("A", 3, 5)),
    (0, 5, ("E", True, False, (int,))),
    (0, 5, ("E", True, False, ())),
    (0, 5, ("E", True, False, (KeyError, OSError, 3))),
    (1, 5, None),
    (2, 0, "builtins eval"),
    (2, 0, "os system"),
    (9, 0, ("A", 3, None, 5, 6)),
]


@pytest.mark.parametrize("handle", HANDLES)
def test_a_handle_to_what_cannot_be_is_an_object_that_is_asked_or_refused(handle):
    asking, hostile = socket.socketpair()
    with asking, hostile:
        body = encode(("ok", object(), None), lambda value: handle)
        hostile.sendall(struct.pack("<I", len(body)) + body)
        peer = Peer(asking.fileno())
        try:
            answer = peer.ask("call", "f", (), {})
        except CodecError:
            assert peer.leant
        else:
            assert issubclass(type(answer), Remote)


@pytest.mark.parametrize(
    "handed", [type, ABCMeta, type.__call__, type[int], partial(type, "X"), EnumMeta, Enum]
)
def test_the_judge_makes_no_classes(handed):
    judge = Peer(-1)
    judge.handles._numbers[id(handed)] = 0  # as if it were the test's own
    methods = {"__module__": "tests", "__eq__": lambda a, b: True}
    with pytest.raises(TypeError, match="makes no classes"):
        OPERATIONS["call"](judge, handed, ("X", (), methods), {})
    assert judge.leant


def test_the_judge_calls_only_what_it_handed_over():
    with pytest.raises(TypeError, match="makes no classes"):
        OPERATIONS["call"](Peer(-1), dict, (), {})
