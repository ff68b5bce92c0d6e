"""Execute 1,000 tasks x 16 programs x 16 tests, killed once in the middle: 256,000 executions.

    python tests/benchmarks/code_scale.py [--tasks 1000] [--never-twice] [--json FILE]

Minutes on two cores. The stage of the code application runs in a process of its own, is killed
with SIGKILL when part of its rows are on disk, and is started again. A counting backend around the
sandbox notes every program handed to it. Success: every (program, test) has its planted verdict,
no program whose verdicts were on disk was handed over again, the stage counted those that were
under way at the kill, and memory stays where it was. With --never-twice those are left out
(`sandbox.repeats_after_kill=false`), and no program may be handed over twice.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from trillium.config import load_config
from trillium.manifest import read_manifest
from trillium.runs import Run
from trillium_code.config import CodeConfig
from trillium_code.execution import SandboxConfig
from trillium_code.judging import matrix_stage
from trillium_code.prompts import PromptConfig
from trillium_code.records import Sample, TaskMatrix, TaskSamples, read_records
from trillium_code.tasks import CodeTask
from trillium_sandbox import Reply, Request
from trillium_sandbox.engine import Engine

KILLED_AT = 0.4
OUTPUT = "matrices.jsonl"


class Counting:
    """A backend that notes the id of every request before its backend sees it."""

    def __init__(self, inner: Engine, path: Path) -> None:
        """Append to `path`, unbuffered, so that a kill loses nothing."""
        self._inner = inner
        self._log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @property
    def level(self) -> int:
        """Return the level of the backend."""
        return self._inner.level

    @property
    def window(self) -> int:
        """Return how much keeps the backend busy."""
        return self._inner.window

    def submit(self, request: Request) -> int:
        """Note and hand over."""
        self._note(request)
        return self._inner.submit(request)

    def collect(self) -> dict[int, Reply]:
        """Return what the backend has."""
        return self._inner.collect()

    def run(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Note and hand over in order."""
        return self._inner.run(self._note(request) for request in requests)

    def _note(self, request: Request) -> Request:
        os.write(self._log, f"{request.id.removesuffix('#0')}\n".encode())
        return request

    def close(self) -> None:
        """Close the backend."""
        self._inner.close()

    def __enter__(self) -> "Counting":
        """Return the counting backend."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the backend."""
        self.close()


def plant(
    n_tasks: int, n_programs: int, n_tests: int
) -> tuple[list[CodeTask], list[TaskSamples], list[TaskSamples]]:
    """Return tasks whose program p passes test p and no other."""
    tasks, programs, tests = [], [], []
    for t in range(n_tasks):
        header = f"def f{t}(n: int) -> int:\n"
        tasks.append(CodeTask(f"t/{t}", f"f{t}", header, ""))
        bodies = [f"\n    return n * {t + 1} + {p}" for p in range(n_programs)]
        programs.append(TaskSamples(f"t/{t}", (1,), tuple(Sample((), b, "stop") for b in bodies)))
        lines = [f"f{t}({k}) == {k * (t + 1) + k}" for k in range(n_tests)]
        text = "\nassert ".join(lines).removeprefix(f"f{t}(")
        tests.append(TaskSamples(f"t/{t}", (1,), (Sample((), text, "stop"),)))
    return tasks, programs, tests


def work(folder: Path, sizes: tuple[int, int, int], started: Path, repeats: bool) -> None:
    """Do what is missing of the stage, and say on stdout how much memory that took."""
    tasks, programs, tests = plant(*sizes)
    config = SandboxConfig(n_runs=1, repeats_after_kill=repeats)

    def open_counting() -> Counting:
        backend = config.open()
        assert isinstance(backend, Engine)
        return Counting(backend, started)

    with Run.open(folder, load_config(CodeConfig, None), seed=0) as run:
        matrix_stage(
            run.stage("execute", {}),
            OUTPUT,
            tasks,
            programs,
            tests,
            config,
            max_tests=sizes[2],
            prompt=PromptConfig(),
            open_backend=open_counting,
        )
    peak = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    print(json.dumps({"peak_mib": round(peak[0] / 1024), "worker_peak_mib": round(peak[1] / 1024)}))


def measure(
    folder: Path, sizes: tuple[int, int, int], repeats: bool
) -> dict[str, int | float | bool]:
    """Run, kill, run again, and check every verdict."""
    n_tasks, n_programs, n_tests = sizes
    n_jobs = n_tasks * (n_programs + 1)  # a stub per task
    logs = [folder / "started_1", folder / "started_2"]
    command = [sys.executable, __file__, "--worker", str(folder / "run"), *map(str, sizes)]
    command.append("repeats" if repeats else "never-twice")
    begin = time.perf_counter()
    first = subprocess.Popen([*command, str(logs[0])], stderr=subprocess.DEVNULL)
    while len(recorded(folder)) < KILLED_AT * n_jobs and first.poll() is None:
        try:
            first.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    first.send_signal(signal.SIGKILL)
    was_killed = first.wait() == -signal.SIGKILL
    before = time.perf_counter() - begin
    kept = recorded(folder)
    begin = time.perf_counter()
    done = subprocess.run(
        [*command, str(logs[1])], stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    after = time.perf_counter() - begin
    started = [set(log.read_text().split()) for log in logs]
    matrices = read_records(folder / "run" / OUTPUT, TaskMatrix)
    planted = [tuple(p == k for k in range(n_tests)) for p in range(n_programs)]
    counts = read_manifest(folder / "run").stages["execute"].counts
    return {
        "executions": n_tasks * n_programs * n_tests,
        "requests": n_jobs,
        "was_killed": was_killed,
        "on_disk_at_kill": len(kept),
        "on_disk_and_handed_over_again": len(kept & started[1]),
        "handed_over_twice": len(started[0] & started[1]),
        "handed_over_by_second": len(started[1]),
        "wrong_rows": sum(
            row != want
            for matrix in matrices
            for p, (row, want) in enumerate(zip(matrix.passed, planted, strict=True))
            if p not in matrix.lost
        ),
        "run_again": counts["programs_run_again"],
        "left_out": counts["programs_left_out"],
        "tasks": len(matrices),
        "seconds": round(before + after, 1),
        "executions_per_s": round(n_tasks * n_programs * n_tests / (before + after)),
        **json.loads(done.stdout),
    }


def recorded(folder: Path) -> set[str]:
    """Return the programs whose verdicts are on disk while the stage runs."""
    found: set[str] = set()
    for path in folder.glob("run/.work/execute-*/executions.jsonl"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                job = json.loads(line)["job"]
                found.update([] if job.startswith("started ") else [job])
    return found


def main() -> int:
    """Measure, print and keep the result; 1 when an invariant does not hold."""
    if sys.argv[1:2] == ["--worker"]:
        folder, *sizes, mode, started = sys.argv[2:]
        numbers = int(sizes[0]), int(sizes[1]), int(sizes[2])
        work(Path(folder), numbers, Path(started), mode == "repeats")
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--programs", type=int, default=16)
    parser.add_argument("--tests", type=int, default=16)
    parser.add_argument("--never-twice", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = asked.tasks, asked.programs, asked.tests
        result = measure(Path(folder), sizes, not asked.never_twice)
    for name, value in result.items():
        print(f"{name.replace('_', ' '):>32}  {value}")
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    holds = not result["on_disk_and_handed_over_again"] and not result["wrong_rows"]
    holds = holds and result["handed_over_twice"] <= result["run_again"]
    return 0 if holds and result["was_killed"] else 1


if __name__ == "__main__":
    sys.exit(main())
