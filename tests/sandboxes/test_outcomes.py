"""The rules by which measurements become a status, without running anything."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium_sandbox import Limits, Request
from trillium_sandbox.outcomes import (
    failed_to_start,
    give_up,
    join_turns,
    lost_judge,
    read_alone,
    read_pair,
    read_turn,
)
from trillium_sandbox.wire import DONE, RECORD
from trillium_sandbox.worker import Job, Outcome, _read_outcome

KILLED = int(signal.SIGKILL)
TESTS = ("assert f(1)", "assert f(2)", "assert f(3)")


def outcome(
    letters="", *, status=KILLED, stopped=b"-", peak=0, outputs=(b"", b"", b""), cpu=0.25, took=0.0
):
    """Return what was measured; `took` is how long each record's test was before it."""
    records = b"".join(RECORD.pack(letter.encode(), took * n) for n, letter in enumerate(letters))
    sizes = tuple(map(len, outputs))
    return Outcome(7, 0.5, status, cpu, peak, stopped, records, outputs, sizes)


def job(first_test=0, **limits):
    request = Request("a", "function", b"", TESTS, "f", limits=Limits(**limits))
    return Job(7, request, first_test)


def judged(letters, *, brought_tests=True, **measured):
    one = job()
    one.brought_tests = brought_tests
    turn = read_turn(one, outcome(letters, **measured))
    return read_pair(one, outcome(letters, **measured), turn, 2, 0)


@pytest.mark.parametrize(
    ("letters", "measured", "tests", "status", "limit"),
    [
        ("srPPP", {}, ["pass"] * 3, "pass", None),
        ("srPfe", {}, ["pass", "fail", "error"], "fail", None),
        ("srePf", {}, ["error", "pass", "fail"], "error", None),
        ("srPmP", {}, ["pass", "error", "pass"], "memory", "memory_bytes"),
        ("srP", {"stopped": b"w"}, ["pass", "timeout"], "timeout", "wall_s"),
        ("srPx", {"stopped": b"w"}, ["pass", "timeout"], "timeout", "wall_s"),
        ("srPx", {"status": 256}, ["pass", "error"], "error", None),
        ("srx", {"status": int(signal.SIGXCPU)}, ["timeout"], "timeout", "cpu_s"),
        ("srPx", {"status": int(signal.SIGXCPU)}, ["pass"], "pass", None),
        ("srPx", {"stopped": b"c", "cpu": 5.0, "took": 1.0}, ["pass"], "pass", None),
        (
            "srPx",
            {"stopped": b"c", "cpu": 5.0, "took": 0.1},
            ["pass", "timeout"],
            "timeout",
            "cpu_s",
        ),
        ("srx", {"stopped": b"c", "cpu": 5.0, "took": 2.0}, ["timeout"], "timeout", "cpu_s"),
        ("sx", {"stopped": b"c", "cpu": 5.0}, ["timeout"] * 3, "timeout", "cpu_s"),
        ("srPx", {"cpu": 7.0}, ["pass", "timeout"], "timeout", "cpu_s"),
        ("srPx", {"cpu": 5.9}, ["pass", "error"], "killed", None),
        ("sx", {}, ["error"] * 3, "killed", None),
        ("srfx", {}, ["fail", "error"], "killed", None),
        ("srPx", {"peak": 250 << 20}, ["pass", "error"], "memory", "memory_bytes"),
        ("srPx", {"stopped": b"h"}, ["pass", "error"], "error", None),
        ("srP", {"stopped": b"k"}, ["pass", "error"], "killed", None),
        ("srP", {}, ["pass", "error"], "error", None),
        ("nsrnPP", {"stopped": b"w"}, ["pass", "pass", "timeout"], "timeout", "wall_s"),
        ("sl", {"status": 256}, ["error"] * 3, "error", None),
        ("s", {"stopped": b"w"}, ["timeout"] * 3, "timeout", "wall_s"),
        ("sx", {"status": int(signal.SIGSEGV)}, ["error"] * 3, "error", None),
        ("srPPPPPPPP", {}, ["pass"] * 3, "pass", None),
        ("srP?P", {}, ["pass", "error"], "error", None),
    ],
)
def test_records_become_verdicts(letters, measured, tests, status, limit):
    reply = judged(letters, **measured)
    assert (list(reply.tests), reply.limit_hit) == (tests, limit)
    if len(tests) == 3 or status != "pass":
        assert reply.status == status


def test_a_verdict_that_leant_is_a_token_even_where_a_test_was_cut_off():
    assert judged("srPPP").integrity == "split"
    assert judged("srPnPP").integrity == "token"
    assert judged("srnP", stopped=b"w").integrity == "token"
    assert judged("snl", status=256).integrity == "token"


def test_a_verdict_beside_a_cut_output_is_a_token():
    whole, cut = (judged("srPPP", outputs=(b"x" * size, b"", b"")) for size in (65536, 65537))
    assert (whole.status, whole.integrity) == ("pass", "split")
    assert (cut.status, cut.integrity, cut.truncated) == ("pass", "token", True)
    said = judged("srfff", outputs=(b"", b"", b"x" * 70000))
    assert (said.status, said.integrity) == ("fail", "split")


