"""What a stage remembers of a kill: programs that were handed over and have no verdict."""

import pytest
from trillium.files import RowsFile
from trillium_code.execution import Job, Outcome, SandboxConfig, run_jobs
from trillium_code.ledger import Ledger, read_ledger

TESTS = ("assert inc(1) == 2", "assert inc(5) == 6")
BODIES = ("n + 1", "2", "n +", "n - 1", "(n + 1)")
JOBS = [Job(f"t/{i}", f"def inc(n):\n    return {b}\n", "inc", TESTS) for i, b in enumerate(BODIES)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "executions.jsonl"


def opened(path):
    return RowsFile(path, key="job")


def outcome(job, *, lost=False):
    return Outcome(job.id, (True, False), (False, True), lost)


def test_what_was_started_and_has_no_verdict_is_in_doubt(path):
    with opened(path) as rows:
        Ledger(rows).write([], JOBS[:3])
        Ledger(rows).write([outcome(JOBS[1])], JOBS[3:4])
    with opened(path) as rows:
        ledger = Ledger(rows)
        assert ledger.in_doubt == {"t/0", "t/2", "t/3"}
        assert [ledger.has_verdict(job) for job in JOBS] == [False, True, False, False, False]


def test_jobs_handed_over_again_are_counted_each_time(path):
    with opened(path) as rows:
        ledger = Ledger(rows)
        ledger.write([], JOBS[:2])
        ledger.write([], JOBS[:2])
        ledger.write([outcome(JOBS[1])], JOBS[:1])
        ledger.write([outcome(JOBS[0])], [])
    census = read_ledger(path)
    assert sorted(census.repeated) == ["t/0", "t/0", "t/1"]
    assert census.outcomes["t/0"] == outcome(JOBS[0])
    assert census.left_out == ()


def test_a_job_that_is_left_out_tells_nothing_and_is_counted(path):
    with opened(path) as rows:
        Ledger(rows).write([], JOBS[:1])
    with opened(path) as rows:
        Ledger(rows).leave_out(JOBS[:1])
        assert Ledger(rows).in_doubt == frozenset()
    census = read_ledger(path)
    assert census.outcomes["t/0"].is_sandbox_failure
    assert census.outcomes["t/0"].passed == (False, False)
    assert (census.left_out, census.repeated) == (("t/0",), ())


def test_every_job_is_noted_before_it_is_handed_over_and_few_are_under_way():
    config, under_way, most = SandboxConfig(wall_s=2.0, n_runs=2, n_workers=1), set(), 0
    found = {}

    def note(finished, starting):
        nonlocal most
        under_way.difference_update(one.id for one in finished)
        under_way.update(job.id for job in starting)
        most = max(most, len(under_way))

    with config.open() as backend:
        for one in run_jobs(JOBS, backend, config, note):
            assert one.id not in under_way
            found[one.id] = one.passed
    assert found == {
        "t/0": (True, True),
        "t/1": (True, False),
        "t/2": (False, False),
        "t/3": (False, False),
        "t/4": (True, True),
    }
    assert most == 4  # a quarter of one worker's window


class InOrder:
    """A backend without tickets, as the cluster's is, around one with them."""

    def __init__(self, inner):
        self.run = inner.run


class Counting:
    """A backend that remembers which requests it was handed."""

    def __init__(self, inner):
        self.collect, self.window, self.asked = inner.collect, inner.window, []
        self._submit = inner.submit

    def submit(self, request):
        self.asked.append(request.id)
        return self._submit(request)


def test_a_program_that_ran_out_of_time_and_passed_nothing_is_not_run_again():
    config = SandboxConfig(wall_s=0.5, n_runs=2, n_workers=1)
    endless = Job("t/endless", "def inc(n):\n    while True: pass\n", "inc", JOBS[0].tests)
    with config.open() as backend:
        counting = Counting(backend)
        found = list(run_jobs([JOBS[0], endless], counting, config, lambda *_: None))
    assert {one.id: one.passed for one in found} == {
        "t/0": (True, True),
        "t/endless": (False, False),
    }
    assert sorted(counting.asked) == ["t/0#0", "t/0#1", "t/endless#0"]


def test_a_backend_without_tickets_gives_the_same_outcomes():
    config, noted = SandboxConfig(wall_s=2.0, n_workers=1), []

    def note(finished, starting):
        noted.extend(
            [f"end {one.id}" for one in finished] + [f"start {job.id}" for job in starting]
        )

    with config.open() as backend:
        by_ticket = {one.id: one for one in run_jobs(JOBS, backend, config, lambda *_: None)}
        in_order = list(run_jobs(JOBS, InOrder(backend), config, note))
    assert {one.id: one for one in in_order} == by_ticket
    assert [one.id for one in in_order] == [job.id for job in JOBS]
    for job in JOBS:
        assert noted.index(f"start {job.id}") < noted.index(f"end {job.id}")
