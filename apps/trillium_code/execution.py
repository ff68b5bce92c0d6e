"""Run programs against tests in the sandbox and turn its replies into pass/fail matrices.

A failure of the sandbox is never a wrong answer: its program is left out and counted. Nothing here
depends on the clock, so that the same programs give the same rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from trillium_sandbox import Backend, Limits, Reply, Request, open_backend

_HIGHEST_LEVEL = 2
"""The strongest isolation of the embedded backend, the only one there is."""


class SandboxConfig(BaseModel):
    """Choose where programs run and what they may use; the limits hold for one program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["embedded"] = Field("embedded", description="embedded")
    min_level: int = Field(2, ge=0, description="isolation below which nothing is executed")
    allow_unsafe: bool = Field(False, description="run below the required level all the same")
    n_workers: int | None = Field(None, gt=0, description="programs at once; null = by processor")
    wall_s: float = Field(3.0, gt=0, description="seconds for a program with all its tests")
    memory_bytes: int = Field(256 << 20, gt=0, description="memory of a program")
    n_runs: int = Field(2, ge=1, description="runs of each program; tests that differ are flaky")

    @field_validator("min_level")
    @classmethod
    def _within_reach(cls, level: int) -> int:
        if level > _HIGHEST_LEVEL:
            raise ValueError(
                f"the embedded backend reaches level {_HIGHEST_LEVEL}; set {_HIGHEST_LEVEL}, or "
                "lower it knowingly"
            )
        return level

    @property
    def limits(self) -> Limits:
        """Return the limits of one program."""
        return Limits(wall_s=self.wall_s, cpu_s=self.wall_s, memory_bytes=self.memory_bytes)

    def open(self) -> Backend:
        """Start the backend; raises SandboxError when this machine cannot isolate enough."""
        return open_backend(
            self.backend,
            min_level=self.min_level,
            n_workers=self.n_workers,
            allow_unsafe=self.allow_unsafe,
        )


@dataclass(frozen=True)
class Job:
    """Hold one program, the function it must define, and the tests to run against it."""

    id: str
    program: str
    entry_point: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """Say what became of a job: one flag per test, or a failure of the sandbox.

    `is_flaky` marks tests whose result differs between runs; such a test counts as failed here.
    """

    id: str
    passed: tuple[bool, ...]
    is_flaky: tuple[bool, ...]
    is_sandbox_failure: bool

    @property
    def passed_all(self) -> bool:
        """Say whether every test passed in every run."""
        return not self.is_sandbox_failure and all(self.passed)


def execute(
    groups: Iterable[Sequence[Job]], backend: Backend, config: SandboxConfig, *, n_runs: int
) -> Iterator[list[Outcome]]:
    """Yield the outcomes of each group of jobs, in order, as soon as the group is done.

    Jobs are handed to the sandbox as it asks for them, so that groups may come from a long run.
    """
    waiting, coming = tee(groups)
    requests = (
        _request(job, run, config.limits)
        for group in coming
        for job in group
        for run in range(n_runs)
    )
    replies = iter(backend.run(requests))
    for group in waiting:
        yield [_outcome(job, [next(replies) for _ in range(n_runs)]) for job in group]


def _request(job: Job, run: int, limits: Limits) -> Request:
    return Request(
        id=f"{job.id}#{run}",
        mode="function",
        source=job.program.encode("utf-8", "replace"),
        tests=job.tests,
        entry_point=job.entry_point,
        limits=limits,
    )


def _outcome(job: Job, replies: Sequence[Reply]) -> Outcome:
    if any(reply.sandbox_failure for reply in replies):
        n_tests = len(job.tests)
        return Outcome(job.id, (False,) * n_tests, (False,) * n_tests, is_sandbox_failure=True)
    rows = [_flags(reply, len(job.tests)) for reply in replies]
    columns = list(zip(*rows, strict=True))
    return Outcome(
        job.id,
        passed=tuple(all(column) for column in columns),
        is_flaky=tuple(any(column) and not all(column) for column in columns),
        is_sandbox_failure=False,
    )


def _flags(reply: Reply, n_tests: int) -> list[bool]:
    """Return one flag per test; tests that were never reached have failed."""
    flags = [result == "pass" for result in reply.tests[:n_tests]]
    return flags + [False] * (n_tests - len(flags))
