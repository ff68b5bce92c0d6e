"""The invariants of the scale benchmark, on a small plan: killed in the middle, counters add up."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "code_scale.py"
N_TASKS, N_PROGRAMS, N_TESTS = 60, 4, 3
N_REQUESTS = N_TASKS * (N_PROGRAMS + 1)


def measure(tmp_path, *options):
    """Kill and continue the stage; one worker's window, a quarter of 16, may be under way."""
    sizes = ["--tasks", str(N_TASKS), "--programs", str(N_PROGRAMS), "--tests", str(N_TESTS)]
    out = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *sizes, *options, "--json", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(out.read_text())
    assert result["was_killed"]
    assert 0 < result["on_disk_at_kill"] < result["requests"] == N_REQUESTS
    assert result["on_disk_and_handed_over_again"] == 0
    assert (result["tasks"], result["wrong_rows"]) == (N_TASKS, 0)
    return result


def test_a_killed_execution_repeats_only_what_was_under_way_and_counts_it(tmp_path):
    result = measure(tmp_path)
    assert result["on_disk_at_kill"] + result["handed_over_by_second"] == N_REQUESTS
    assert result["handed_over_twice"] <= result["run_again"] <= 4 * len(os.sched_getaffinity(0))
    assert result["left_out"] == 0


def test_nothing_is_ever_executed_twice_where_that_is_asked_for(tmp_path):
    result = measure(tmp_path, "--never-twice")
    assert (result["handed_over_twice"], result["run_again"]) == (0, 0)
    assert result["left_out"] <= 4 * len(os.sched_getaffinity(0))
    done = result["on_disk_at_kill"] + result["handed_over_by_second"] + result["left_out"]
    assert done == N_REQUESTS
