"""The step-by-step record of a training run: metrics.jsonl, evaluations.jsonl and timing.jsonl.

What repeats exactly and what the clock says go to different files, so that a resumed run can be
compared with an uninterrupted one byte for byte.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from trillium.files import write_atomically


class Journal:
    """Append one line per optimizer step to metrics and timing, one per evaluation."""

    def __init__(self, folder: Path) -> None:
        """Keep the journal in `folder`, which must exist."""
        self._metrics = folder / "metrics.jsonl"
        self._timing = folder / "timing.jsonl"
        self._evaluations = folder / "evaluations.jsonl"

    def last_complete_step(self, eval_steps: int | None = None) -> int:
        """Return the last step up to which no step, and no evaluation that was due, is missing."""
        last = _last_in_row(self._metrics, 1)
        if eval_steps is None:
            return last
        return min(last, _last_in_row(self._evaluations, eval_steps) + eval_steps - 1)

    def rewind(self, step: int) -> None:
        """Drop the lines after optimizer step `step`, and any line that was cut short."""
        for path in (self._metrics, self._timing, self._evaluations):
            if path.exists():
                kept = [line for line in _lines(path) if _step(line) <= step]
                write_atomically(path, "".join(line + "\n" for line in kept))

    def append(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Write what optimizer step `step` gave, and what it took."""
        _append(self._metrics, step, metrics)
        _append(self._timing, step, timing)

    def append_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write what the held-out trees gave after optimizer step `step`."""
        _append(self._evaluations, step, metrics)


def read_metrics(folder: Path) -> list[dict[str, int | float]]:
    """Return the metrics of every recorded step, oldest first."""
    return _read(folder / "metrics.jsonl")


def read_evaluations(folder: Path) -> list[dict[str, int | float]]:
    """Return the metrics of every evaluation, oldest first."""
    return _read(folder / "evaluations.jsonl")


def _append(path: Path, step: int, row: Mapping[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **row}) + "\n")


def _read(path: Path) -> list[dict[str, int | float]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _last_in_row(path: Path, stride: int) -> int:
    """Return the last of the steps stride, 2 stride, ... before the first that has no line."""
    recorded = {_step(line) for line in _lines(path)} if path.exists() else set()
    step = stride
    while step in recorded:
        step += stride
    return step - stride


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", errors="replace").splitlines()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
