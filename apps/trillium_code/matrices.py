"""Plan what is executed for a task, and put the outcomes into its pass/fail matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trillium_code.execution import Job, Outcome
from trillium_code.programs import group_equal, parse_asserts, stub_program
from trillium_code.prompts import assert_opening
from trillium_code.records import TaskMatrix, TaskSamples
from trillium_code.tasks import CodeTask

RULES = {"matrix": "unsteady programs, no leaning"}
"""What a matrix says, for the inputs of its stage."""


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

    A test is flaky when its result differs between runs for the stub, for two programs or for the
    only one; where it differs for one of several, that program is unsteady and the test is not. A
    stub whose sandbox failed passes nothing.
    """
    if not outcomes:
        return replace(plan, passed=((),) * len(plan.programs))
    *programs, stub = outcomes
    n_needed = 1 if len(programs) == 1 else 2
    is_flaky = tuple(
        by_stub or sum(outcome.is_flaky[test] for outcome in programs) >= n_needed
        for test, by_stub in enumerate(stub.is_flaky)
    )
    return replace(
        plan,
        passed=tuple(outcome.passed for outcome in programs),
        stub_passed=stub.passed,
        is_flaky=is_flaky,
        lost=tuple(i for i, outcome in enumerate(programs) if outcome.is_sandbox_failure),
        unsteady=tuple(
            i
            for i, outcome in enumerate(programs)
            if any(
                own and not shared for own, shared in zip(outcome.is_flaky, is_flaky, strict=True)
            )
        ),
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


def leaning_jobs(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> list[Job]:
    """Return a job for each passed test of the programs of which some pass has leant.

    The sandbox says it of a program, not of a test; alone, each test shows whether it is the one.
    """
    return [
        _alone(job, test)
        for job in jobs
        if outcomes[job.id].has_leant
        for test, passed in enumerate(outcomes[job.id].passed)
        if passed
    ]


def without_leaning(job: Job, outcomes: Mapping[str, Outcome]) -> Outcome:
    """Return the outcome of a job in which passes that rest on the program's own word have failed.

    A test that a model wrote may ask the program whether it is right; hidden tests are trusted. A
    program is lost where the sandbox failed to tell which of its passes leant.
    """
    found = outcomes[job.id]
    if not found.has_leant:
        return found
    alone = [outcomes.get(_alone(job, test).id) for test in range(len(job.tests))]
    if any(one is not None and one.is_sandbox_failure for one in alone):
        return replace(found, is_sandbox_failure=True)
    passed = (one is not None and one.passed_all and not one.has_leant for one in alone)
    return replace(found, passed=tuple(passed))


def _alone(job: Job, test: int) -> Job:
    return replace(job, id=f"{job.id}+{test}", tests=(job.tests[test],))
