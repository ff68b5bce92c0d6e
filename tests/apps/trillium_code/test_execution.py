import pytest
from trillium_code.execution import Job, Outcome, SandboxConfig, execute, run_jobs
from trillium_code.matrices import fill_matrix, matrix_jobs, plan_matrix
from trillium_code.records import Sample, TaskSamples
from trillium_code.task_check import check_tasks, find_bad_tasks
from trillium_code.task_rows import document
from trillium_code.tasks import CodeTask
from trillium_sandbox.cache import CachedBackend, ResultCache

INC = CodeTask(
    "t/inc",
    "inc",
    document("def inc(n):", "Add one.", None),
    "Add one.",
    tests=("assert inc(1) == 2", "assert inc(5) == 6"),
    solution="def inc(n):\n    return n + 1\n",
    wrong=("def inc(n):\n    return 2\n",),
)
CONFIG = SandboxConfig(wall_s=2.0)


@pytest.fixture(scope="module")
def backend():
    with CONFIG.open() as opened:
        yield opened


def job(name, body, *tests):
    return Job(name, f"def inc(n):\n    {body}\n", "inc", tests or INC.tests)


def test_outcomes_come_in_groups_with_a_flag_per_test(backend):
    groups = [
        [job("right", "return n + 1"), job("half", "return 2")],
        [],
        [job("broken", "return n +"), job("endless", "while True: pass")],
    ]
    first, empty, last = execute(groups, backend, CONFIG, n_runs=1)
    assert [outcome.passed for outcome in first] == [(True, True), (True, False)]
    assert [outcome.passed_all for outcome in first] == [True, False]
    assert empty == []
    assert [outcome.passed for outcome in last] == [(False, False), (False, False)]
    assert not any(outcome.is_sandbox_failure for outcome in (*first, *last))


def test_a_test_whose_result_differs_between_runs_is_flaky_and_failed(backend):
    body = "import random; return random.SystemRandom().random()"
    tests = ("assert inc(1) < 0.5", "assert inc(1) < 2")
    (group,) = execute([[job("dice", body, *tests)]], backend, CONFIG, n_runs=12)
    assert group[0].passed == (False, True)
    assert group[0].is_flaky == (True, False)


def test_a_cache_replays_no_run_as_another(backend, tmp_path):
    cache = ResultCache(tmp_path / "cache", backend="embedded", level=backend.level)
    for n_runs in (1, 3):
        config = CONFIG.model_copy(update={"n_runs": n_runs})
        cached = CachedBackend(backend, cache)
        (outcome,) = run_jobs([job("a", "return n + 1")], cached, config, lambda *noted: None)
        assert outcome.passed_all
    assert (cache.n_hits, cache.n_misses) == (1, 3)
    cache.close()


def test_a_matrix_merges_equal_programs_and_runs_the_stub(backend):
    programs = [f"def inc(n):\n    return {value}\n" for value in ("n + 1", "n", "(n + 1)  # same")]
    tests = TaskSamples(
        "t/inc",
        (1,),
        (
            Sample((), "1) == 2\nassert inc(2) == 3\nassert inc(0) is None", "stop"),
            Sample((), "1)  == 2\nassert inc(7) == 7", "stop"),
        ),
    )
    plan = plan_matrix(INC, programs, tests, max_tests=3)
    assert plan.members == ((0, 2), (1,))
    assert plan.tests == (
        "assert inc(1) == 2",
        "assert inc(2) == 3",
        "assert inc(0) is None",
    )
    (outcomes,) = execute([matrix_jobs(plan, INC)], backend, CONFIG, n_runs=2)
    matrix = fill_matrix(plan, outcomes)
    assert matrix.passed == ((True, True, False), (False, False, False))
    assert matrix.stub_passed == (False, False, True)
    assert matrix.is_flaky == (False, False, False)
    assert matrix.lost == matrix.unsteady == ()


@pytest.mark.parametrize(
    ("differing", "stub", "is_flaky", "unsteady"),
    [
        (("11", "00", "00"), "00", (False, False), (0,)),
        (("11", "01", "00"), "00", (False, True), (0,)),
        (("00", "00", "00"), "10", (True, False), ()),
        (("01", "00", "00"), "01", (False, True), ()),
        (("10",), "00", (True, False), ()),
        ((), "00", (False, False), ()),
    ],
)
def test_a_program_that_alone_differs_between_runs_is_unsteady_and_its_tests_are_not(
    differing, stub, is_flaky, unsteady
):
    programs = [f"def inc(n):\n    return n + {i}\n" for i in range(len(differing))]
    tests = TaskSamples("t/inc", (1,), (Sample((), "1) == 2\nassert inc(2) == 3", "stop"),))
    plan = plan_matrix(INC, programs, tests, max_tests=2)
    outcomes = [
        Outcome("x", (False, False), tuple(flag == "1" for flag in row), False)
        for row in (*differing, stub)
    ]
    matrix = fill_matrix(plan, outcomes)
    assert (matrix.is_flaky, matrix.unsteady) == (is_flaky, unsteady)
    assert matrix.steady == [i for i in range(len(programs)) if i not in unsteady]


def test_a_task_whose_solutions_contradict_its_tests_is_reported():
    assert find_bad_tasks([INC], CONFIG) == []
    swapped = CodeTask(
        "t/bad",
        "inc",
        INC.header,
        "",
        tests=INC.tests,
        solution=INC.wrong[0],
        wrong=(INC.solution,),
    )
    problems = find_bad_tasks([swapped], CONFIG)
    assert [problem.split(";")[0] for problem in problems] == [
        "t/bad: the reference solution fails a hidden test",
        "t/bad: a wrong solution passes all hidden tests",
    ]


def test_the_shipped_tasks_check_out():
    counts, problems = check_tasks("own", CONFIG)
    assert counts.startswith("192 tasks (132 easy, 40 medium, 20 hard)")
    assert problems == []
