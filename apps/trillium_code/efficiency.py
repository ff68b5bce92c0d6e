"""Fast against slow among programs that are right by the model's own tests, and the speed gained.

The sandbox's meter decides: CPU time where it is clear, opcode counts where it is not, nobody where
the two contradict each other, or where both programs need too little beyond being loaded. Its
clock makes these rows differ from run to run; they are written once and then kept.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from pydantic import BaseModel, ConfigDict, Field
from trillium.progress import Progress
from trillium.runs import Stage
from trillium_sandbox import Backend
from trillium_sandbox.meter import Comparison, Measurement, compare, measure

from trillium_code.execution import SandboxConfig
from trillium_code.pairs import Ranking
from trillium_code.records import (
    CodePair,
    TaskMatrix,
    TaskMeters,
    TaskResult,
    TaskSamples,
    TaskSpeed,
    read_records,
    to_row,
)
from trillium_code.tasks import CodeTask

_NOISE_SHARE = 0.5
"""Of the time to load a program, what is lost in its noise: five times the tie of `compare`."""

METER = {"cost": "beyond loading"}
"""What the meter measures, for the inputs of the stages that use it."""

_ONLY_LOADED = ("try:\n    no_name_of_the_program\nexcept NameError:\n    pass",)
"""A test that runs nothing of a program; the question is answered where opcodes are counted."""


class EfficiencyConfig(BaseModel):
    """Choose how the speed of programs is measured and when it makes a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_ratio: float = Field(1.2, gt=1, description="cost of the rejected over the chosen program")
    n_rounds: int = Field(7, ge=3, description="interleaved runs of each program; the least counts")
    max_programs: int = Field(6, ge=2, description="programs of a task that are measured")


@dataclass(frozen=True)
class Race:
    """Hold the programs of one task to be measured, and what each must pass."""

    task_id: str
    entry_point: str
    programs: tuple[int, ...]
    sources: tuple[str, ...]
    tests: tuple[str, ...]


def plan_race(
    samples: TaskSamples,
    matrix: TaskMatrix,
    ranking: Ranking,
    entry_point: str,
    config: EfficiencyConfig,
) -> Race | None:
    """Return the programs that pass every credible test of the task, or None below two of them.

    Credible are the kept tests that the best program passes (CodeDPO, arXiv 2410.05605,
    Section 3.3). A task without a correctness pair has no best program to believe, and a program of
    which every sample was cut off is no candidate.
    """
    if not ranking.pairs:
        return None
    best = ranking.pairs[0].chosen
    tests = [test for test in ranking.census.kept if matrix.passed[best][test]]
    able = [
        program
        for program in matrix.steady
        if all(matrix.passed[program][test] for test in tests)
        and any(samples.samples[member].finish == "stop" for member in matrix.members[program])
    ][: config.max_programs]
    if len(able) < 2:
        return None
    return Race(
        matrix.task_id,
        entry_point,
        tuple(able),
        tuple(matrix.programs[program] for program in able),
        tuple(matrix.tests[test] for test in tests),
    )


def measure_stage(
    stage: Stage,
    output: str,
    races: Sequence[Race],
    config: EfficiencyConfig,
    sandbox: SandboxConfig,
) -> list[TaskMeters]:
    """Return what the programs of each race cost; when the stage is due, measure what is missing.

    One worker runs them, so that programs do not slow each other down.
    """
    if stage.is_due:
        with (
            stage.rows(output, key="task_id") as rows,
            sandbox.model_copy(update={"n_workers": 1}).open() as backend,
        ):
            due = [race for race in races if race.task_id not in rows.finished]
            for meters in _run(stage, backend, due, len(races), config, sandbox):
                rows.append(to_row(meters))
        measured = read_records(stage.work / output, TaskMeters)
        n_programs = sum(len(meters.programs) for meters in measured)
        stage.finish([output], {"tasks": len(measured), "programs": n_programs})
    return read_records(stage.path(output), TaskMeters)


