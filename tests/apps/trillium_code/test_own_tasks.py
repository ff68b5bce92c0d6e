import os
from collections import Counter
from pathlib import Path

import pytest
from trillium_code.contamination import find_duplicates, ngrams, shared_part
from trillium_code.execution import Job, SandboxConfig, execute
from trillium_code.programs import normalise
from trillium_code.task_files import read_tasks

TASKS = read_tasks("own")
TRAIN = [task for task in TASKS if task.split == "train"]
HELD_OUT = [task for task in TASKS if task.split == "held_out"]


@pytest.fixture(scope="module")
def outcomes():
    config = SandboxConfig()
    jobs = [Job(t.id, t.solution, t.entry_point, t.tests) for t in TASKS]
    jobs += [
        Job(f"{t.id}/wrong/{i}", program, t.entry_point, t.tests)
        for t in TASKS
        for i, program in enumerate(t.wrong)
    ]
    with config.open() as backend:
        groups = execute([[job] for job in jobs], backend, config, n_runs=1)
        return {outcome.id: outcome for (outcome,) in groups}


def test_every_reference_solution_passes_all_hidden_tests_in_the_sandbox(outcomes):
    assert [t.id for t in TASKS if not outcomes[t.id].passed_all] == []


def test_every_wrong_solution_fails_a_hidden_test_in_the_sandbox(outcomes):
    wrong = {id: outcome for id, outcome in outcomes.items() if "/wrong/" in id}
    assert len(wrong) >= len(TASKS)
    assert [id for id, out in wrong.items() if out.is_sandbox_failure or out.passed_all] == []


def test_there_are_enough_tasks_in_each_band_and_split():
    counts = Counter((task.band, task.split) for task in TASKS)
    assert counts["easy", "train"] >= 70
    assert counts["easy", "held_out"] >= 44
    assert min(counts["medium", "train"], counts["medium", "held_out"]) >= 16
    assert min(counts["hard", "train"], counts["hard", "held_out"]) >= 8
    assert len(TASKS) >= 180


def test_every_task_is_complete():
    for task in TASKS:
        assert len(task.tests) >= 5, task.id
        assert len(set(task.tests)) == len(task.tests), task.id
        assert task.wrong, task.id
        assert task.id == f"own/{task.entry_point}"
        assert task.solution.startswith(task.signature), task.id
    assert len({normalise(task.solution) for task in TASKS}) == len(TASKS)


def test_no_idea_and_no_statement_is_on_both_sides_of_the_split():
    assert {t.idea for t in TRAIN}.isdisjoint({t.idea for t in HELD_OUT})
    assert find_duplicates(TRAIN, HELD_OUT) == {}
    bodies = {t.id: ngrams(t.solution.split("\n", 1)[1], 6) for t in TASKS}
    shared = {
        (a.id, b.id): round(shared_part(bodies[a.id], bodies[b.id]), 2)
        for a in TRAIN
        for b in HELD_OUT
        if len(bodies[a.id]) >= 4 and shared_part(bodies[a.id], bodies[b.id]) > 0.7
    }
    assert shared == {}


def test_no_task_repeats_humaneval():
    folder = os.environ.get("TRILLIUM_DATA", "../shared/data")
    path = Path(folder) / "humaneval" / "HumanEval.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set TRILLIUM_DATA to the folder that holds humaneval/")
    humaneval = read_tasks(str(path))
    assert find_duplicates(TASKS, humaneval) == {}
    bodies = [ngrams(task.solution.partition('"""')[2], 12) for task in humaneval]
    for task in TASKS:
        mine = ngrams(task.solution.split("\n", 1)[1], 12)
        assert all(shared_part(mine, body) <= 0.5 for body in bodies if body), task.id
