"""Run programs against tests in the sandbox and turn its replies into pass/fail matrices.

A failure of the sandbox is never a wrong answer: its program is left out and counted. Nothing here
depends on the clock, so that the same programs give the same rows.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, tee
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from trillium.errors import ConfigError
from trillium_sandbox import Backend, Limits, Reply, Request, open_backend

_SHARE_AHEAD = 4
"""A quarter of a backend's window is enough to keep its workers busy: four programs for each."""

_HIGHEST_LEVEL = {"embedded": 2, "docker": 5, "http": 5}
"""The strongest isolation that each backend can have."""


class SandboxConfig(BaseModel):
    """Choose where programs run and what they may use; the limits hold for one program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["embedded", "docker", "http"] = Field(
        "embedded", description="embedded | docker | http (a sandbox service)"
    )
    min_level: int = Field(2, ge=0, description="isolation below which nothing is executed")
    allow_unsafe: bool = Field(False, description="run below the required level all the same")
    runtime: str | None = Field(None, description="of docker: runsc, kata; null = its own")
    url: str | None = Field(None, description="of the service, for backend http")
    token_variable: str = Field("", description="environment variable with the service's token")
    n_workers: int | None = Field(None, gt=0, description="programs at once; null = by processor")
    wall_s: float = Field(
        3.0,
        gt=0,
        description="seconds to load a program, and for each test; processor seconds for all of it",
    )
    memory_bytes: int = Field(256 << 20, gt=0, description="memory of a program")
    n_runs: int = Field(2, ge=1, description="runs of each program; tests that differ are flaky")
    repeats_after_kill: bool = Field(
        True,
        description="run again what was under way at a kill, to the same result as without one; "
        "false = leave it out, so that nothing is ever executed twice",
    )

    @field_validator("min_level")
    @classmethod
    def _within_reach(cls, level: int, info: ValidationInfo) -> int:
        backend = info.data.get("backend", "embedded")
        highest = _HIGHEST_LEVEL[backend]
        if level > highest:
            raise ValueError(
                f"the {backend} backend reaches level {highest}; set {highest}, or "
                "lower it knowingly"
            )
        return level

    @property
    def limits(self) -> Limits:
        """Return the limits of one program."""
        return Limits(wall_s=self.wall_s, cpu_s=self.wall_s, memory_bytes=self.memory_bytes)

    def open(self) -> Backend:
        """Start the backend; raises SandboxError when this machine cannot isolate enough.

        Raises ConfigError when the service's token is not where it was said to be.
        """
        token = None
        if self.token_variable:
            token = os.environ.get(self.token_variable)
            if not token:
                raise ConfigError(
                    f"sandbox.token_variable = {self.token_variable}: is not set (the token for "
                    f"{self.url} was expected in it); export it"
                )
        return open_backend(
            self.backend,
            min_level=self.min_level,
            n_workers=self.n_workers,
            allow_unsafe=self.allow_unsafe,
            runtime=self.runtime,
            url=self.url,
            token=token,
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
    `has_leant` says that a pass rests on what the program said of itself (`integrity: token`).
    """

    id: str
    passed: tuple[bool, ...]
    is_flaky: tuple[bool, ...]
    is_sandbox_failure: bool
    has_leant: bool = False

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


@runtime_checkable
class Ticketed(Protocol):
    """A backend that gives tickets for requests and replies in any order: all but the cluster's."""

    @property
    def window(self) -> int:
        """Return how many requests under way keep every worker busy."""
        ...

    def submit(self, request: Request) -> int:
        """Take a request and return its ticket."""
        ...

    def collect(self) -> dict[int, Reply]:
        """Return the replies that have come, by ticket; wait for the first one."""
        ...


def run_jobs(
    jobs: Iterable[Job],
    backend: Backend,
    config: SandboxConfig,
    note: Callable[[Sequence[Outcome], Sequence[Job]], None],
) -> Iterator[Outcome]:
    """Yield the outcome of each job as soon as it is known, whatever its place in the list.

    `note(finished, starting)` is called before the jobs `starting` are handed to the sandbox, and
    with every outcome before it is yielded. At most a quarter of what fills the backend is under
    way, or what a cluster's nodes are sent: that is what a kill leaves without a verdict. A program
    that ran out of time and passed no test is not run again, except on a cluster.
    """
    if isinstance(backend, Ticketed):
        yield from _run_by_ticket(jobs, backend, config, note)
        return
    order, coming = tee(jobs)

    def requests() -> Iterator[Request]:
        for job in coming:
            note((), (job,))
            yield from (_request(job, run, config.limits) for run in range(config.n_runs))

    replies = iter(backend.run(requests()))
    for job in order:
        outcome = _outcome(job, [next(replies) for _ in range(config.n_runs)])
        note((outcome,), ())
        yield outcome


def _run_by_ticket(
    jobs: Iterable[Job],
    backend: Ticketed,
    config: SandboxConfig,
    note: Callable[[Sequence[Outcome], Sequence[Job]], None],
) -> Iterator[Outcome]:
    source = iter(jobs)
    n_ahead = max(1, backend.window // _SHARE_AHEAD)
    tickets: dict[int, Job] = {}
    replies: dict[str, list[Reply]] = {}
    finished: list[Outcome] = []
    again: list[Job] = []
    while True:
        starting = list(islice(source, max(0, n_ahead - len(tickets) - len(again))))
        note(finished, starting)
        yield from finished
        for job in (*again, *starting):
            run = len(replies.setdefault(job.id, []))
            tickets[backend.submit(_request(job, run, config.limits))] = job
        if not tickets:
            return
        finished, again = [], []
        for ticket, reply in backend.collect().items():
            job = tickets.pop(ticket)
            replies[job.id].append(reply)
            if len(replies[job.id]) == config.n_runs or _is_endless(reply):
                finished.append(_outcome(job, replies.pop(job.id)))
            else:
                again.append(job)


def _is_endless(reply: Reply) -> bool:
    """Say whether a program used up its time and passed nothing: another run would tell no more."""
    return "timeout" in reply.tests and "pass" not in reply.tests


def _request(job: Job, run: int, limits: Limits) -> Request:
    return Request(
        id=f"{job.id}#{run}",
        mode="function",
        source=job.program.encode("utf-8", "replace"),
        tests=job.tests,
        entry_point=job.entry_point,
        limits=limits,
        run=run,
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
        has_leant=any(reply.integrity == "token" and "pass" in reply.tests for reply in replies),
    )


def _flags(reply: Reply, n_tests: int) -> list[bool]:
    """Return one flag per test; tests that were never reached have failed."""
    flags = [result == "pass" for result in reply.tests[:n_tests]]
    return flags + [False] * (n_tests - len(flags))
