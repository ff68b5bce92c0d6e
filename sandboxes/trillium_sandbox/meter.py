"""Compare the efficiency of programs on a busy machine: CPU time, with opcode counts beside it.

CPU time is measured outside the program, and its minimum over several rounds is what the program
needs; still, under load two programs 10 % apart change places. The opcode count never wavers, but
it is blind to work inside C functions, and the program could falsify it. So CPU time decides
where it is clear, the count breaks ties, and where they contradict each other nobody is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trillium_sandbox.base import Backend
from trillium_sandbox.errors import RequestError
from trillium_sandbox.limits import Limits
from trillium_sandbox.verdicts import Reply, Request, Status

SLOWDOWN = 60
"""How much longer a program may take while its opcodes are counted."""

_OPCODE_TIE = 0.01
"""Counts nearer to each other than this are equal: the same work, written in another way."""

_DAY_S = 86400.0

Side = Literal["first", "second"]


@dataclass(frozen=True)
class Measurement:
    """What one program needs; nothing but the status when it failed in any round.

    `cpu_s` includes starting the program's process, about a millisecond: give programs inputs that
    take many times that. `opcode_count` is None when the program did not survive being counted.
    """

    status: Status
    cpu_s: float | None = None
    opcode_count: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Which of two programs needs less, by which factor, and by which meter; or why none does."""

    faster: Side | None
    ratio: float
    reason: str


def measure(
    backend: Backend,
    programs: Sequence[bytes],
    *,
    tests: tuple[str, ...],
    entry_point: str | None,
    n_rounds: int = 7,
    limits: Limits,
) -> list[Measurement]:
    """Return what each of `programs` needs to pass `tests`.

    Rounds are interleaved, A B C A B C, so that a busy moment hurts all of them alike; a program
    that fails once drops out with its status. Survivors run once more to have opcodes counted.
    """
    if n_rounds < 1:
        raise RequestError(f"measure: n_rounds = {n_rounds} (at least 1)")
    found: dict[int, Measurement] = {}
    left = list(range(len(programs)))
    for run in range(n_rounds):
        requests = [
            Request(str(n), "function", programs[n], tests, entry_point, limits=limits, run=run)
            for n in left
        ]
        for number, reply in zip(left, backend.run(requests), strict=True):
            found[number] = _after(found.get(number), reply)
        left = [number for number in left if found[number].cpu_s is not None]
    counted = [
        Request(
            str(number),
            "function",
            programs[number],
            tests,
            entry_point,
            limits=_widened(limits),
            count_opcodes=True,
        )
        for number in left
    ]
    for number, reply in zip(left, backend.run(counted), strict=True):
        if reply.status == "pass":
            found[number] = replace(found[number], opcode_count=reply.opcode_count)
    return [found[number] for number in range(len(programs))]


def compare(first: Measurement, second: Measurement, *, tie: float = 0.1) -> Comparison:
    """Return which measurement is smaller; `tie` is how far CPU times must be apart to count.

    Raises RequestError when one of the programs failed: there is nothing to compare.
    """
    if first.cpu_s is None or second.cpu_s is None:
        raise RequestError(
            f"compare: the programs ended with {first.status} and {second.status}; "
            "compare programs that pass"
        )
    by_cpu, cpu_ratio = _order(first.cpu_s, second.cpu_s, tie)
    if first.opcode_count is None or second.opcode_count is None:
        reason = "CPU time alone" if by_cpu else "CPU times within noise, opcodes not counted"
        return Comparison(by_cpu, cpu_ratio, reason)
    by_opcodes, opcode_ratio = _order(first.opcode_count, second.opcode_count, _OPCODE_TIE)
    if by_cpu is None:
        reason = "opcodes, CPU times within noise" if by_opcodes else "both meters within noise"
        return Comparison(by_opcodes, opcode_ratio, reason)
    if by_opcodes is None:
        return Comparison(by_cpu, cpu_ratio, "CPU time, opcode counts equal")
    if by_opcodes != by_cpu:
        reason = f"the meters disagree: CPU time says {by_cpu}, opcodes say {by_opcodes}"
        return Comparison(None, cpu_ratio, reason)
    return Comparison(by_cpu, cpu_ratio, "CPU time and opcodes")


def _after(before: Measurement | None, reply: Reply) -> Measurement:
    if reply.status != "pass":
        return Measurement(reply.status)
    least = (
        reply.cpu_s if before is None or before.cpu_s is None else min(before.cpu_s, reply.cpu_s)
    )
    return Measurement("pass", least)


def _widened(limits: Limits) -> Limits:
    return replace(
        limits,
        wall_s=min(limits.wall_s * SLOWDOWN, _DAY_S),
        cpu_s=min(limits.cpu_s * SLOWDOWN, _DAY_S),
    )


def _order(first: float, second: float, tie: float) -> tuple[Side | None, float]:
    """Return which is smaller by more than `tie`, and how many times the other is as large."""
    small, large = sorted((first, second))
    ratio = large / small if small > 0 else float("inf") if large > 0 else 1.0
    if ratio <= 1 + tie:
        return None, ratio
    return ("first" if first < second else "second"), ratio
