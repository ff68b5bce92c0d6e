"""Write evaluated programs as EvalPlus reads samples, so that its own evaluator can judge them.

evalplus.evaluate --dataset humaneval --samples RUN/evalplus_after.jsonl
"""

import json
from collections.abc import Sequence
from pathlib import Path

from trillium.files import write_atomically

from trillium_code.records import TaskResult

_MBPP = "mbpp/"


def write_samples(path: Path, results: Sequence[TaskResult]) -> None:
    """Write one line per sample with `task_id` and `solution`, a whole program."""
    lines = [
        json.dumps({"task_id": _evalplus_id(result.task_id), "solution": program}) + "\n"
        for result in results
        for program in result.programs
    ]
    write_atomically(path, "".join(lines))


def _evalplus_id(task_id: str) -> str:
    """EvalPlus spells MBPP's ids Mbpp/2; HumanEval/0 is the same there."""
    return task_id.replace(_MBPP, "Mbpp/", 1) if task_id.startswith(_MBPP) else task_id
