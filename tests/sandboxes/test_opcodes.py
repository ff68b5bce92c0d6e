"""Counting instructions: what is counted, and what a program can do about it."""

import pytest
from trillium_sandbox import Limits, Request

LOOP = "def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return total\n"


@pytest.fixture
def count(backend):
    """Return a function: source, and tests if any -> the reply, opcodes counted."""

    def run(source, *tests, entry_point=None, limits=None):
        mode = "function" if tests else "script"
        request = Request(
            "one",
            mode,
            source.encode(),
            tests,
            entry_point,
            limits=limits or Limits(),
            count_opcodes=True,
        )
        (reply,) = backend.run([request])
        return reply

    return run


def test_the_count_grows_by_the_same_number_with_every_turn_of_a_loop(count):
    ten, twenty, thirty = (count(f"{LOOP}f({n})").opcode_count for n in (10, 20, 30))
    assert twenty - ten == thirty - twenty
    assert 40 <= twenty - ten <= 100


def test_the_count_is_the_same_in_every_run(count):
    assert len({count(f"{LOOP}f(1000)").opcode_count for _ in range(8)}) == 1


def test_calls_of_the_judge_count_and_the_judge_does_not(count):
    long_test = "x = [i for i in range(5000)]\nassert f(100) == 4950"
    short = count(LOOP, "assert f(100) == 4950", entry_point="f").opcode_count
    assert count(LOOP, long_test, entry_point="f").opcode_count == short
    both = count(LOOP, "assert f(100) == 4950", "assert f(100) == 4950", entry_point="f")
    assert 400 < both.opcode_count - short < 1000


def test_generators_and_imports_count(count):
    generator = "g = (i for i in range(1000))\nx = sum(g)"
    assert count(generator).opcode_count > 3000
    assert count("import dataclasses").opcode_count > 10000


def test_a_count_is_there_after_an_error_and_an_exit(count):
    for ending in ("1 / 0", "raise SystemExit(3)"):
        reply = count(f"{LOOP}f(1000)\n{ending}")
        assert reply.status == "error"
        assert reply.opcode_count > 4000


def test_nobody_counts_unasked(backend):
    replies = backend.run([Request(str(n), "script", b"pass") for n in range(4)])
    assert [reply.opcode_count for reply in replies] == [None] * 4


def test_a_program_that_ends_hard_or_hides_the_file_has_no_count(count):
    for source in ("import os\nos._exit(0)", "import os\nos.close(3)"):
        reply = count(source)
        assert (reply.status, reply.opcode_count) == ("ok", None)


def test_a_program_can_falsify_its_own_count_and_nobody_elses(count):
    forged = count("import os, struct\nos.pwrite(3, struct.pack('<Q', 7), 0)\nos._exit(0)")
    assert forged.opcode_count == 7
    counts = {count(f"{LOOP}f(10)").opcode_count for _ in range(4)}
    assert len(counts) == 1
    assert 7 not in counts


def test_a_program_that_grows_its_count_file_is_refused_by_the_kernel(count):
    reply = count("import os\nos.pwrite(3, b'x' * 4096, 0)")
    assert b"PermissionError" in reply.stderr


def test_a_counted_program_that_runs_out_of_time_has_no_count(count):
    reply = count("while True: pass", limits=Limits(wall_s=0.2))
    assert (reply.status, reply.opcode_count) == ("timeout", None)
