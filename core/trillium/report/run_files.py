"""What run folders hold that can be compared: journals, results by task, samples by prompt.

Rows are told apart by their fields, not by the application that wrote them:

    task_id, passed           results of a task, one per sample (its programs are `programs`)
    problem_id, turns         a trajectory with its `reward`
    name, mean/low/high ...   measures of a system, with intervals
    prompt, completion        a response as text
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from trillium.evaluation import Interval
from trillium.files import read_rows
from trillium.report.content import Sample
from trillium.rowfiles import fields_of

Record = Mapping[str, object]
JOURNALS = ("metrics.jsonl", "evaluations.jsonl")


def shared_files(folders: Sequence[Path]) -> list[str]:
    """Return the row files that at least two folders have, by their path within the folder."""
    names = [
        {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*.jsonl")
            if ".work" not in path.parts
        }
        for folder in folders
    ]
    return sorted(name for name in set().union(*names) if sum(name in one for one in names) > 1)


def read_journal(path: Path) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return each measure of a journal as steps and values; nothing where there is no journal.

    Steps are the field `step`, else `epoch`, else the number of the line.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    for number, row in enumerate(_rows(path), start=1):
        step = row.get("step", row.get("epoch", number))
        for key, value in row.items():
            if key not in ("step", "epoch") and _is_number(value) and _is_number(step):
                steps, values = found.setdefault(key, ([], []))
                steps.append(_number(step))
                values.append(_number(value))
    return {key: (tuple(steps), tuple(values)) for key, (steps, values) in found.items()}


def read_task_values(path: Path) -> dict[str, float]:
    """Return the mean result of every task or problem of a file; failures of a sandbox are out."""
    fields = fields_of(path)
    results: dict[str, list[float]] = {}
    if {"task_id", "passed"} <= fields:
        for row in _rows(path):
            flags = row["passed"]
            assert isinstance(flags, list)
            known = [float(flag) for flag in flags if flag is not None]
            results.setdefault(str(row["task_id"]), []).extend(known)
    elif {"problem_id", "turns", "reward"} <= fields:
        for row in _rows(path):
            known = [_number(row["reward"])] if _is_number(row["reward"]) else []
            results.setdefault(str(row["problem_id"]), []).extend(known)
    return {task: statistics.fmean(values) for task, values in results.items() if values}


def read_measures(path: Path) -> dict[tuple[str, str], Interval]:
    """Return the intervals of a file of named systems, by system and measure."""
    if "name" not in fields_of(path):
        return {}
    found = {}
    for row in _rows(path):
        for key, value in row.items():
            if isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys():
                ends = [_number(value[end]) for end in ("mean", "low", "high")]
                found[str(row["name"]), key] = Interval(ends[0], ends[1], ends[2])
    return found


def read_texts(path: Path) -> dict[tuple[str, str], Sample]:
    """Return the first text of every prompt, by a name and what the prompt says."""
    found: dict[tuple[str, str], Sample] = {}
    reader = next((read for fields, read in _READERS if fields <= fields_of(path)), None)
    for row in _rows(path) if reader is not None else ():
        assert reader is not None
        for name, prompt, sample in reader(row):
            found.setdefault((name, prompt), sample)
    return found


def _task_texts(row: Record) -> Iterator[tuple[str, str, Sample]]:
    programs, passed = row["programs"], row["passed"]
    assert isinstance(programs, list)
    assert isinstance(passed, list)
    if programs:
        yield str(row["task_id"]), "", _judged(str(programs[0]), passed[0] if passed else None)


def _trajectory_texts(row: Record) -> Iterator[tuple[str, str, Sample]]:
    turns = row["turns"]
    assert isinstance(turns, list)
    written = next((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), len(turns))
    asked = [turn["content"] for turn in turns[:written] if turn["role"] == "user"]
    text = "\n".join(f"[{turn['role']}] {turn['content']}" for turn in turns[written:])
    yield str(row["problem_id"]), "\n".join(asked), _judged(text, row.get("reward"))


def _plain_texts(row: Record) -> Iterator[tuple[str, str, Sample]]:
    prompt, text = row["prompt"], row["completion"]
    if isinstance(prompt, str) and isinstance(text, str):
        label = row.get("label")
        name = " ".join(prompt.split())[:80]
        yield name, prompt, _judged(text, label if isinstance(label, bool) else None)


_READERS: tuple[tuple[set[str], Callable[[Record], Iterator[tuple[str, str, Sample]]]], ...] = (
    ({"task_id", "passed", "programs"}, _task_texts),
    ({"problem_id", "turns", "reward"}, _trajectory_texts),
    ({"prompt", "completion"}, _plain_texts),
)


def _judged(text: str, result: object) -> Sample:
    if not _is_number(result):
        return Sample(text)
    is_good = _number(result) > 0
    return Sample(text, "right" if is_good else "wrong", is_good)


def _rows(path: Path) -> Iterator[Record]:
    return read_rows(path) if path.is_file() else iter(())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
