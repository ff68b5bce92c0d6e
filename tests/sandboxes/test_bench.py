"""What ends a candidate, or its judge, before the last verdict, and what it is called."""

import pytest
from trillium_sandbox import Limits, Request

BURNS = b"""
import time
def f(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
    return seconds
"""


def test_tests_that_need_more_processor_time_than_one_process_has_run_in_several(backend):
    limits = Limits(cpu_s=1.0, wall_s=60)
    request = Request("a", "function", BURNS, ("assert f(0.7) == 0.7",) * 4, "f", limits=limits)
    (reply,) = backend.run([request])
    assert (reply.status, reply.tests, reply.limit_hit) == ("pass", ("pass",) * 4, None)
    assert reply.cpu_s >= 2.8


@pytest.mark.parametrize(
    "source",
    [
        BURNS,
        b"import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)" + BURNS,
        BURNS + b"f(9)",
    ],
    ids=["when called", "deaf to signals", "when loaded"],
)
def test_the_processor_limit_of_a_candidate_is_named(backend, source):
    limits = Limits(cpu_s=0.2, wall_s=60)
    tests = ("assert f(0) == 0", "assert f(9) == 9", "assert f(0) == 0")
    (reply,) = backend.run([Request("a", "function", source, tests, "f", limits=limits)])
    assert (reply.status, reply.limit_hit) == ("timeout", "cpu_s")
    assert reply.tests in (("pass", "timeout", "pass"), ("timeout",) * 3)
    assert 0.2 <= reply.cpu_s < 1.8


@pytest.mark.parametrize(
    ("body", "status", "exit_code"),
    [
        ("os.kill(os.getpid(), 9)", "killed", -9),
        ("os.kill(os.getpid(), 11)", "error", -11),
        ("os._exit(3)", "error", 3),
        ("os.close(3); time.sleep(60)", "error", None),
    ],
)
def test_a_candidate_that_is_gone_is_told_from_one_that_hung_up(backend, body, status, exit_code):
    source = f"import os, time\ndef f(): {body}".encode()
    (reply,) = backend.run([Request("a", "function", source, ("assert f() is None",), "f")])
    assert (reply.status, reply.tests, reply.exit_code) == (status, ("error",), exit_code)


@pytest.mark.parametrize(
    ("test", "status"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed"),
        ("import os; os.kill(os.getpid(), 11)", "error"),
        ("import os; os._exit(0)", "error"),
        ("import os; os.closerange(0, 64)", "error"),
    ],
)
def test_a_judge_that_was_killed_is_told_from_one_that_ended(backend, test, status):
    tests = ("assert f() is None", test, "assert f() is None")
    (reply,) = backend.run([Request("a", "function", b"def f(): pass", tests, "f")])
    assert (reply.status, reply.tests) == (status, ("pass", "error", "pass"))
