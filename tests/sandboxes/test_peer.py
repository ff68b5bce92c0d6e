import os
import socket
import struct
import threading
from collections.abc import Iterator, Sized
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_sandbox.channel import ConnectionLost
from trillium_sandbox.codec import CodecError, encode
from trillium_sandbox.peer import Peer
from trillium_sandbox.remote import Remote


@pytest.fixture
def connect():
    """Return a function: names of the serving side -> the asking side."""
    ends, threads = [], []

    def run(names):
        asking, serving = socket.socketpair()
        ends.extend((asking, serving))

        def serve():
            with pytest.raises(ConnectionLost):
                Peer(serving.fileno(), names=names).serve_forever()

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return Peer(asking.fileno())

    yield run
    for end in ends[::2]:
        end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for end in ends:
        end.close()


def test_calls_cross_with_their_answers(connect):
    peer = connect({"add": lambda a, b=1: a + b})
    assert peer.ask("call", "add", (2,), {}) == 3
    assert peer.ask("call", "add", ("x",), {"b": "y"}) == "xy"


def test_an_unknown_name_and_operation_are_refused(connect):
    peer = connect({})
    with pytest.raises(NameError, match="'f' is not defined"):
        peer.ask("name", "f")
    with pytest.raises(ValueError, match="unknown operation"):
        peer.ask("exec", "import os")


def test_a_remote_keeps_its_identity_there_and_back(connect):
    shared = object()
    peer = connect({"shared": shared, "same": lambda x: x is shared})
    remote = peer.ask("name", "shared")
    assert isinstance(remote, Remote)
    assert peer.ask("call", "same", (remote,), {}) is True
    assert remote is peer.ask("name", "shared")
    assert remote != 5
    assert not peer.leant


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_is_no_ordinary_exception_crosses_and_leans(connect, error):
    def leave():
        raise error

    peer = connect({"f": leave})
    with pytest.raises(type(error)) as caught:
        peer.ask("call", "f", (), {})
    assert caught.value.args == error.args
    assert peer.leant


def test_an_unknown_exception_is_one_of_a_class_of_its_name_and_bases(connect):
    class Odd(KeyError):
        code = 5

    def fail():
        raise Odd("k", 1)

    peer = connect({"f": fail, "Odd": Odd})
    with pytest.raises(KeyError) as caught:
        peer.ask("call", "f", (), {})
    assert (type(caught.value).__name__, caught.value.args) == ("Odd", ("k", 1))
    assert not peer.leant
    assert type(caught.value) is peer.ask("name", "Odd")
    assert caught.value.code == 5
    assert peer.leant


def test_what_cannot_cross_leans(connect):
    deep = []
    for _ in range(200):
        deep = [deep]
    peer = connect({"f": lambda: deep})
    with pytest.raises(CodecError, match="nested deeper"):
        peer.ask("call", "f", (), {})
    assert peer.leant


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return (self.x, key)

    def __str__(self):
        return "point"


@pytest.mark.parametrize(
    ("look", "answer"),
    [
        (lambda p: p == p, True),
        (lambda p: p != 5, True),
        (str, "point"),
        (lambda p: p.x, 1),
        (bool, True),
        (lambda p: p.__dict__, {"x": 1}),
        (lambda p: hasattr(p, "y"), False),
    ],
)
def test_what_an_object_says_of_itself_leans(connect, look, answer):
    peer = connect({"p": Point(1)})
    remote = peer.ask("name", "p")
    assert not peer.leant
    assert look(remote) == answer
    assert peer.leant


@pytest.mark.parametrize(
    ("look", "answer"),
    [
        (len, 3),
        (lambda p: p["k"], (1, "k")),
        (callable, False),
        (lambda p: hasattr(p, "__len__"), True),
        (lambda p: hasattr(p, "__contains__"), False),
        (lambda p: isinstance(p, Sized), True),
        (lambda p: isinstance(p, Iterator), False),
        (lambda p: type(p).__name__, "Point"),
    ],
)
def test_what_is_data_or_known_of_its_class_does_not(connect, look, answer):
    peer = connect({"p": Point(1)})
    assert look(peer.ask("name", "p")) == answer
    assert not peer.leant


