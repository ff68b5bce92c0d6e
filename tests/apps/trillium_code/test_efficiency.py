import math
from dataclasses import replace

import pytest
from trillium.config import load_config
from trillium.runs import Run
from trillium_code.config import CodeConfig
from trillium_code.efficiency import (
    EfficiencyConfig,
    Race,
    build_fast_pair,
    measure_stage,
    plan_race,
    plan_speed_race,
    task_speed,
)
from trillium_code.execution import SandboxConfig
from trillium_code.pairs import RankConfig, build_pairs
from trillium_code.records import Sample, TaskMatrix, TaskMeters, TaskResult, TaskSamples
from trillium_code.tasks import CodeTask

CONFIG = EfficiencyConfig(n_rounds=3)
SLOW = "def total(n):\n    s = 0\n    for i in range(n + 1):\n        s += i\n    return s\n"
FAST = "def total(n):\n    return n * (n + 1) // 2\n"
WRONG = "def total(n):\n    return n\n"
SAMPLES = TaskSamples(
    "t/total",
    (1, 2),
    (Sample((3, 9), "", "stop"), Sample((4, 9), "", "stop"), Sample((5, 9), "", "stop")),
)
MATRIX = TaskMatrix(
    task_id="t/total",
    programs=(SLOW, FAST, WRONG),
    members=((0,), (1,), (2,)),
    tests=("assert total(90000) == 4050045000", "assert total(2) == 3", "assert total(5) == 6"),
    passed=((True, True, False), (True, True, False), (False, False, False)),
    stub_passed=(False,) * 3,
    is_flaky=(False,) * 3,
    lost=(),
)


def race():
    ranking, _ = build_pairs(SAMPLES, MATRIX, "total", RankConfig())
    return plan_race(SAMPLES, MATRIX, ranking, "total", CONFIG)


def test_programs_that_pass_every_credible_test_are_measured_on_those_tests():
    assert race() == Race("t/total", "total", (0, 1), (SLOW, FAST), MATRIX.tests[:2])


def test_a_task_without_a_correctness_pair_is_not_measured():
    ranking, _ = build_pairs(SAMPLES, MATRIX, "total", RankConfig(min_agreement=5))
    assert plan_race(SAMPLES, MATRIX, ranking, "total", CONFIG) is None


def test_a_program_that_differs_between_runs_is_not_measured():
    ranking, _ = build_pairs(SAMPLES, MATRIX, "total", RankConfig())
    unsteady = replace(MATRIX, unsteady=(1,))
    assert plan_race(SAMPLES, unsteady, ranking, "total", CONFIG) is None


def test_the_sandbox_meter_tells_a_loop_from_a_formula(tmp_path):
    with Run.open(tmp_path / "run", load_config(CodeConfig, None), seed=0) as run:
        stage, sandbox = run.stage("measure", {}), SandboxConfig(wall_s=5.0)
        (meters,) = measure_stage(stage, "meters.jsonl", [race()], CONFIG, sandbox)
        assert measure_stage(run.stage("measure", {}), "meters.jsonl", [race()], CONFIG, sandbox)
        assert not run.stage("measure", {}).is_due
    pair = build_fast_pair(SAMPLES, MATRIX, meters, CONFIG)
    assert (pair.kind, pair.chosen, pair.rejected) == ("efficiency", FAST, SLOW)
    assert (pair.chosen_ids, pair.rejected_ids) == ((4, 9), (3, 9))
    assert pair.gap >= CONFIG.min_ratio


def test_what_a_program_imports_is_no_part_of_its_cost(tmp_path):
    """The formula imports, which takes many times as long as the loop takes on small numbers."""
    tests = ("assert total(2) == 3", "assert total(5) == 15")
    sources = (SLOW, "from dataclasses import dataclass\n" + FAST)
    small = Race("t/total", "total", (0, 1), sources, tests)
    with Run.open(tmp_path / "run", load_config(CodeConfig, None), seed=0) as run:
        stage, sandbox = run.stage("measure", {}), SandboxConfig(wall_s=5.0)
        (meters,) = measure_stage(stage, "meters.jsonl", [small], CONFIG, sandbox)
    slow, fast = meters.opcode_counts
    assert fast < slow < 200  # the import alone executes tens of thousands
    assert build_fast_pair(SAMPLES, MATRIX, meters, CONFIG) is None


def test_programs_that_need_little_beside_being_loaded_are_not_compared():
    """Below 1 ms, half of loading the first, counts as 1 ms: 1 against 1, then 1 against 3."""
    loading = (0.002, 0.001)
    little = TaskMeters("t/total", (0, 1), (0.0001, 0.0009), (100, 900), loading)
    assert build_fast_pair(SAMPLES, MATRIX, little, CONFIG) is None
    assert task_speed(little).log_speedup == 0.0
    enough = TaskMeters("t/total", (0, 1), (0.0, 0.003), (100, 900), loading)
    assert build_fast_pair(SAMPLES, MATRIX, enough, CONFIG).gap == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("cpu_s", "opcodes", "expected"),
    [
        ((0.010, 0.020), (100, 200), (0, 2.0)),
        ((0.020, 0.010), (200, 100), (1, 2.0)),
        ((0.010, 0.011), (100, 150), (0, 1.5)),
        ((0.010, 0.020), (200, 100), None),
        ((0.010, 0.0115), (100, 100), None),
        ((0.010, None), (100, None), None),
    ],
)
def test_a_pair_needs_a_clear_ratio_and_meters_that_agree(cpu_s, opcodes, expected):
    meters = TaskMeters("t/total", (0, 1), cpu_s, opcodes, (0.001, 0.001))
    pair = build_fast_pair(SAMPLES, MATRIX, meters, CONFIG)
    if expected is None:
        assert pair is None
    else:
        chosen, ratio = expected
        assert pair.chosen == (SLOW, FAST)[chosen]
        assert pair.gap == pytest.approx(ratio)


def test_speed_is_the_mean_log_ratio_over_couples_of_right_programs():
    """Two before (4, 2 ms), one after (1 ms): ratios 4 and 2; a failed fourth is left out."""
    cpu_s, loading_s = (0.004, 0.002, 0.001, None), (0.001, 0.001, 0.001, None)
    meters = TaskMeters("t", (0, 0, 1, 1), cpu_s, (400, 200, 100, None), loading_s)
    speed = task_speed(meters)
    assert speed.log_speedup == pytest.approx((math.log(4) + math.log(2)) / 2)
    assert (speed.share_faster, speed.share_slower) == (1.0, 0.0)
    assert task_speed(TaskMeters("t", (0, 1), (0.004, None), (400, None), (0.001, None))) is None


def test_only_tasks_that_both_policies_solve_are_raced():
    task = CodeTask("t", "total", "def total(n):\n", "?", tests=("assert total(2) == 3",))
    both = TaskResult("t", "easy", (True, True, False), (SLOW, SLOW, WRONG))
    after = TaskResult("t", "easy", (True, None, True), (FAST, WRONG, SLOW))
    found = plan_speed_race(task, both, after, 6)
    assert (found.programs, found.sources) == ((0, 1, 1), (SLOW, FAST, SLOW))
    none = TaskResult("t", "easy", (False,), (WRONG,))
    assert plan_speed_race(task, both, none, 6) is None
