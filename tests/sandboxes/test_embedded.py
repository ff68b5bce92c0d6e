import itertools
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from trillium_sandbox import Limits, Request, SandboxError, open_backend
from trillium_sandbox.embedded import MAX_DEATHS, EmbeddedBackend

SOURCE = b"def f(x): return x + 1"
ENDLESS = Request("endless", "script", b"while True: pass", limits=Limits(wall_s=99, cpu_s=99))


def function(name, tests=("assert f(1) == 2", "assert f(2) == 3")):
    return Request(str(name), "function", SOURCE, tuple(tests), "f")


def script(name, source):
    return Request(str(name), "script", source.encode())


def zygotes(backend):
    for launcher in backend.worker_pids:
        children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
        yield from map(int, children)


def test_replies_come_once_each_and_in_order(backend):
    sources = ["import time; time.sleep(0.05)", "pass", "print(1)", "raise SystemExit(3)"]
    requests = [script(n, sources[n % 4]) for n in range(40)]
    replies = list(backend.run(requests))
    assert [reply.id for reply in replies] == [request.id for request in requests]
    assert [reply.exit_code for reply in replies[:4]] == [0, 0, 0, 3]


def test_requests_are_taken_as_there_is_room_for_them(backend):
    taken = itertools.count()
    endless = (script(next(taken), "pass") for _ in itertools.count())
    replies = backend.run(endless)
    assert [next(replies).id for _ in range(5)] == ["0", "1", "2", "3", "4"]
    replies.close()
    assert next(taken) < 100


def test_an_abandoned_run_leaves_the_backend_in_order(backend):
    replies = backend.run([function(n) for n in range(30)])
    next(replies)
    replies.close()
    assert [reply.status for reply in backend.run([function("next")])] == ["pass"]


def test_two_runs_may_be_interleaved(backend):
    left = backend.run([function(n) for n in range(20)])
    right = backend.run([script(n, f"print({n})") for n in range(20)])
    for one, other in zip(left, right, strict=True):
        assert one.status == "pass"
        assert other.stdout.decode().strip() == other.id


def test_a_script_is_measured_from_outside():
    source = "x = bytearray(40 << 20)\nx[::4096] = b'x' * len(x[::4096])\nsum(range(3000000))"
    with open_backend("embedded", n_workers=1) as backend:
        small, large = backend.run([script(0, "pass"), script(1, source)])
    assert small.peak_memory_bytes < 8 << 20
    assert 38 << 20 < large.peak_memory_bytes < 48 << 20
    assert large.cpu_s > small.cpu_s
    assert large.wall_s >= 0.5 * large.cpu_s


def test_the_processor_limit_counts_less_than_a_second(backend):
    limits = Limits(cpu_s=0.2, wall_s=30)
    (reply,) = backend.run([Request("a", "script", b"while True: pass", limits=limits)])
    assert (reply.status, reply.limit_hit) == ("timeout", "cpu_s")
    assert 0.2 <= reply.cpu_s < 1.2


def test_the_elapsed_limit_holds_while_a_program_sleeps(backend):
    limits = Limits(wall_s=0.2)
    (reply,) = backend.run([Request("a", "script", b"import time; time.sleep(60)", limits=limits)])
    assert (reply.status, reply.limit_hit) == ("timeout", "wall_s")


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        ("print(input()[::-1])", "pass"),
        ("import sys; sys.stdout.write('cba  \\n\\n\\n')", "pass"),
        ("print('cb')", "fail"),
        ("print(' cba')", "fail"),
        ("print('cba'); raise SystemExit(1)", "error"),
        ("print('cba'); import os; os.kill(os.getpid(), 9)", "killed"),
        ("print('cba'); print('x' * 99999)", "output_limit"),
    ],
)
def test_stdio_compares_outputs_outside(backend, printed, status):
    request = Request("a", "stdio", printed.encode(), stdin=b"abc\n", expected_stdout=b"cba\n")
    (reply,) = backend.run([request])
    assert (reply.status, reply.integrity) == (status, "split")


def test_each_program_finds_an_empty_folder_of_its_own():
    leave = "import os; os.mkdir('d'); open('f', 'w').write('x'); print(os.listdir())"
    look = "import os; print(os.listdir())"
    with open_backend("embedded", n_workers=1) as backend:
        replies = backend.run([script(n, (leave, look)[n % 2]) for n in range(40)])
        found = [reply.stdout for reply in replies]
    assert set(found[1::2]) == {b"[]\n"}
    assert b"[]\n" not in found[0::2]


def test_level_0_runs_programs_when_it_is_asked_for():
    forking = "import os\nchild = os.fork()\nwhile not child: pass\nprint(child)"
    with EmbeddedBackend(0, n_workers=1) as backend:
        first, second, third = backend.run(
            [script(0, forking), script(1, "open('x', 'w')"), function(2)]
        )
        assert (first.status, second.status, third.status) == ("ok", "ok", "pass")
        assert third.isolation == 0
        status = Path(f"/proc/{int(first.stdout)}/status")
        assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_traceback_shows_the_programs_own_frames_only(backend):
    (reply,) = backend.run([script("a", "def f():\n    1 / 0\nf()")])
    lines = reply.stderr.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == '  File "program.py", line 3, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.slow
def test_killing_zygotes_loses_no_request():
    n_requests = 600
    requests = [function(n) if n % 2 else script(n, f"print({n})") for n in range(n_requests)]
    with open_backend("embedded", n_workers=2) as backend:
        seen = []
        for n, reply in enumerate(backend.run(requests)):
            seen.append(reply.id)
            assert reply.status in ("ok", "pass"), reply
            if n % 60 == 30:
                os.kill(next(zygotes(backend)), signal.SIGKILL)
            if n % 120 == 90:
                os.kill(backend.worker_pids[-1], signal.SIGKILL)
        assert seen == [str(n) for n in range(n_requests)]
        assert backend.n_restarts >= n_requests // 120


