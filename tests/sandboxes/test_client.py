"""The HTTP backend against a real service, one that is killed included."""

import asyncio
import json
import signal
import socket
import threading

import pytest
from trillium_sandbox import Limits, Reply, Request, RequestError, SandboxError, open_backend
from trillium_sandbox.aio import AsyncSandbox
from trillium_sandbox.cache import CachedBackend, ResultCache
from trillium_sandbox.http_line import write

HANG = "while True: pass"


def script(name, source="print(1)", **fields):
    return Request(name, "script", source.encode(), **fields)


@pytest.fixture(scope="module")
def service(start_service):
    return start_service()


@pytest.fixture
def http(service):
    with open_backend("http", url=service.url) as opened:
        yield opened


def test_replies_are_those_of_a_local_backend(http, backend):
    function = b"def double(x): return 2 * x"
    requests = [
        script("snow\N{SNOWMAN}", "print('\N{SNOWMAN}')"),
        Request("b", "function", function, ("assert double(2) == 4", "assert double(2) == 5")),
        Request("c", "stdio", b"print(input())", stdin=b"x\n", expected_stdout=b"x\n"),
        Request("d", "script", b"# \xff\nprint(1)"),
        script("e", "print('x' * 99)", limits=Limits(output_bytes=50)),
        script("", "raise SystemExit(3)"),
    ]
    assert http.level == 2
    replies = list(http.run(requests))
    for ours, theirs in zip(replies, backend.run(requests), strict=True):
        for name in ("id", "status", "tests", "stdout", "stderr", "exit_code", "limit_hit"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert (ours.truncated, ours.isolation) == (theirs.truncated, theirs.isolation)


def test_abandoned_requests_are_forgotten_by_the_service(http, service):
    replies = http.run([script("a"), *[script(str(n), HANG) for n in range(20)]])
    assert next(replies).id == "a"
    replies.close()
    assert next(http.run([script("b")])).id == "b"


def test_bytes_that_json_cannot_carry_are_refused(http):
    with pytest.raises(RequestError, match=r"request 'a': stdin or expected_stdout is no UTF-8"):
        list(http.run([Request("a", "script", b"", stdin=b"\xff")]))


def test_what_the_service_does_not_allow_is_said(http):
    with pytest.raises(RequestError, match=r"limits.wall_s = 61.0 \(this service allows 60.0\)"):
        list(http.run([script("a", limits=Limits(wall_s=61))]))


def test_no_service_a_wrong_url_and_a_level_too_low_are_refused(service):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SandboxError, match=r"no sandbox service answers there .*refused"):
        open_backend("http", url=f"http://127.0.0.1:{port}")
    with pytest.raises(RequestError, match="url = 'localhost'"):
        open_backend("http", url="localhost")
    with pytest.raises(RequestError, match="needs a url"):
        open_backend("http")
    with pytest.raises(SandboxError, match="level 3 is needed and this service holds 2"):
        open_backend("http", url=service.url, min_level=3)


def test_a_token_opens_the_door(start_service, tmp_path):
    (tmp_path / "token").write_text("s3cret")
    service = start_service("--token-file", str(tmp_path / "token"), "--workers", "1")
    with open_backend("http", url=service.url, token="s3cret") as http:
        assert next(http.run([script("a")])).status == "ok"
    with (
        open_backend("http", url=service.url, token="wrong") as http,
        pytest.raises(SandboxError, match="answered 401: the token is missing or wrong"),
    ):
        list(http.run([script("a")]))
    assert "s3cret" not in repr(http._address)


def test_tasks_use_a_service_as_they_use_a_local_backend(service):
    async def main():
        async with AsyncSandbox(lambda: open_backend("http", url=service.url)) as sandbox:
            many = await asyncio.gather(*[sandbox.run_one(script(f"s{n}")) for n in range(100)])
            rows = [reply.id async for reply in sandbox.run(script(f"r{n}") for n in range(100))]
        return [reply.id for reply in many], rows

    assert asyncio.run(main()) == ([f"s{n}" for n in range(100)], [f"r{n}" for n in range(100)])


def test_a_cache_in_front_of_a_service(service, tmp_path):
    http = open_backend("http", url=service.url)
    cache = ResultCache(tmp_path / "cache", backend=http.service.identity, level=http.level)
    with CachedBackend(http, cache) as cached:
        clock = [script("a", "import time\nprint(time.time_ns())")]
        assert list(cached.run(clock)) == list(cached.run(clock))


def test_a_killed_service_loses_none_of_two_thousand_requests(start_service):
    service = start_service()
    requests = [script(f"r{n}", f"print({n})") for n in range(2000)]
    with open_backend("http", url=service.url) as http:
        replies = http.run(requests)
        seen = [next(replies) for _ in range(300)]
        service.stop(signal.SIGKILL)
        back = threading.Thread(target=service.start)
        back.start()
        seen += replies
        back.join()
    assert [(reply.id, reply.status) for reply in seen] == [(f"r{n}", "ok") for n in range(2000)]
    assert [reply.stdout for reply in seen] == [b"%d\n" % n for n in range(2000)]


def test_a_service_that_stays_away_is_no_wrong_answer(start_service, monkeypatch):
    monkeypatch.setattr("trillium_sandbox.http_line._PATIENCE_S", 0.0)
    service = start_service("--workers", "1")
    with open_backend("http", url=service.url) as http:
        tickets = [http.submit(script(name, HANG, limits=Limits(wall_s=50))) for name in "ab"]
        service.stop(signal.SIGKILL)
        replies: dict[int, Reply] = {}
        while len(replies) < 2:
            replies |= http.collect()
    assert [replies[ticket].id for ticket in tickets] == ["a", "b"]
    assert {reply.status for reply in replies.values()} == {"sandbox_error"}
    assert service.url.encode() in replies[tickets[0]].stderr


def test_a_full_queue_is_waited_for(start_service):
    service = start_service("--max-queue", "100")
    with (
        open_backend("http", url=service.url) as one,
        open_backend("http", url=service.url) as two,
    ):
        first = one.run([script(f"a{n}") for n in range(300)])
        seen = [next(first)]
        seen += two.run([script(f"b{n}") for n in range(300)])
        seen += first
    assert {reply.status for reply in seen} == {"ok"}
    assert len(seen) == 600


def test_a_line_says_all_that_a_request_says():
    request = Request("a", "function", b"x = 1", ("assert x",), "x", limits=Limits(cpu_s=2))
    again = Request.from_json(json.loads(write(7, request)))
    assert again == Request("7", "function", b"x = 1", ("assert x",), "x", limits=Limits(cpu_s=2))