def test_a_pair_that_never_locked_down_is_no_verdict():
    assert failed_to_start(job(), outcome(""))
    assert not failed_to_start(job(), outcome("s"))


def test_a_lost_judge_is_to_blame_only_where_its_tests_were_fresh():
    lost = outcome("", stopped=b"j")
    fresh, stale = job(), job()
    fresh.brought_tests = True
    assert lost_judge(fresh, lost)
    assert lost_judge(stale, lost)
    assert failed_to_start(fresh, lost)
    assert not failed_to_start(stale, lost)


@pytest.mark.parametrize("letters", ["", "s", "srP"])
def test_all_of_a_request_goes_again_where_a_judge_that_others_had_was_killed(letters):
    killed = outcome(letters, stopped=b"k")
    own, others = job(), job()
    own.brought_tests = True
    assert lost_judge(others, killed)
    assert not failed_to_start(others, killed)
    assert not lost_judge(own, killed)
    assert judged(letters, stopped=b"k").status == "killed"


def test_a_test_that_ends_its_judge_errs():
    assert judged("srP").tests == ("pass", "error")
    assert judged("srP", brought_tests=False).tests == ("pass", "error")


def test_what_was_killed_in_one_turn_was_killed_in_the_end():
    first, second = judged("srPx"), judged("srP")
    assert [join_turns(*turns).status for turns in ((first, second), (second, first))] == (
        ["killed"] * 2
    )
    assert give_up(first, job().request).status == "killed"


def test_only_a_candidate_that_ended_by_itself_has_an_exit_code():
    assert judged("srPx").exit_code == -9
    assert judged("srPx", stopped=b"h").exit_code is None
    assert judged("srPPP").exit_code is None


def test_turns_join_in_order_and_sum_what_they_cost():
    first, second = judged("srP", stopped=b"w"), judged("srf")
    both = join_turns(first, second)
    assert both.tests[:3] == ("pass", "timeout", "fail")
    assert (both.status, both.wall_s, both.cpu_s) == ("timeout", 1.0, 0.5)


def test_tests_without_a_turn_are_timeouts_in_the_end():
    reply = give_up(judged("srP", stopped=b"w"), job().request)
    assert reply.tests == ("pass", "timeout", "timeout")


@pytest.mark.parametrize(
    ("measured", "status", "limit"),
    [
        ({"status": 0}, "ok", None),
        ({"status": 256}, "error", None),
        ({"status": KILLED}, "killed", None),
        ({"status": KILLED, "peak": 250 << 20}, "memory", "memory_bytes"),
        ({"status": KILLED, "stopped": b"w"}, "timeout", "wall_s"),
        ({"status": KILLED, "stopped": b"c"}, "timeout", "cpu_s"),
        ({"status": KILLED, "cpu": 7.0}, "timeout", "cpu_s"),
        ({"status": int(signal.SIGXCPU)}, "timeout", "cpu_s"),
        ({"status": 256, "outputs": (b"", b"...\nMemoryError\n", b"")}, "memory", "memory_bytes"),
        ({"status": 0, "outputs": (b"x" * 70000, b"", b"")}, "output_limit", "output_bytes"),
    ],
)
def test_an_ending_becomes_a_status(measured, status, limit):
    script = Job(7, Request("a", "script", b""))
    reply = read_alone(script, outcome(**measured), 2, 0)
    assert (reply.status, reply.limit_hit, reply.isolation) == (status, limit, 2)
    assert len(reply.stdout) <= 65536


def test_memory_is_reported_above_an_empty_program():
    script = Job(7, Request("a", "script", b""))
    assert (
        read_alone(script, outcome(status=0, peak=9 << 20), 2, 8 << 20).peak_memory_bytes == 1 << 20
    )
    assert read_alone(script, outcome(status=0, peak=7 << 20), 2, 8 << 20).peak_memory_bytes == 0


LETTERS = st.text(st.sampled_from("srPfemxlnZ"), max_size=12)
ENDINGS = st.sampled_from([0, 256, KILLED, int(signal.SIGXCPU), int(signal.SIGSEGV)])


@pytest.mark.property
@given(LETTERS, ENDINGS, st.sampled_from([b"-", b"w", b"c", b"h", b"k"]))
def test_whatever_a_judge_records_is_read_as_verdicts_that_it_owed(letters, status, stopped):
    reply = judged(letters, status=status, stopped=stopped)
    assert len(reply.tests) <= len(TESTS)
    whole = give_up(reply, job().request)
    assert len(whole.tests) == len(TESTS)
    n_passes = letters.count("P")
    assert whole.tests.count("pass") <= n_passes
    if whole.status == "pass":
        assert "r" in letters
        assert n_passes >= len(TESTS)


@pytest.mark.property
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: bytes(DONE.size) + tail))
def test_a_packet_that_is_no_outcome_means_that_the_zygote_is_lost(packet):
    try:
        read = _read_outcome(b"D" + packet, [])
    except ConnectionResetError:
        return
    assert read.sizes == (0, 0, 0)
