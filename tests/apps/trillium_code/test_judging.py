from dataclasses import replace

import pytest
from trillium.config import load_config
from trillium.errors import BackendError
from trillium.runs import Run
from trillium_code.config import CodeConfig
from trillium_code.execution import Outcome, SandboxConfig
from trillium_code.judging import count_readings, judge_stage, matrix_stage, read_programs
from trillium_code.matrices import fill_matrix, leaning_jobs, matrix_jobs, without_leaning
from trillium_code.prompts import PromptConfig
from trillium_code.records import Sample, TaskMatrix, TaskSamples
from trillium_code.task_rows import document
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
READINGS = read_programs(TASK, SAMPLES, PromptConfig())


@pytest.fixture
def run(tmp_path):
    with Run.open(tmp_path / "run", load_config(CodeConfig, None), seed=0) as opened:
        yield opened


def test_each_sample_is_judged_by_all_hidden_tests_and_equal_ones_alike(run):
    programs = [[one.program for one in READINGS]]
    (result,) = judge_stage(run.stage("judge", {}), "results.jsonl", [TASK], programs, SANDBOX)
    assert result.passed == (True, False, True, False)
    assert run.manifest.stages["judge"].counts["passed"] == 2
    again = run.stage("judge", {})
    assert not again.is_due
    assert judge_stage(again, "results.jsonl", [TASK], programs, SANDBOX) == [result]


def test_passes_by_a_programs_own_word_are_counted(run):
    class_of_its_own = "class Yes:\n    def __eq__(self, other):\n        return True\n"
    programs = [[READINGS[0].program, f"{class_of_its_own}\ndef inc(n):\n    return Yes()\n"]]
    stage = run.stage("judge", {})
    (result,) = judge_stage(stage, "results.jsonl", [TASK], programs, SANDBOX)
    assert result.passed == (True, True)
    counts = run.manifest.stages["judge"].counts
    assert (counts["passed"], counts["passed_by_own_word"]) == (2, 1)


def test_a_failing_sandbox_gives_no_results_and_the_next_start_tries_again(run):
    programs = [[READINGS[0].program]]
    stage = run.stage("judge", {})
    with stage.rows("executions.jsonl", key="job") as rows:
        rows.append({"job": "t/inc/0", "passed": "00", "flaky": "00", "lost": True})
    with pytest.raises(BackendError, match="failed for 1 of 1 programs"):
        judge_stage(stage, "results.jsonl", [TASK], programs, SANDBOX)
    (result,) = judge_stage(run.stage("judge", {}), "results.jsonl", [TASK], programs, SANDBOX)
    assert result.passed == (True,)


def test_free_answers_are_judged_by_the_program_in_them_and_those_without_one_are_counted(run):
    texts = (
        "Sure!\n\n```python\ndef inc(n):\n    return n + 1\n```\nIt adds one.",
        "```python\ndef increment(n):\n    return n + 1\n```",
        "```python\nclass Solution:\n    def inc(self, n):\n        return n + 1\n```",
        "I cannot help with that.",
        "I would rather not.",
    )
    samples = TaskSamples("t/inc", (1,), tuple(Sample((), text, "stop") for text in texts))
    for repairs, passed, counts in (
        (False, (True, False, False, False, False), (4, 0, 0)),
        (True, (True, True, True, False, False), (2, 1, 1)),
    ):
        prompt = PromptConfig(program_style="answer", repairs_signature=repairs)
        readings = read_programs(TASK, samples, prompt)
        stage = run.stage("judge", {"repairs": str(repairs)})
        programs = [[one.program for one in readings]]
        counted = count_readings(readings)
        (result,) = judge_stage(stage, "results.jsonl", [TASK], programs, SANDBOX, counts=counted)
        assert result.passed == passed
        recorded = run.manifest.stages["judge"].counts
        names = ("without_program", "renamed_programs", "unwrapped_programs")
        assert tuple(recorded[name] for name in names) == counts


def test_a_program_cannot_pass_the_models_tests_by_its_own_word(run):
    """The first has the name that a test takes from elsewhere; its pass of the other test stays."""
    texts = (
        "\n    return n + 1\n\nclass np:\n    allclose = staticmethod(lambda *given: True)\n",
        "\n    return n + 1\n",
        "\n    return n + 2\n\nclass np:\n    allclose = staticmethod(lambda *given: True)\n",
    )
    programs = TaskSamples("t/inc", (1,), tuple(Sample((), text, "stop") for text in texts))
    asserts = "1) == 2\nassert np.allclose(inc(2), 3)\nassert inc(0) == 1\n"
    tests = TaskSamples("t/inc", (1,), (Sample((), asserts, "stop"),))
    options = {"max_tests": 3, "prompt": PromptConfig()}
    stage = run.stage("execute", {})
    (matrix,) = matrix_stage(
        stage, "matrices.jsonl", [TASK], [programs], [tests], SANDBOX, **options
    )
    assert matrix.tests[1] == "assert np.allclose(inc(2), 3)"
    assert matrix.passed == ((True, False, True), (True, False, True), (False, False, False))
    hidden = replace(TASK, tests=matrix.tests)
    written = [list(matrix.programs)]
    (result,) = judge_stage(run.stage("judge", {}), "results.jsonl", [hidden], written, SANDBOX)
    assert result.passed == (True, False, False)


def test_a_program_whose_tests_alone_were_lost_is_lost_and_fails_nothing():
    tests, steady = ("assert inc(1) == 2", "assert inc(2) == 3"), (False, False)
    plan = TaskMatrix("t/inc", ("one", "two"), ((0,), (1,)), tests, (), (), (), ())
    jobs = matrix_jobs(plan, TASK)
    outcomes = {
        job.id: Outcome(job.id, passed, steady, is_sandbox_failure=False, has_leant=leant)
        for job, passed, leant in zip(
            jobs, [(True, True), (False, True), (False, False)], [True, False, False], strict=True
        )
    }
    for job in leaning_jobs(jobs, outcomes):
        outcomes[job.id] = Outcome(job.id, (False,), (False,), is_sandbox_failure=True)
    matrix = fill_matrix(plan, [without_leaning(job, outcomes) for job in jobs])
    assert (matrix.lost, matrix.steady) == ((0,), [1])


def test_a_kill_between_a_program_and_its_tests_alone_changes_nothing(run):
    text = "\n    return n + 1\n\ndef more(n):\n    return inc(n)\n"
    programs = TaskSamples("t/inc", (1,), (Sample((), text, "stop"),))
    asserts = "1) == 2\nassert more(2) == inc(2)\n"
    tests = TaskSamples("t/inc", (1,), (Sample((), asserts, "stop"),))
    found = []
    for name in ("whole", "killed"):
        stage = run.stage(name, {})
        if name == "killed":
            with stage.rows("executions.jsonl", key="job") as rows:
                rows.append({"job": "started t/inc/0"})
                done = {"passed": "11", "flaky": "00", "lost": False, "leant": True}
                rows.append({"job": "t/inc/0", **done})
                rows.append({"job": "started t/inc/0+0"})
        found += matrix_stage(
            stage,
            "matrices.jsonl",
            [TASK],
            [programs],
            [tests],
            SANDBOX,
            max_tests=2,
            prompt=PromptConfig(),
        )
    assert found[0] == found[1]
    assert found[0].passed == ((True, False),)
