"""What was executed, on disk: a row before a program is handed over, a row when it has its verdict.

What can be promised when the process, or the machine, dies at any moment:

- A program whose verdict is on disk is never executed again. Verdicts go to disk as they come, in
  any order, so what has none is what was under way.
- A program that was under way may have run or not: no file can say so, for it cannot be written in
  the same instant as the program ends. So either it runs once more, and the result is that of a run
  that was never killed, or it is left out, and no (program, test) is ever executed twice. The
  ledger knows these programs by their first row, and counts them.
- Few are under way at a time: at most `n_ahead` of `execution.run_jobs`.

A program runs with all of its tests, so this holds for every (program, test). It is about kills:
the sandbox runs a program again by itself when the worker under it dies, and `n_runs` times by the
run file.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.files import RowsFile, read_rows

from trillium_code.execution import Job, Outcome

_STARTED = "started "


@dataclass(frozen=True)
class Census:
    """Say what a ledger holds: outcomes by job, and the jobs that kills made a matter of doubt.

    `repeated` has a job once for every time that it was handed over again.
    """

    outcomes: dict[str, Outcome]
    repeated: tuple[str, ...]
    left_out: tuple[str, ...]


class Ledger:
    """The rows of one stage; every write is on disk when it returns."""

    def __init__(self, rows: RowsFile) -> None:
        """Take up what an earlier process has written into `rows`, whose key is "job"."""
        self._rows = rows
        started = {key.removeprefix(_STARTED) for key in rows.finished if key.startswith(_STARTED)}
        self.in_doubt = frozenset(started - rows.finished)

    def has_verdict(self, job: Job) -> bool:
        """Say whether a job's outcome is on disk."""
        return job.id in self._rows.finished

    def write(self, outcomes: Iterable[Outcome], starting: Iterable[Job]) -> None:
        """Put outcomes on disk, and after them the jobs that are about to be handed over."""
        rows = [_row(outcome) for outcome in outcomes]
        rows += [{"job": f"{_STARTED}{job.id}"} for job in starting]
        if rows:
            self._rows.extend(rows)

    def leave_out(self, jobs: Sequence[Job]) -> None:
        """Give jobs that are in doubt the outcome of a sandbox that failed: it says nothing."""
        rows = [
            {**_row(Outcome(job.id, none := (False,) * len(job.tests), none, True)), "doubt": True}
            for job in jobs
        ]
        if rows:
            self._rows.extend(rows)


def read_ledger(path: Path) -> Census:
    """Read a whole ledger back; one that was never written is empty."""
    outcomes: dict[str, Outcome] = {}
    starts: Counter[str] = Counter()
    left_out: list[str] = []
    for row in read_rows(path) if path.exists() else ():
        job = str(row["job"])
        if job.startswith(_STARTED):
            starts[job.removeprefix(_STARTED)] += 1
            continue
        outcomes[job] = Outcome(
            id=job,
            passed=tuple(flag == "1" for flag in str(row["passed"])),
            is_flaky=tuple(flag == "1" for flag in str(row["flaky"])),
            is_sandbox_failure=bool(row["lost"]),
            has_leant=bool(row.get("leant")),
        )
        if row.get("doubt"):
            left_out.append(job)
    repeated = tuple(job for job, count in starts.items() for _ in range(count - 1))
    return Census(outcomes, repeated, tuple(left_out))


def _row(outcome: Outcome) -> dict[str, object]:
    return {
        "job": outcome.id,
        "passed": "".join("01"[flag] for flag in outcome.passed),
        "flaky": "".join("01"[flag] for flag in outcome.is_flaky),
        "lost": outcome.is_sandbox_failure,
        **({"leant": True} if outcome.has_leant else {}),
    }