def build_fast_pair(
    samples: TaskSamples, matrix: TaskMatrix, meters: TaskMeters, config: EfficiencyConfig
) -> CodePair | None:
    """Return the pair of the widest clear ratio, the faster program chosen."""
    widest: tuple[float, int, int] | None = None
    for first, second in combinations(range(len(meters.programs)), 2):
        if meters.cpu_s[first] is None or meters.cpu_s[second] is None:
            continue
        found = _compare(meters, first, second)
        if found.faster is None or found.ratio < config.min_ratio:
            continue
        order = (first, second) if found.faster == "first" else (second, first)
        if widest is None or found.ratio > widest[0]:
            widest = (found.ratio, *order)
    if widest is None:
        return None
    ratio, *places = widest
    programs = [meters.programs[place] for place in places]
    ids = [
        next(
            samples.samples[m].ids for m in matrix.members[p] if samples.samples[m].finish == "stop"
        )
        for p in programs
    ]
    return CodePair(
        id=f"{matrix.task_id}/fast",
        task_id=matrix.task_id,
        prompt_ids=samples.prompt_ids,
        chosen_ids=ids[0],
        rejected_ids=ids[1],
        chosen=matrix.programs[programs[0]],
        rejected=matrix.programs[programs[1]],
        gap=ratio,
        kind="efficiency",
    )


def plan_speed_race(
    task: CodeTask, before: TaskResult, after: TaskResult, limit: int
) -> Race | None:
    """Return the right programs of both policies, those of `before` first; None where one has none.

    `programs` says whose each is: 0 before, 1 after.
    """
    sides = [_right(result)[:limit] for result in (before, after)]
    if not all(sides):
        return None
    sources = (*sides[0], *sides[1])
    owners = (0,) * len(sides[0]) + (1,) * len(sides[1])
    return Race(task.id, task.entry_point, owners, sources, task.tests)


def task_speed(meters: TaskMeters) -> TaskSpeed | None:
    """Compare every program after with every one before; None when none survived the meter.

    The logarithm of the speed-up is a mean over those couples; undecided ones count as 0.
    """
    sides = [
        [
            place
            for place, whose in enumerate(meters.programs)
            if whose == side and meters.cpu_s[place] is not None
        ]
        for side in (0, 1)
    ]
    logs = []
    for old in sides[0]:
        for new in sides[1]:
            found = _compare(meters, old, new)
            sign = {"first": -1.0, "second": 1.0, None: 0.0}[found.faster]
            logs.append(sign * math.log(found.ratio) if sign else 0.0)
    if not logs:
        return None
    share = [sum(log > 0 for log in logs) / len(logs), sum(log < 0 for log in logs) / len(logs)]
    return TaskSpeed(meters.task_id, sum(logs) / len(logs), *share)


def _right(result: TaskResult) -> list[str]:
    """Return the distinct programs that passed."""
    marked = zip(result.programs, result.passed, strict=True)
    return list(dict.fromkeys(program for program, passed in marked if passed))


def _compare(meters: TaskMeters, first: int, second: int) -> Comparison:
    """Compare two programs that survived the meter.

    Less than the noise of loading counts as that much, and where both need less, nobody is faster.
    """
    places = (first, second)
    least = _NOISE_SHARE * max(meters.loading_s[place] or 0.0 for place in places)
    cpu_s = [max(meters.cpu_s[place] or 0.0, least) for place in places]
    if max(cpu_s) <= least:
        return Comparison(None, 1.0, "both need too little beyond being loaded")
    opcodes = [meters.opcode_counts[place] for place in places]
    return compare(*(Measurement("pass", *pair) for pair in zip(cpu_s, opcodes, strict=True)))


def _run(
    stage: Stage,
    backend: Backend,
    races: Sequence[Race],
    n_total: int,
    config: EfficiencyConfig,
    sandbox: SandboxConfig,
) -> Iterator[TaskMeters]:
    with Progress(
        stage.name.replace("_", " "), n_total=n_total, n_done=n_total - len(races), unit="tasks"
    ) as progress:
        for race in races:
            whole, loaded = (
                measure(
                    backend,
                    [source.encode("utf-8", "replace") for source in race.sources],
                    tests=tests,
                    entry_point=race.entry_point,
                    n_rounds=config.n_rounds,
                    limits=sandbox.limits,
                )
                for tests in (race.tests, _ONLY_LOADED)
            )
            costs = [_beyond(*pair) for pair in zip(whole, loaded, strict=True)]
            yield TaskMeters(
                race.task_id,
                race.programs,
                tuple(cost.cpu_s for cost in costs),
                tuple(cost.opcode_count for cost in costs),
                tuple(one.cpu_s for one in loaded),
            )
            progress.advance()


def _beyond(whole: Measurement, loaded: Measurement) -> Measurement:
    """Return what a program needs beyond being loaded; nothing where one of the two failed."""
    if whole.cpu_s is None or loaded.cpu_s is None:
        return Measurement(whole.status)
    n_opcodes = None
    if whole.opcode_count is not None and loaded.opcode_count is not None:
        n_opcodes = max(1, whole.opcode_count - loaded.opcode_count)
    return Measurement("pass", max(0.0, whole.cpu_s - loaded.cpu_s), n_opcodes)
