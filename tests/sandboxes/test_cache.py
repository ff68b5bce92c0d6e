"""Results kept on disk: what is kept, what tells requests apart, and who else may look."""

import logging
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from trillium_sandbox import Limits, Reply, Request, SandboxError
from trillium_sandbox.cache import CachedBackend, ResultCache, _read, _write
from trillium_sandbox.dispatch import Dispatcher
from trillium_sandbox.embedded import EmbeddedBackend

# The time of day tells a run from a replay.
CLOCK = "import time\nprint(time.time_ns())"


@pytest.fixture
def open_cache(tmp_path):
    opened = []

    def open_one(name="cache.sqlite", backend="embedded", level=2, **options):
        opened.append(ResultCache(tmp_path / name, backend=backend, level=level, **options))
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()


def script(name, source=CLOCK, **fields):
    return Request(name, "script", source.encode(), **fields)


def test_a_program_runs_once_and_is_replayed_under_each_id(backend, open_cache):
    cached = CachedBackend(backend, open_cache())
    first, again, other = cached.run([script("a"), script("b", "print(1)"), script("c", "1 / 0")])
    assert [reply.id for reply in (first, again, other)] == ["a", "b", "c"]
    replayed = list(cached.run([script("x"), script("y", "1 / 0"), script("z", CLOCK + " ")]))
    assert replayed[0] == replace(first, id="x")
    assert replayed[1] == replace(other, id="y")
    assert replayed[2].stdout != first.stdout
    assert (cached.cache.n_hits, cached.cache.n_misses) == (2, 4)


def test_kept_and_new_replies_come_in_the_order_of_the_requests(backend, open_cache):
    cached = CachedBackend(backend, open_cache())
    list(cached.run(script(f"a{n}", f"print({n})") for n in range(0, 60, 2)))
    replies = list(cached.run(script(f"b{n}", f"print({n})") for n in range(60)))
    assert [(reply.id, reply.stdout) for reply in replies] == [
        (f"b{n}", b"%d\n" % n) for n in range(60)
    ]
    assert (cached.cache.n_hits, cached.cache.n_misses) == (30, 60)


def test_a_long_row_of_kept_replies_is_handed_on_while_it_is_read(backend, open_cache, monkeypatch):
    monkeypatch.setattr("trillium_sandbox.cache._HITS_AHEAD", 4)
    cached = CachedBackend(backend, open_cache())
    list(cached.run([script("a")]))
    read = []

    def requests():
        yield script("new", "print(2)")
        for number in range(50):
            read.append(number)
            yield script(f"known{number}")

    replies = cached.run(requests())
    assert [next(replies).id for _ in range(3)] == ["new", "known0", "known1"]
    assert len(read) <= 4
    assert len(list(replies)) == 48


def test_each_run_of_a_program_is_kept_for_itself(backend, open_cache):
    cached = CachedBackend(backend, open_cache())
    runs = [script("a", run=run) for run in range(3)]
    first = list(cached.run(runs))
    assert len({reply.stdout for reply in first}) == 3
    assert list(cached.run(runs)) == first


@pytest.mark.parametrize(
    ("source", "status", "limits"),
    [
        ("while True: pass", "timeout", Limits(wall_s=0.1)),
        ("print('x' * 99)", "output_limit", Limits(output_bytes=9)),
        ("import os; os.kill(os.getpid(), 9)", "killed", Limits()),
        ("x = bytearray(1 << 30)", "memory", Limits()),
    ],
)
def test_what_depends_on_the_machine_is_never_kept(backend, open_cache, source, status, limits):
    cached = CachedBackend(backend, open_cache())
    for _ in range(2):
        (reply,) = cached.run([script("a", source, limits=limits)])
        assert reply.status == status
    assert cached.cache.n_hits == 0


def test_a_verdict_on_a_candidate_that_was_killed_is_never_kept(backend, open_cache):
    cached = CachedBackend(backend, open_cache())
    source = b"import os\ndef f(): os.kill(os.getpid(), 9)"
    tests = ("assert f() is None", "assert f() is None")
    for _ in range(2):
        (reply,) = cached.run([Request("a", "function", source, tests, "f")])
        assert (reply.status, reply.tests) == ("killed", ("error", "error"))
    assert cached.cache.n_hits == 0


def test_a_verdict_with_a_timeout_among_its_tests_or_of_a_failed_sandbox_is_not_kept(open_cache):
    cache = open_cache()
    request = script("a")
    cache.keep([(request, Reply("a", "fail", tests=("fail", "timeout")))])
    cache.keep([(request, Reply("a", "sandbox_error"))])
    assert cache.find(request) is None
    cache.keep([(request, Reply("a", "fail", tests=("fail", "pass")))])
    assert cache.find(request) == Reply("a", "fail", tests=("fail", "pass"))


