"""Ranking programs by what they need, on a machine that is busy with other things."""

import contextlib
import os
import subprocess
import sys

import pytest
from trillium_sandbox import Limits, RequestError
from trillium_sandbox.cache import CachedBackend, ResultCache
from trillium_sandbox.meter import Measurement, compare, measure

LOOP = (
    "def f(n):\n    total = 0\n    for i in range({} * n):\n        total += i % 7\n    return 0\n"
)
TESTS = ("assert f(1000) == 0",)
LIMITS = Limits(wall_s=20.0, cpu_s=10.0)


def looping(n_steps):
    return LOOP.format(n_steps).encode()


@contextlib.contextmanager
def a_busy_machine():
    """Keep every core busy twice over."""
    command = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    n_busy = 2 * len(os.sched_getaffinity(0))
    busy = [subprocess.Popen(command) for _ in range(n_busy)]
    try:
        yield
        assert all(process.poll() is None for process in busy)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_programs_10_percent_apart_are_ranked_right_under_load(backend):
    programs = [looping(n_steps) for n_steps in (121, 100, 110)]
    with a_busy_machine():
        slow, fast, middle = measure(
            backend, programs, tests=TESTS, entry_point="f", n_rounds=9, limits=LIMITS
        )
    assert compare(fast, middle).faster == "first"
    assert compare(slow, middle).faster == "second"
    assert compare(slow, fast).faster == "second"
    assert 1.09 < slow.opcode_count / middle.opcode_count < 1.11


def test_counts_are_the_same_every_time(backend):
    programs = [looping(3)] * 4 + [looping(3) + b"\nassert True"]
    found = measure(backend, programs, tests=TESTS, entry_point="f", n_rounds=1, limits=LIMITS)
    counts = [one.opcode_count for one in found]
    assert counts[:4] == [counts[0]] * 4
    assert 3000 * 6 < counts[0] < 3000 * 15


def test_a_program_that_fails_is_left_out_with_its_status(backend):
    programs = [b"def f(n): return 1", looping(1), b"def f(n):\n    while True: pass", b"f = 5"]
    limits = Limits(wall_s=0.3, cpu_s=5.0)
    found = measure(backend, programs, tests=TESTS, entry_point="f", n_rounds=2, limits=limits)
    assert [one.status for one in found] == ["fail", "pass", "timeout", "error"]
    assert [one.cpu_s is None for one in found] == [True, False, True, True]
    assert [one.opcode_count is None for one in found] == [True, False, True, True]


def test_no_round_is_a_replay_of_another(backend, tmp_path):
    cache = ResultCache(tmp_path / "cache", backend="embedded", level=backend.level)
    cached = CachedBackend(backend, cache)
    measure(cached, [looping(1)] * 2, tests=TESTS, entry_point="f", n_rounds=3, limits=LIMITS)
    assert (cache.n_hits, cache.n_misses) == (0, 8)
    cache.close()


def test_no_programs_have_no_measurements(backend):
    assert measure(backend, [], tests=TESTS, entry_point="f", limits=LIMITS) == []


def test_no_rounds_are_refused(backend):
    with pytest.raises(RequestError, match="n_rounds = 0"):
        measure(backend, [b""], tests=TESTS, entry_point="f", n_rounds=0, limits=LIMITS)


@pytest.mark.parametrize(
    ("first", "second", "faster", "ratio", "reason"),
    [
        ((1.0, 100), (2.0, 200), "first", 2.0, "CPU time and opcodes"),
        ((2.0, 200), (1.0, 100), "second", 2.0, "CPU time and opcodes"),
        ((1.0, 100), (1.05, 110), "first", 1.1, "opcodes, CPU times within noise"),
        ((1.05, 100), (1.0, 110), "first", 1.1, "opcodes, CPU times within noise"),
        ((1.0, 1000), (1.05, 1001), None, 1.001, "both meters within noise"),
        ((1.0, 1000), (3.0, 1001), "first", 3.0, "CPU time, opcode counts equal"),
        ((1.0, 200), (1.5, 100), None, 1.5, "the meters disagree: CPU time says first, opcodes"),
        ((1.0, None), (1.5, 100), "first", 1.5, "CPU time alone"),
        ((1.0, None), (1.05, None), None, 1.05, "CPU times within noise, opcodes not counted"),
    ],
)
def test_two_meters_make_one_comparison(first, second, faster, ratio, reason):
    found = compare(Measurement("pass", *first), Measurement("pass", *second))
    assert (found.faster, found.ratio) == (faster, pytest.approx(ratio))
    assert found.reason.startswith(reason)


def test_the_tie_is_the_callers(backend):
    near = Measurement("pass", 1.0, 100), Measurement("pass", 1.08, 100)
    assert compare(*near).faster is None
    assert compare(*near, tie=0.05).faster == "first"


def test_a_failed_program_is_not_compared():
    with pytest.raises(RequestError, match="ended with fail and pass; compare programs that pass"):
        compare(Measurement("fail"), Measurement("pass", 1.0))
