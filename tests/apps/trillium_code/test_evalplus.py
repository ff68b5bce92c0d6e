import json

from trillium_code.evalplus import write_samples
from trillium_code.records import TaskResult


def test_every_sample_is_a_line_with_evalplus_own_id(tmp_path):
    results = [
        TaskResult("HumanEval/0", "unrated", (True, False), ("def f(): ...\n", "def g(): ...\n")),
        TaskResult("mbpp/2", "unrated", (None,), ("def h(): ...\n",)),
    ]
    write_samples(tmp_path / "samples.jsonl", results)
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert rows == [
        {"task_id": "HumanEval/0", "solution": "def f(): ...\n"},
        {"task_id": "HumanEval/0", "solution": "def g(): ...\n"},
        {"task_id": "Mbpp/2", "solution": "def h(): ...\n"},
    ]
