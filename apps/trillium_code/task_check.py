"""Check a task file: references must pass their hidden tests, wrong solutions must fail."""

from collections import Counter

from trillium_code.execution import Job, SandboxConfig, execute
from trillium_code.task_files import read_tasks
from trillium_code.tasks import CodeTask


def find_bad_tasks(tasks: list[CodeTask], config: SandboxConfig) -> list[str]:
    """Return a sentence for each solution whose hidden tests say otherwise than the file."""
    jobs = [
        (task, program, is_right)
        for task in tasks
        if task.tests
        for program, is_right in [(task.solution, True), *((wrong, False) for wrong in task.wrong)]
        if program is not None
    ]
    single = config.model_copy(update={"n_runs": 1})
    groups = [
        [Job(f"{task.id}/{i}", program, task.entry_point, task.tests)]
        for i, (task, program, _) in enumerate(jobs)
    ]
    problems = []
    with single.open() as backend:
        outcomes = execute(groups, backend, single, n_runs=1)
        for (task, _, is_right), (outcome,) in zip(jobs, outcomes, strict=True):
            if outcome.is_sandbox_failure:
                problems.append(f"{task.id}: the sandbox failed; run the check again")
            elif outcome.passed_all != is_right:
                problems.append(
                    f"{task.id}: the reference solution fails a hidden test; correct one of them"
                    if is_right
                    else f"{task.id}: a wrong solution passes all hidden tests; add a test"
                )
    return problems


def check_tasks(source: str, config: SandboxConfig) -> tuple[str, list[str]]:
    """Read and run a task file; returns a line of counts and the problems."""
    tasks = read_tasks(source)
    bands = Counter(task.band for task in tasks)
    counts = ", ".join(f"{count} {band}" for band, count in bands.items())
    n_tests = sum(len(task.tests) for task in tasks)
    noun = "task" if len(tasks) == 1 else "tasks"
    return f"{len(tasks)} {noun} ({counts}), hidden tests: {n_tests}", find_bad_tasks(tasks, config)
