"""From what a zygote measured to a reply: the only place where a status is decided.

Nothing here was written by the program itself but its outputs, and, in script mode, its exit code.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace

from trillium_sandbox.verdicts import Integrity, Reply, Request, Status, TestStatus
from trillium_sandbox.wire import HUNG_UP, JUDGE_KILLED, LEANT, NO_JUDGE, RECORD
from trillium_sandbox.worker import Job, Outcome

N_BUDGETS = 3
"""Tests cut off by the end of a process run again, in fresh ones, until the request has taken
`N_BUDGETS * wall_s`; those still left are reported as timeouts."""

_VERDICTS: dict[bytes, TestStatus] = {
    b"P": "pass",
    b"f": "fail",
    b"e": "error",
    b"m": "error",
}
_STOPPED = {b"w": "wall_s", b"c": "cpu_s"}
_NEAR_LIMIT = 0.9


@dataclass(frozen=True)
class Turn:
    """What one pair of processes decided about a request's tests, in order from the first left."""

    verdicts: tuple[TestStatus, ...]
    first_limit: str | None
    leant: bool
    loaded: bool
    was_killed: bool
    """Whether a process ended by SIGKILL that no limit explains, as when the machine is out of
    memory."""


def failed_to_start(job: Job, outcome: Outcome) -> bool:
    """Return whether the sandbox, not the program, is to blame for what happened."""
    if lost_judge(job, outcome):
        return job.brought_tests and outcome.stopped == NO_JUDGE
    return job.request.mode == "function" and b"s" not in _letters(outcome)


def lost_judge(job: Job, outcome: Outcome) -> bool:
    """Return whether the request goes again, with its tests: its candidate found no judge.

    Or it lost one that others had before, whose memory they may have taken.
    """
    is_killed = outcome.stopped == JUDGE_KILLED and not job.brought_tests
    return outcome.stopped == NO_JUDGE or is_killed


def read_alone(job: Job, outcome: Outcome, level: int, baseline_bytes: int) -> Reply:
    """Return the reply to a script or stdio request."""
    request = job.request
    measured = _measured(job, outcome, level, baseline_bytes)
    code = os.waitstatus_to_exitcode(outcome.status)
    status, limit = _ending(request, outcome, code, baseline_bytes)
    if outcome.sizes[0] > request.limits.output_bytes or (
        outcome.sizes[1] > request.limits.output_bytes
    ):
        status, limit = ("output_limit", "output_bytes") if limit is None else (status, limit)
    integrity: Integrity = "token"
    if request.mode == "stdio" and request.expected_stdout is not None:
        integrity = "split"
        if status == "ok":
            status = "pass" if _same(measured.stdout, request.expected_stdout) else "fail"
    return replace(measured, status=status, exit_code=code, limit_hit=limit, integrity=integrity)


def read_turn(job: Job, outcome: Outcome) -> Turn:
    """Return what a pair of processes decided before it ended."""
    letters = [letter for letter in _letters(outcome) if letter != LEANT]
    leant = LEANT in _letters(outcome)
    n_left = len(job.request.tests) - job.first_test
    was_killed = _was_killed(job, outcome, letters)
    if b"r" not in letters:
        status, limit = _loading(job, outcome)
        return Turn((status,) * n_left, limit, leant, False, was_killed)
    letters = letters[letters.index(b"r") + 1 :]
    verdicts: list[TestStatus] = []
    first_limit = None
    for letter in letters[:n_left]:
        verdict = _VERDICTS.get(letter)
        if verdict is None:
            break
        if letter == b"m":
            first_limit = first_limit or "memory_bytes"
        verdicts.append(verdict)
    if len(verdicts) < n_left:
        verdict, limit = _cut_short(job, outcome, letters, is_first=not verdicts)
        verdicts += [verdict] if verdict is not None else []
        first_limit = first_limit or limit
    return Turn(tuple(verdicts), first_limit, leant, True, was_killed)


def read_pair(job: Job, outcome: Outcome, turn: Turn, level: int, baseline_bytes: int) -> Reply:
    """Return the reply to a function request as far as this turn goes."""
    measured = _measured(job, outcome, level, baseline_bytes)
    # What it wrote past Python's own streams was refused beyond the limit.
    was_cut = max(outcome.sizes[:2]) > job.request.limits.output_bytes
    ended_by_itself = b"x" in _letters(outcome) and outcome.stopped != HUNG_UP
    return replace(
        measured,
        status="killed" if turn.was_killed else _overall(turn.verdicts, turn.first_limit),
        tests=turn.verdicts,
        exit_code=os.waitstatus_to_exitcode(outcome.status) if ended_by_itself else None,
        limit_hit=turn.first_limit,
        integrity="token" if turn.leant or was_cut else "split",
    )


def join_turns(first: Reply, second: Reply) -> Reply:
    """Return one reply for two turns of the same request."""
    tests = first.tests + second.tests
    limit = first.limit_hit or second.limit_hit
    was_killed = "killed" in (first.status, second.status)
    return replace(
        first,
        status="killed" if was_killed else _overall(tests, limit),
        tests=tests,
        stdout=first.stdout + second.stdout,
        stderr=first.stderr + second.stderr,
        truncated=first.truncated or second.truncated,
        exit_code=second.exit_code,
        wall_s=first.wall_s + second.wall_s,
        cpu_s=first.cpu_s + second.cpu_s,
        peak_memory_bytes=max(first.peak_memory_bytes, second.peak_memory_bytes),
        opcode_count=None,  # a second process has loaded the candidate once more
        limit_hit=limit,
        integrity="token" if "token" in (first.integrity, second.integrity) else "split",
    )


