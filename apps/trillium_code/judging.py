"""The stages that execute: programs against the model's own tests, and against the hidden ones."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

from trillium.errors import BackendError
from trillium.progress import Progress
from trillium.runs import Stage
from trillium_sandbox import Backend

from trillium_code.answers import Reading, defines, read_answer
from trillium_code.execution import Job, Outcome, SandboxConfig, run_jobs
from trillium_code.ledger import Census, Ledger, read_ledger
from trillium_code.matrices import (
    fill_matrix,
    leaning_jobs,
    matrix_jobs,
    plan_matrix,
    without_leaning,
)
from trillium_code.programs import extract_program
from trillium_code.prompt_config import PromptConfig
from trillium_code.records import (
    TaskMatrix,
    TaskResult,
    TaskSamples,
    read_records,
    write_records,
)
from trillium_code.tasks import CodeTask

OpenBackend = Callable[[], Backend]
_LEDGER = "executions.jsonl"
_MOST_LOST = 0.1


def matrix_stage(
    stage: Stage,
    output: str,
    tasks: Sequence[CodeTask],
    programs: Sequence[TaskSamples],
    tests: Sequence[TaskSamples],
    config: SandboxConfig,
    *,
    max_tests: int,
    prompt: PromptConfig,
    open_backend: OpenBackend | None = None,
) -> list[TaskMatrix]:
    """Return one pass/fail matrix per task; when the stage is due, run what is missing.

    A program runs with all of its tests in one request, each test with a verdict of its own; what
    has its verdict on disk is never executed again (ledger.py says what is promised). The stub runs
    with the programs, once per task. Where a pass rests on the word of the program, its tests run
    once more, each alone, and those that do have failed. `prompt` says how programs are read.
    `open_backend` is where programs run; None is the sandbox of `config`.
    """
    if stage.is_due:
        readings = [
            read_programs(task, own, prompt) for task, own in zip(tasks, programs, strict=True)
        ]
        plans = [
            plan_matrix(task, [one.program for one in own], asserts, max_tests=max_tests)
            for task, own, asserts in zip(tasks, readings, tests, strict=True)
        ]
        jobs = [matrix_jobs(plan, task) for plan, task in zip(plans, tasks, strict=True)]
        planned, place = list(chain(*jobs)), open_backend or config.open
        census = _execute(stage, planned, config, place)
        alone = leaning_jobs(planned, census.outcomes)
        if alone:
            census = _execute(stage, [*planned, *alone], config, place)
        write_records(
            stage.work / output,
            [
                fill_matrix(plan, [without_leaning(job, census.outcomes) for job in own])
                for plan, own in zip(plans, jobs, strict=True)
            ],
        )
        matrices = read_records(stage.work / output, TaskMatrix)
        n_programs = sum(len(matrix.programs) for matrix in matrices)
        n_lost = sum(len(matrix.lost) for matrix in matrices)
        _check_losses(stage, [_LEDGER, output], n_lost, n_programs)
        counts = {**_count(matrices), **count_readings(chain(*readings))}
        stage.finish([output], {**counts, **_count_doubts(census)})
    return read_records(stage.path(output), TaskMatrix)


def judge_stage(
    stage: Stage,
    output: str,
    tasks: Sequence[CodeTask],
    programs: Sequence[Sequence[str]],
    config: SandboxConfig,
    *,
    counts: Mapping[str, int] | None = None,
    open_backend: OpenBackend | None = None,
) -> list[TaskResult]:
    """Return which programs pass all hidden tests; when the stage is due, run what is missing.

    `counts` is what the stage records beside its own.
    """
    if stage.is_due:
        single = config.model_copy(update={"n_runs": 1})
        jobs = [_hidden_jobs(task, own) for task, own in zip(tasks, programs, strict=True)]
        census = _execute(stage, list(chain(*jobs)), single, open_backend or config.open)
        results = [
            _result(task, own, [census.outcomes[job.id] for job in group])
            for task, own, group in zip(tasks, programs, jobs, strict=True)
        ]
        write_records(stage.work / output, results)
        flags = [flag for result in results for flag in result.passed]
        _check_losses(stage, [_LEDGER, output], flags.count(None), len(flags))
        leaning = {
            (task.id, job.program)
            for task, group in zip(tasks, jobs, strict=True)
            for job in group
            if census.outcomes[job.id].passed_all and census.outcomes[job.id].has_leant
        }
        judged = {
            "programs": len(flags),
            "passed": flags.count(True),
            "passed_by_own_word": sum(
                (result.task_id, program) in leaning
                for result in results
                for program in result.programs
            ),
            "sandbox_failures": flags.count(None),
        }
        stage.finish([output], {**judged, **(counts or {}), **_count_doubts(census)})
    return read_records(stage.path(output), TaskResult)


def _execute(
    stage: Stage, jobs: Sequence[Job], config: SandboxConfig, open_backend: OpenBackend
) -> Census:
    """Run the jobs that have no verdict on disk yet, and return those of all."""
    with stage.rows(_LEDGER, key="job") as rows:
        ledger = Ledger(rows)
        if not config.repeats_after_kill:
            ledger.leave_out([job for job in jobs if job.id in ledger.in_doubt])
        due = [job for job in jobs if not ledger.has_verdict(job)]
        if due:
            with (
                open_backend() as backend,
                Progress(
                    stage.name.replace("_", " "),
                    n_total=len(jobs),
                    n_done=len(jobs) - len(due),
                    unit="programs",
                ) as progress,
            ):
                for _ in run_jobs(due, backend, config, ledger.write):
                    progress.advance()
    return read_ledger(stage.work / _LEDGER)


def _count_doubts(census: Census) -> dict[str, int]:
    n_tests = {job: len(outcome.passed) for job, outcome in census.outcomes.items()}
    return {
        "programs_run_again": len(census.repeated),
        "executions_again": sum(n_tests[job] for job in census.repeated),
        "programs_left_out": len(census.left_out),
    }


def read_programs(task: CodeTask, samples: TaskSamples, prompt: PromptConfig) -> list[Reading]:
    """Return the program in each sample, read as it was asked for."""
    if prompt.program_style == "answer":
        repairs = prompt.repairs_signature
        return [
            read_answer(one.text, task.entry_point, task.header, repairs_signature=repairs)
            for one in samples.samples
        ]
    programs = [extract_program(task.header, sample.text) for sample in samples.samples]
    return [Reading(program, defines(program, task.entry_point)) for program in programs]


def count_readings(readings: Iterable[Reading]) -> dict[str, int]:
    """Count samples without a program that defines its function, and repairs by kind."""
    found = list(readings)
    repairs = Counter(reading.repair for reading in found)
    return {
        "without_program": sum(not reading.is_whole for reading in found),
        "renamed_programs": repairs["renamed"],
        "unwrapped_programs": repairs["unwrapped"],
    }


def _check_losses(stage: Stage, files: Sequence[str], n_lost: int, n_programs: int) -> None:
    """Refuse results of a sandbox that fails; single failures are left out and counted."""
    if n_lost > _MOST_LOST * n_programs:
        for name in files:
            (stage.work / name).unlink()
        raise BackendError(
            f"{stage.name}: the sandbox failed for {n_lost} of {n_programs} programs (at most "
            f"{_MOST_LOST:.0%} may be left out); see `trillium doctor`, then run the same command "
            "again: it executes this stage anew"
        )


def _hidden_jobs(task: CodeTask, programs: Sequence[str]) -> list[Job]:
    """Return one job per distinct program; equal samples share its outcome."""
    return [
        Job(f"{task.id}/{number}", program, task.entry_point, task.tests)
        for number, program in enumerate(dict.fromkeys(programs))
    ]


def _result(task: CodeTask, programs: Sequence[str], outcomes: Sequence[Outcome]) -> TaskResult:
    flags = {
        program: None if outcome.is_sandbox_failure else outcome.passed_all
        for program, outcome in zip(dict.fromkeys(programs), outcomes, strict=True)
    }
    passed = tuple(flags[program] for program in programs)
    return TaskResult(task.id, task.band, passed, tuple(programs))


def _count(matrices: Sequence[TaskMatrix]) -> dict[str, int]:
    return {
        "tasks": len(matrices),
        "programs": sum(len(matrix.programs) for matrix in matrices),
        "tests": sum(len(matrix.tests) for matrix in matrices),
        "executions": sum(len(matrix.programs) * len(matrix.tests) for matrix in matrices),
        "flaky_tests": sum(sum(matrix.is_flaky) for matrix in matrices),
        "unsteady_programs": sum(len(matrix.unsteady) for matrix in matrices),
        "sandbox_failures": sum(len(matrix.lost) for matrix in matrices),
    }
