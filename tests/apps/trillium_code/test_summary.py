import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from trillium.evaluation import format_interval
from trillium.manifest import StageRecord
from trillium_code.records import TaskResult, TaskSpeed
from trillium_code.summary import (
    cost_rows,
    gains_rows,
    measure_cost,
    measure_gains,
    measure_speed,
    render_summary,
    speed_rows,
)


def results(*flags):
    return [
        TaskResult(f"t/{i}", "easy", tuple(row), ("",) * len(row)) for i, row in enumerate(flags)
    ]


def record(seconds, **counts):
    return StageRecord(input_hash="0" * 64, inputs={}, outputs={}, seconds=seconds, counts=counts)


STAGES = {
    "sample_programs": record(10.0, tokens=1000, peak_memory_bytes=1 << 30),
    "sample_after": record(10.0, tokens=2000, peak_memory_bytes=3 << 30),
    "execute": record(2.0, sandbox_failures=1),
    "pair": record(
        0.5,
        pairs=7,
        paired_tasks=4,
        kept_tests=20,
        impossible_tests=3,
        trivial_tests=2,
        flaky_tests=1,
        uncalled_tests=0,
    ),
    "align": record(20.0, tokens=5000, steps=9, stopped_early=0, peak_memory_bytes=2 << 30),
}


def test_pass_at_k_is_averaged_over_tasks_and_paired():
    """Before: 1/2 and 0/2. After: 2/2 and 1/2. pass@1 .25 -> .75; pass@2 (1 + 0)/2 -> 1."""
    gains = measure_gains(
        results([True, False], [False, False]), results([True, True], [False, True]), (1, 2)
    )
    assert gains.by_k[1].before.mean == pytest.approx(0.25)
    assert gains.by_k[1].after.mean == pytest.approx(0.75)
    assert gains.by_k[2].gain.mean == pytest.approx(0.5)
    assert (gains.by_k[1].n_better, gains.n_tasks, gains.n_samples) == (2, 2, 2)


def test_programs_that_the_sandbox_lost_are_left_out_and_counted():
    gains = measure_gains(
        results([True, None], [False, False]), results([True, True], [True, False]), (1, 2)
    )
    assert gains.n_lost_programs == 1
    assert gains.by_k[1].before.mean == pytest.approx(0.5)
    assert gains.by_k[2].n_tasks == 1


def test_cost_adds_tokens_over_seconds_and_takes_the_highest_memory():
    cost = measure_cost(STAGES)
    assert cost.sampled_tokens_per_s == pytest.approx(150.0)
    assert cost.trained_tokens_per_s == pytest.approx(250.0)
    assert cost.peak_memory_bytes == 3 << 30


def test_the_closing_table_counts_what_kills_and_servers_took_from_exactness():
    gains = measure_gains(results([True, False]), results([True, True]), (1,))
    names = {name for name, _ in cost_rows(gains, measure_cost(STAGES), STAGES)}
    assert not names & {"run again after a kill", "left out after a kill", "token ids"}
    execute = {"programs_run_again": 3, "executions_again": 24, "programs_left_out": 1}
    stages = STAGES | {
        "execute": record(2.0, **execute),
        "judge_after": record(1.0, programs_run_again=1, executions_again=2),
        "sample_after": record(10.0, tokens=2000, encoded_again=7),
    }
    rows = dict(cost_rows(gains, measure_cost(stages), stages))
    assert rows["run again after a kill"] == "4 programs, 26 executions"
    assert rows["left out after a kill"] == "1 programs"
    assert rows["token ids"] == "of 7 completions encoded again from text"


def test_the_closing_table_says_what_was_gained_and_what_it_cost():
    gains = measure_gains(results([True, False]), results([True, True]), (1,))
    rows = dict(cost_rows(gains, measure_cost(STAGES), STAGES))
    assert rows["pairs"] == "7 from 4 training tasks"
    assert rows["own tests"] == "20 kept; removed: 3 impossible, 2 trivial, 1 flaky, 0 uncalled"
    assert rows["peak memory"] == "3.00 GiB"
    assert rows["sandbox failures"] == "1 (excluded)"
    assert "unsteady programs" not in rows
    shaky = {**STAGES, "execute": record(2.0, unsteady_programs=2)}
    assert dict(cost_rows(gains, measure_cost(shaky), shaky))["unsteady programs"] == "2 (excluded)"
    assert gains_rows(gains)[0][0] == "pass@1"
    console = Console(width=80, record=True, file=StringIO())
    console.print(render_summary(gains, measure_cost(STAGES), STAGES))
    text = console.export_text()
    assert "1 held-out tasks, 2 programs each" in text
    assert "pass@1" in text
    assert "7 from 4 training tasks" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_gpus_memory_is_told_beside_the_machines():
    gains = measure_gains(results([True, False]), results([True, True]), (1,))
    stages = STAGES | {"sample_after": record(10.0, tokens=9, peak_gpu_bytes=5 << 29)}
    rows = dict(cost_rows(gains, measure_cost(stages), stages))
    assert rows["peak memory"] == "2.00 GiB, 2.50 GiB on the GPU"


def test_an_interval_reads_as_mean_and_bounds():
    gains = measure_gains(results([True, False]), results([True, True]), (1,))
    assert format_interval(gains.by_k[1].gain, sign=True) == "+0.500 [+0.50, +0.50]"


def test_speed_is_averaged_over_tasks_geometrically():
    """Twice as fast on one task and as fast on another: sqrt(2) on the mean."""
    speed = measure_speed([TaskSpeed("a", math.log(2), 1.0, 0.0), TaskSpeed("b", 0.0, 0.0, 0.0)])
    assert speed.speedup.mean == pytest.approx(math.sqrt(2))
    assert (speed.share_faster.mean, speed.share_slower.mean, speed.n_tasks) == (0.5, 0.0, 2)
    assert measure_speed([]) is None


def test_plus_tests_and_speed_stand_beside_pass_at_k():
    gains = measure_gains(results([True, False]), results([True, True]), (1,))
    speed = measure_speed([TaskSpeed("a", math.log(2), 1.0, 0.0)])
    whole = replace(gains, plus_by_k=gains.by_k, speed=speed)
    assert [row[0] for row in gains_rows(whole)] == ["pass@1", "pass@1, plus tests"]
    assert speed_rows(whole)[0] == ("speed-up", "2.000 [2.00, 2.00] on 1 tasks that both solve")
    assert speed_rows(gains) == []
