"""Connections that never come to a request, without a service, and one with too few descriptors."""

import asyncio
import contextlib
import json
import resource
import socket

import pytest
import uvicorn
from trillium_sandbox.service.connections import MAX_HEAD_BYTES, BoundedHttp
from trillium_sandbox.service.serving import _listen
from uvicorn.server import ServerState

ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Hurried(BoundedHttp):
    patience_s = 0.05


async def greet(scope, receive, send):
    """Answer at once, whatever the body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def converse(*parts, protocol=BoundedHttp):
    """Send the parts, each once the one before was answered; return all that came until the end."""

    async def talk():
        config = uvicorn.Config(greet, log_level="critical", ws="none")
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        state = ServerState()
        await loop.connect_accepted_socket(lambda: protocol(config, state, {}), theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        heard = b""
        for number, part in enumerate(parts):
            if number:
                heard += await reader.readuntil(b"hello\r\n0\r\n\r\n")
            writer.write(part)
        heard += await reader.read()
        writer.close()
        return heard

    return asyncio.run(talk())


@pytest.mark.security
@pytest.mark.parametrize(
    "head",
    [
        b"GET /%b" % (b"a" * MAX_HEAD_BYTES),
        b"POST /run HTTP/1.1\r\nX-Long: %b" % (b"a" * MAX_HEAD_BYTES),
        b"POST /run HTTP/1.1\r\n%b" % (b"X-More: a\r\n" * (MAX_HEAD_BYTES // 11 + 1)),
    ],
)
def test_a_head_of_any_length_is_refused_and_the_connection_closed(head):
    answer = converse(head)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 431 ")
    assert f"a head of more than {MAX_HEAD_BYTES} bytes" in json.loads(body)["error"]


@pytest.mark.security
def test_what_follows_a_body_is_bounded_as_well():
    chunked = b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    answer = converse(chunked, b"X-More: a\r\n" * (MAX_HEAD_BYTES // 11 + 1))
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert answer.count(b"HTTP/1.1 431 ") == 1


@pytest.mark.security
@pytest.mark.parametrize("part", [b"", b"POST /run HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_end_is_not_waited_for(part):
    assert converse(part, protocol=Hurried) == b""


@pytest.mark.security
def test_a_second_head_that_does_not_end_is_not_waited_for_either():
    answer = converse(ASK, ASK[:20], protocol=Hurried)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1") == 1


def test_many_whole_heads_of_one_connection_are_answered():
    last = ASK.replace(b"Host", b"Connection: close\r\nHost")
    large = ASK.replace(b"Host", b"X-Large: %b\r\nHost" % (b"a" * (MAX_HEAD_BYTES // 2)))
    answer = converse(large, large, large, last)
    assert answer.count(b"HTTP/1.1 200 OK") == 4


def test_a_body_larger_than_a_head_is_taken():
    body = bytes(3 * MAX_HEAD_BYTES)
    ask = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert converse(ask + body).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.security
def test_the_kernel_lets_go_of_a_client_that_takes_no_answer():
    with (
        _listen("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        patience_ms = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert patience_ms == 60_000


@pytest.mark.security
def test_connections_without_a_request_do_not_keep_others_out(start_service):
    """As many as the process may hold descriptors: those that have waited longest are closed."""
    service = start_service()
    hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (200, hard))
    program = {"id": "a", "mode": "script", "source": "print(1)"}
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            waiting = socket.create_connection(("127.0.0.1", service.port), timeout=60)
            stack.enter_context(waiting).sendall(b"POST /run HTTP/1.1\r\nHost:")
        assert service.ask("GET", "/healthz")[0] == 200
        assert service.ask("POST", "/run", program)[0] == 200