def test_all_that_decides_a_result_tells_requests_apart(open_cache):
    cache = open_cache()
    plain = Request("a", "function", b"def f(): pass", ("assert f() is None",), "f")
    cache.keep([(plain, Reply("a", "pass", tests=("pass",)))])
    assert cache.find(replace(plain, id="b")) is not None
    others = [
        replace(plain, source=b"def f():  pass"),
        replace(plain, tests=("assert f() is None", "assert f() is None")),
        replace(plain, tests=("assert f() is None ",)),
        replace(plain, entry_point=None),
        replace(plain, limits=Limits(cpu_s=4.0)),
        replace(plain, run=1),
        Request("a", "script", b"def f(): pass"),
        Request("a", "script", b"def f(): pass", stdin=b"x"),
        Request("a", "stdio", b"def f(): pass", expected_stdout=b""),
        Request("a", "stdio", b"def f(): pass", expected_stdout=b"x"),
    ]
    assert [cache.find(other) for other in others] == [None] * len(others)
    assert open_cache(backend="docker:sha256:1").find(plain) is None
    assert open_cache(level=1).find(plain) is None
    assert open_cache().find(plain) is not None


def test_a_reply_is_kept_to_the_byte():
    reply = Reply(
        id="\ud800",
        status="fail",
        tests=("pass", "error"),
        stdout=bytes(range(256)),
        stderr="\N{SNOWMAN}".encode(),
        truncated=True,
        exit_code=-9,
        wall_s=0.1,
        cpu_s=1 / 3,
        peak_memory_bytes=1 << 40,
        opcode_count=7,
        isolation=2,
        integrity="split",
    )
    assert _read(_write(reply)) == reply


def test_the_file_stays_within_its_bound_and_the_newest_results_stay(open_cache, tmp_path):
    cache = open_cache(max_bytes=1 << 20)
    for number in range(40):
        text = b"%d" % number + b"x" * 60_000
        cache.keep([(script("a", str(number)), Reply("a", "ok", stdout=text))])
    assert (tmp_path / "cache.sqlite").stat().st_size < 1.3 * (1 << 20)
    kept = [n for n in range(40) if cache.find(script("a", str(n))) is not None]
    assert kept == list(range(kept[0], 40))
    assert len(kept) >= 10


WRITER = """
import sys
from pathlib import Path
from trillium_sandbox import Reply, Request
from trillium_sandbox.cache import ResultCache
cache = ResultCache(Path(sys.argv[1]), backend="embedded", level=2)
for number in range(100):
    request = Request("a", "script", str(number).encode())
    cache.keep([(request, Reply("a", "ok", stdout=b"%d" % number))])
    assert cache.find(request).stdout == b"%d" % number, cache.failure
"""


def test_several_processes_write_at_once(tmp_path, open_cache):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "cache.sqlite")]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [(b"", 0)] * 3
    cache = open_cache()
    found = [cache.find(script("a", str(number))) for number in range(100)]
    assert [reply.stdout for reply in found] == [b"%d" % number for number in range(100)]


def test_a_file_of_another_kind_is_refused(tmp_path, open_cache):
    (tmp_path / "text").write_text("these are not results" * 100)
    with pytest.raises(SandboxError, match=r"cannot be used as a result cache \(file is not a"):
        open_cache("text")
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(SandboxError, match="the database of another program"):
        open_cache("other")
    with pytest.raises(SandboxError, match="choose another path"):
        open_cache("no/such/folder")


def test_nobody_else_may_write_verdicts(tmp_path, open_cache):
    open_cache()
    assert (tmp_path / "cache.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_run_survives_its_cache_and_says_so_once(backend, open_cache, caplog):
    cache = open_cache()
    cache._base.execute("DROP TABLE results")
    with caplog.at_level(logging.ERROR):
        replies = list(CachedBackend(backend, cache).run([script("a"), script("b")]))
    assert [reply.status for reply in replies] == ["ok", "ok"]
    assert "the result cache failed (no such table" in caplog.text
    assert len(caplog.records) == 1


def test_a_dispatcher_runs_only_what_its_cache_does_not_know(open_cache):
    cache = open_cache()
    with Dispatcher(lambda: EmbeddedBackend(2, n_workers=1)) as dispatcher:
        dispatcher.cache = cache
        first = dispatcher.run_one(script("a"))
        again = list(dispatcher.run([script("b"), script("c", "print(1)"), script("d")]))
    assert [reply.id for reply in again] == ["b", "c", "d"]
    assert again[0].stdout == again[2].stdout == first.stdout
    assert (cache.n_hits, cache.n_misses) == (2, 2)