def test_a_stopped_zygote_does_not_stop_the_other():
    with open_backend("embedded", n_workers=2) as backend:
        stopped = next(zygotes(backend))
        os.kill(stopped, signal.SIGSTOP)
        replies = backend.run([function(n) for n in range(4)])
        os.kill(stopped, signal.SIGCONT)
        assert [reply.status for reply in replies] == ["pass"] * 4


def test_a_request_that_kills_its_workers_is_a_failure_of_the_sandbox():
    with open_backend("embedded", n_workers=1) as backend:
        slow = Request("slow", "script", b"import time; time.sleep(60)", limits=Limits(wall_s=99))
        replies = backend.run([slow, function("next")])
        killer = threading.Thread(target=_kill_each_zygote_once_busy, args=(backend, MAX_DEATHS))
        killer.start()
        first, second = replies
        killer.join()
    assert (first.status, first.sandbox_failure, first.tests) == ("sandbox_error", True, ())
    assert second.status == "pass"


def test_a_caller_who_hangs_up_costs_the_others_nothing():
    slow = Request("slow", "script", b"import time; time.sleep(0.1)")
    with EmbeddedBackend(2, n_workers=1) as backend:
        tickets = [backend.submit(slow), backend.submit(function("behind"))]
        for n in range(MAX_DEATHS):
            backend.forget([backend.submit(function(n))])
        assert backend.n_restarts == 0
        found = _collect(backend, tickets)
        last = backend.submit(function("last"))
        found |= _collect(backend, [last])
        assert {ticket: reply.status for ticket, reply in found.items()} == {
            tickets[0]: "ok",
            tickets[1]: "pass",
            last: "pass",
        }


def test_a_program_that_runs_for_nobody_is_ended_and_those_behind_it_are_not_to_blame():
    with EmbeddedBackend(2, n_workers=1) as backend:
        for n in range(1, MAX_DEATHS + 1):
            running = backend.submit(ENDLESS)
            behind = [backend.submit(function("a")), backend.submit(function("b"))]
            backend.forget([running, behind[0]])
            assert backend.n_restarts == n
            found = _collect(backend, behind[1:])
            assert [(ticket, reply.status) for ticket, reply in found.items()] == [
                (behind[1], "pass")
            ]


def test_a_program_that_nobody_waits_for_when_its_turn_comes_is_ended():
    with EmbeddedBackend(2, n_workers=1) as backend:
        first, forgotten, last = map(backend.submit, (function("a"), ENDLESS, function("b")))
        backend.forget([forgotten])
        found = _collect(backend, [first, last])
        assert {ticket: reply.status for ticket, reply in found.items()} == {
            first: "pass",
            last: "pass",
        }
        assert (backend.n_restarts, backend.n_lost) == (1, 0)


def test_a_worker_that_dies_with_forgotten_requests_leaves_nothing_of_them():
    with EmbeddedBackend(2, n_workers=1) as backend:
        wanted = backend.submit(function("wanted"))
        backend.forget([backend.submit(function(n)) for n in range(3)])
        os.kill(next(zygotes(backend)), signal.SIGKILL)
        assert set(_collect(backend, [wanted])) == {wanted}
        last = backend.submit(function("last"))
        assert set(_collect(backend, [last])) == {last}


def _collect(backend, tickets):
    found = {}
    while not found.keys() >= set(tickets):
        found |= backend.collect()
    return found


def _kill_each_zygote_once_busy(backend, times):
    killed = set()
    while len(killed) < times:
        with suppress(OSError):  # a process looked at may be gone by now
            for zygote in set(zygotes(backend)) - killed:
                children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text()
                if any(_is_locked_down(child) for child in children.split()):
                    os.kill(zygote, signal.SIGKILL)
                    killed.add(zygote)


def _is_locked_down(process):
    return "Seccomp:\t2" in Path(f"/proc/{process}/status").read_text()


def test_nothing_runs_after_close():
    backend = open_backend("embedded", n_workers=2)
    pids = [*backend.worker_pids, *zygotes(backend)]
    backend.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(SandboxError, match="closed"):
        next(backend.run([function("a")]))


def test_workers_end_when_their_user_is_killed():
    program = (
        "import os, signal, trillium_sandbox as s\nb = s.open_backend('embedded', n_workers=1)\n"
        "print(*b.worker_pids, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    worker = int(ended.stdout)
    # The worker is nobody's child now: opening it waits for it to be gone, where it still is.
    try:
        watch = os.pidfd_open(worker)
    except ProcessLookupError:
        return
    readable, _, _ = select.select([watch], [], [], 30)
    os.close(watch)
    assert readable


def test_a_parent_with_threads_and_large_libraries_is_no_hindrance():
    program = (
        "import threading, torch\nfrom trillium_sandbox import Request, open_backend\n"
        "stop = threading.Event()\n"
        "threads = [threading.Thread(target=stop.wait) for _ in range(8)]\n"
        "[t.start() for t in threads]\ntorch.ones(64, 64) @ torch.ones(64, 64)\n"
        "request = Request('a', 'function', b'def f(): return 1', ('assert f() == 1',), 'f')\n"
        "with open_backend('embedded', n_workers=2) as backend:\n"
        "    print(*(r.status for r in backend.run([request] * 5)))\n"
        "stop.set()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=120
    )
    assert ended.stdout.split() == [b"pass"] * 5
