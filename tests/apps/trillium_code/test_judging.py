import pytest
from trillium.config import load_config
from trillium.errors import BackendError
from trillium.runs import Run
from trillium_code.config import CodeConfig
from trillium_code.execution import SandboxConfig
from trillium_code.judging import judge_stage
from trillium_code.records import Sample, TaskSamples
from trillium_code.task_files import document
from trillium_code.tasks import CodeTask

TASK = CodeTask(
    "t/inc",
    "inc",
    document("def inc(n):", "Add one.", None),
    "Add one.",
    tests=("assert inc(1) == 2", "assert inc(5) == 6"),
)
SAMPLES = TaskSamples(
    "t/inc",
    (1,),
    tuple(Sample((), f"\n    return {body}", "stop") for body in ("n + 1", "2", "n + 1", "n +")),
)
SANDBOX = SandboxConfig(wall_s=2.0)


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", load_config(CodeConfig, None), seed=0) as opened:
        yield opened


def test_each_sample_is_judged_by_all_hidden_tests_and_equal_ones_alike(run):
    (result,) = judge_stage(run.stage("judge", {}), "results.jsonl", [TASK], [SAMPLES], SANDBOX)
    assert result.passed == (True, False, True, False)
    assert run.manifest.stages["judge"].counts["passed"] == 2
    again = run.stage("judge", {})
    assert not again.is_due
    assert judge_stage(again, "results.jsonl", [TASK], [SAMPLES], SANDBOX) == [result]


def test_a_failing_sandbox_gives_no_results_and_the_next_start_tries_again(run):
    lost = TaskSamples("t/inc", (1,), SAMPLES.samples[:1])
    stage = run.stage("judge", {})
    with stage.rows("results.jsonl", key="task_id") as rows:
        rows.append({"task_id": "t/inc", "band": "easy", "passed": [None], "programs": [""]})
    with pytest.raises(BackendError, match="failed for 1 of 1 programs"):
        judge_stage(stage, "results.jsonl", [TASK], [lost], SANDBOX)
    (result,) = judge_stage(run.stage("judge", {}), "results.jsonl", [TASK], [lost], SANDBOX)
    assert result.passed == (True,)
