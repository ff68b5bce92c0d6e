"""Plan what is executed for a task, and put the outcomes into its pass/fail matrix."""

from collections.abc import Sequence
from dataclasses import replace

from trillium_code.execution import Job, Outcome
from trillium_code.programs import group_equal, parse_asserts, stub_program
from trillium_code.prompts import assert_opening
from trillium_code.records import TaskMatrix, TaskSamples
from trillium_code.tasks import CodeTask


def plan_matrix(
    task: CodeTask, texts: Sequence[str], tests: TaskSamples, *, max_tests: int
) -> TaskMatrix:
    """Return the distinct programs and tests of a task, not executed yet.

    `texts` has the program of each sample. Tests come in the order in which they were sampled, at
    most `max_tests` of them.
    """
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


def matrix_jobs(plan: TaskMatrix, task: CodeTask) -> list[Job]:
    """Return one job per program, with all tests in it, and last one for the stub."""
    if not plan.tests:
        return []
    programs = (*plan.programs, stub_program(task.header))
    return [
        Job(f"{task.id}/{number}", program, task.entry_point, plan.tests)
        for number, program in enumerate(programs)
    ]