def give_up(reply: Reply, request: Request) -> Reply:
    """Return `reply` with the tests that got no turn as timeouts, its outputs within the limit."""
    n_left = len(request.tests) - len(reply.tests)
    left: list[TestStatus] = ["timeout"] * n_left
    tests = (*reply.tests, *left)
    limit = reply.limit_hit or ("wall_s" if n_left else None)
    most = request.limits.output_bytes
    return replace(
        reply,
        tests=tests,
        status="killed" if reply.status == "killed" else _overall(tests, limit),
        limit_hit=limit,
        truncated=reply.truncated or len(reply.stdout) > most or len(reply.stderr) > most,
        stdout=reply.stdout[:most],
        stderr=reply.stderr[:most],
    )


def _letters(outcome: Outcome) -> list[bytes]:
    return [letter for letter, _ in RECORD.iter_unpack(outcome.records)]


def _measured(job: Job, outcome: Outcome, level: int, baseline_bytes: int) -> Reply:
    most = job.request.limits.output_bytes
    stdout, stderr, said = outcome.outputs
    return Reply(
        id=job.request.id,
        status="error",
        stdout=stdout[:most],
        stderr=(stderr + said)[:most],
        truncated=max(outcome.sizes) > most,
        wall_s=outcome.wall_s,
        cpu_s=outcome.cpu_s,
        peak_memory_bytes=max(0, outcome.peak_bytes - baseline_bytes),
        isolation=level,
        opcode_count=outcome.opcode_count,
    )


def _ending(
    request: Request, outcome: Outcome, code: int, baseline_bytes: int
) -> tuple[Status, str | None]:
    """Read how a process ended: its status, and the limit that ended it."""
    if outcome.stopped in _STOPPED:
        return "timeout", _STOPPED[outcome.stopped]
    # A program can ignore the first signal of the kernel's limit; the second is SIGKILL.
    is_spent = outcome.cpu_s >= request.limits.cpu_rlimit_s
    if code == -signal.SIGXCPU or (code == -signal.SIGKILL and is_spent):
        return "timeout", "cpu_s"
    last = outcome.outputs[1].rstrip().rpartition(b"\n")[2]
    peak = outcome.peak_bytes - baseline_bytes
    if code == 1 and last.startswith(b"MemoryError"):
        return "memory", "memory_bytes"
    if code < 0 and peak >= _NEAR_LIMIT * request.limits.memory_bytes:
        return "memory", "memory_bytes"
    if code < 0:
        return "killed", None
    return ("ok" if code == 0 else "error"), None


def _loading(job: Job, outcome: Outcome) -> tuple[TestStatus, str | None]:
    if outcome.stopped in _STOPPED:
        return "timeout", _STOPPED[outcome.stopped]
    code = os.waitstatus_to_exitcode(outcome.status)
    status, limit = _ending(job.request, outcome, code, 0)
    return ("timeout" if status == "timeout" else "error"), limit


def _cut_short(
    job: Job, outcome: Outcome, letters: list[bytes], *, is_first: bool
) -> tuple[TestStatus | None, str | None]:
    """Read the verdict on the test during which a process ended; None when it shall run again."""
    if outcome.stopped == b"w":
        return "timeout", "wall_s"
    code = os.waitstatus_to_exitcode(outcome.status)
    status, limit = _ending(job.request, outcome, code, 0)
    if status == "timeout":
        # The process's CPU time is spent, but not always by this test.
        is_own = is_first or _spent_last(outcome) >= _NEAR_LIMIT * job.request.limits.cpu_s
        return ("timeout", limit) if is_own else (None, None)
    # Without an x, the test ended the judge's own process.
    return "error", limit if b"x" in letters else None


def _spent_last(outcome: Outcome) -> float:
    """Return the CPU seconds left for the last test, had all before it computed all the time."""
    records = RECORD.iter_unpack(outcome.records)
    times = [at for letter, at in records if letter not in (b"x", LEANT)]
    return float(outcome.cpu_s - (times[-1] - times[0]))


def _was_killed(job: Job, outcome: Outcome, letters: list[bytes]) -> bool:
    if outcome.stopped == JUDGE_KILLED:
        return True
    if outcome.stopped != b"-" or b"x" not in letters:
        return False
    code = os.waitstatus_to_exitcode(outcome.status)
    return code == -signal.SIGKILL and _ending(job.request, outcome, code, 0)[0] == "killed"


def _overall(tests: tuple[TestStatus, ...], limit: str | None) -> Status:
    """Return the first verdict that is not a pass; an error at a limit is named by the limit."""
    worst = next((test for test in tests if test != "pass"), None)
    if worst is None:
        return "pass"
    if worst == "error" and limit == "memory_bytes":
        return "memory"
    return worst


def _same(printed: bytes, expected: bytes) -> bool:
    """Compare outputs line by line, blind to trailing spaces and trailing empty lines."""
    lines = [line.rstrip() for line in printed.rstrip().split(b"\n")]
    return lines == [line.rstrip() for line in expected.rstrip().split(b"\n")]
