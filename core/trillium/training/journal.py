"""The step-by-step record of a training run: metrics.jsonl and timing.jsonl.

What repeats exactly and what the clock says go to different files, so that a resumed run can be
compared with an uninterrupted one byte for byte.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from trillium.files import write_atomically


class Journal:
    """Append one line per optimizer step to both files of a run folder."""

    def __init__(self, folder: Path) -> None:
        """Keep the journal in `folder`, which must exist."""
        self._files = (folder / "metrics.jsonl", folder / "timing.jsonl")

    def rewind(self, step: int) -> None:
        """Drop the lines after optimizer step `step`, and any line that was cut short."""
        for path in self._files:
            if path.exists():
                kept = [
                    line for line in path.read_text("utf-8").splitlines() if _step(line) <= step
                ]
                write_atomically(path, "".join(line + "\n" for line in kept))

    def append(self, step: int, metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
        """Write what optimizer step `step` gave, and what it took."""
        for path, row in zip(self._files, (metrics, timing), strict=True):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")


def read_metrics(folder: Path) -> list[dict[str, int | float]]:
    """Return the metrics of every recorded step, oldest first."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
