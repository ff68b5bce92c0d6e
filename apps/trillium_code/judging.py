"""The stages that execute: programs against the model's own tests, and against the hidden ones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from trillium.errors import BackendError
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_code.execution import Job, Outcome, SandboxConfig, execute
from trillium_code.programs import extract_program, group_equal, parse_asserts, stub_program
from trillium_code.prompts import assert_opening
from trillium_code.records import TaskMatrix, TaskResult, TaskSamples, read_records, to_row
from trillium_code.tasks import CodeTask

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
) -> list[TaskMatrix]:
    """Return one pass/fail matrix per task; when the stage is due, run what is missing.

    A row per task goes to disk at once. The stub runs with the programs, once per task.
    """
    if stage.is_due:
        plans = [
            plan_matrix(task, own, asserts, max_tests=max_tests)
            for task, own, asserts in zip(tasks, programs, tests, strict=True)
        ]
        headers = {task.id: task for task in tasks}
        with stage.rows(output, key="task_id") as rows:
            due = [plan for plan in plans if plan.task_id not in rows.finished]
            groups = [_matrix_jobs(plan, headers[plan.task_id]) for plan in due]
            for plan, outcomes in zip(due, _run(stage, groups, len(plans), config), strict=True):
                rows.append(to_row(fill_matrix(plan, outcomes)))
        matrices = read_records(stage.work / output, TaskMatrix)
        n_programs = sum(len(matrix.programs) for matrix in matrices)
        _check_losses(stage, output, sum(len(matrix.lost) for matrix in matrices), n_programs)
        stage.finish([output], _count(matrices))
    return read_records(stage.path(output), TaskMatrix)


def judge_stage(
    stage: Stage,
    output: str,
    tasks: Sequence[CodeTask],
    samples: Sequence[TaskSamples],
    config: SandboxConfig,
) -> list[TaskResult]:
    """Return which samples pass all hidden tests; when the stage is due, run what is missing."""
    if stage.is_due:
        with stage.rows(output, key="task_id") as rows:
            due = [
                (task, [extract_program(task.header, sample.text) for sample in own.samples])
                for task, own in zip(tasks, samples, strict=True)
                if task.id not in rows.finished
            ]
            groups = [_hidden_jobs(task, programs) for task, programs in due]
            single = config.model_copy(update={"n_runs": 1})
            replies = _run(stage, groups, len(tasks), single)
            for (task, programs), outcomes in zip(due, replies, strict=True):
                rows.append(to_row(_result(task, programs, outcomes)))
        results = read_records(stage.work / output, TaskResult)
        flags = [flag for result in results for flag in result.passed]
        _check_losses(stage, output, flags.count(None), len(flags))
        counts = {
            "programs": len(flags),
            "passed": flags.count(True),
            "sandbox_failures": flags.count(None),
        }
        stage.finish([output], counts)
    return read_records(stage.path(output), TaskResult)


def _check_losses(stage: Stage, output: str, n_lost: int, n_programs: int) -> None:
    """Refuse results of a sandbox that fails; single failures are left out and counted."""
    if n_lost > _MOST_LOST * n_programs:
        (stage.work / output).unlink()
        raise BackendError(
            f"{stage.name}: the sandbox failed for {n_lost} of {n_programs} programs (at most "
            f"{_MOST_LOST:.0%} may be left out); see `trillium doctor`, then run the same command "
            "again: it executes this stage anew"
        )


def plan_matrix(
    task: CodeTask, programs: TaskSamples, tests: TaskSamples, *, max_tests: int
) -> TaskMatrix:
    """Return the distinct programs and tests of a task, not executed yet.

    Tests come in the order in which they were sampled, at most `max_tests` of them.
    """
    texts = [extract_program(task.header, sample.text) for sample in programs.samples]
    members = group_equal(texts)
    written = (assert_opening(task) + sample.text for sample in tests.samples)
    asserts = dict.fromkeys(line for text in written for line in parse_asserts(text))
    return TaskMatrix(
        task_id=task.id,
        programs=tuple(texts[group[0]] for group in members),
        members=tuple(map(tuple, members)),
        tests=tuple(asserts)[:max_tests],
        passed=(),
        stub_passed=(),
        is_flaky=(),
        lost=(),
    )


def fill_matrix(plan: TaskMatrix, outcomes: Sequence[Outcome]) -> TaskMatrix:
    """Return the plan with the outcomes of its programs and, last, of the stub.

    A test is flaky when it is for any program. A stub whose sandbox failed passes nothing.
    """
    if not outcomes:
        return replace(plan, passed=((),) * len(plan.programs))
    *programs, stub = outcomes
    return replace(
        plan,
        passed=tuple(outcome.passed for outcome in programs),
        stub_passed=stub.passed,
        is_flaky=tuple(map(any, zip(*(out.is_flaky for out in outcomes), strict=True))),
        lost=tuple(i for i, outcome in enumerate(programs) if outcome.is_sandbox_failure),
    )


def _matrix_jobs(plan: TaskMatrix, task: CodeTask) -> list[Job]:
    if not plan.tests:
        return []
    programs = (*plan.programs, stub_program(task.header))
    return [
        Job(f"{task.id}/{number}", program, task.entry_point, plan.tests)
        for number, program in enumerate(programs)
    ]


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


def _run(
    stage: Stage, groups: Sequence[Sequence[Job]], n_total: int, config: SandboxConfig
) -> Iterator[list[Outcome]]:
    with (
        config.open() as backend,
        Progress(
            stage.name.replace("_", " "),
            n_total=n_total,
            n_done=n_total - len(groups),
            unit="tasks",
        ) as progress,
    ):
        for outcomes in execute(groups, backend, config, n_runs=config.n_runs):
            yield outcomes
            progress.advance()


def _count(matrices: Sequence[TaskMatrix]) -> dict[str, int]:
    return {
        "tasks": len(matrices),
        "programs": sum(len(matrix.programs) for matrix in matrices),
        "tests": sum(len(matrix.tests) for matrix in matrices),
        "executions": sum(len(matrix.programs) * len(matrix.tests) for matrix in matrices),
        "flaky_tests": sum(sum(matrix.is_flaky) for matrix in matrices),
        "sandbox_failures": sum(len(matrix.lost) for matrix in matrices),
    }