@pytest.mark.parametrize("kind", [int, str, list, dict, OSError.__base__])
def test_an_object_that_inherits_from_a_class_of_pythons_leans_when_it_comes(connect, kind):
    value = type("Lying", (kind,), {})()
    peer = connect({"p": value})
    assert isinstance(peer.ask("name", "p"), kind)
    assert peer.leant is not issubclass(kind, BaseException)


def test_a_stop_of_an_iteration_does_not_cross_as_one(connect):
    def stop():
        raise StopIteration(5)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        connect({"f": stop}).ask("call", "f", (), {})


def test_what_was_sent_keeps_its_identity_wherever_it_was_moved(connect):
    def turn(rows):
        rows.reverse()
        rows.append(rows)
        return rows[0], [*rows[1]]

    first, last = [1], [2]
    rows = [first, last]
    answer = connect({"turn": turn}).ask("call", "turn", (rows,), {})
    assert answer[0] is last
    assert answer[1] == first
    assert answer[1] is not first
    assert rows[0] is last
    assert rows[1] is first
    assert rows[2] is rows


@pytest.mark.parametrize(
    "changes",
    [{3: []}, {-1: []}, {True: [0]}, {"0": [0]}, {0: (0,)}, {0: {1: 2}}, {0: None}],
)
def test_contents_for_what_was_not_sent_are_refused(changes):
    asking, hostile = socket.socketpair()
    with asking, hostile:
        body = encode(("ok", 5, changes))
        hostile.sendall(struct.pack("<I", len(body)) + body)
        sent, named, other = [1], {}, [2]
        with pytest.raises(CodecError, match="contents"):
            Peer(asking.fileno()).ask("call", "f", (sent, other), named)
        assert (sent, named, other) == ([1], {}, [2])


def test_only_an_answer_may_refer_to_what_was_sent():
    asking, hostile = socket.socketpair()
    with asking, hostile:
        sent = [1]
        known = [sent]
        body = encode(("call", sent, (), {}), known=known)
        hostile.sendall(struct.pack("<I", len(body)) + body)
        with pytest.raises(CodecError, match="reference to nothing"):
            Peer(asking.fileno()).ask("call", "f", (sent,), {})


@pytest.mark.property
@given(st.binary(max_size=60))
def test_any_answer_is_taken_or_refused_and_changes_only_what_was_sent(tail):
    body = encode(("ok", None, None))[:-2] + tail
    asking, hostile = socket.socketpair()
    with asking, hostile:
        hostile.sendall(struct.pack("<I", len(body)) + body)
        hostile.shutdown(socket.SHUT_WR)
        sent, kept = [1, {2}], [3]
        with suppress(ConnectionLost, CodecError):
            Peer(asking.fileno()).ask("call", "f", (sent,), {})
        assert kept == [3]
        assert type(sent) is list


@pytest.mark.property
@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_from_the_other_side_are_an_answer_an_error_or_a_loss(data):
    asking, hostile = socket.socketpair()
    with asking, hostile:
        hostile.sendall(struct.pack("<I", len(data)) + data)
        hostile.shutdown(socket.SHUT_WR)
        with pytest.raises((ConnectionLost, Exception)):
            raise ConnectionError(Peer(asking.fileno()).ask("name", "f"))


def test_a_hostile_answer_cannot_reach_what_was_not_handed_over():
    asking, hostile = socket.socketpair()
    with asking, hostile:
        for operation in (("name", "os"), ("call", "eval", ("1",), {}), ("get", "os", "environ")):
            body = encode(operation)
            hostile.sendall(struct.pack("<I", len(body)) + body)
        body = encode(("ok", 5, None))
        hostile.sendall(struct.pack("<I", len(body)) + body)
        assert Peer(asking.fileno()).ask("name", "f") == 5
        answers = os.read(hostile.fileno(), 1 << 16)
        assert answers.count(b"raise") == 3
        assert b"environ" not in answers.replace(b"'environ'", b"")
