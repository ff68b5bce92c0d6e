"""Rows that the stages of a run hand to one another, each a line of a JSON-lines file."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import TypeAdapter
from trillium.files import read_rows, write_atomically
from trillium.trees import TokenPath, TokenTree

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)
else:
    Record = TypeVar("Record")


@dataclass(frozen=True)
class Sample:
    """Hold one completion: its tokens as sampled, its text, and whether it ended by itself."""

    ids: tuple[int, ...]
    text: str
    finish: Literal["stop", "length"]


@dataclass(frozen=True)
class TaskSamples:
    """Hold the completions of one prompt; with the prompt's ids, they are whole sequences."""

    task_id: str
    prompt_ids: tuple[int, ...]
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class TaskMatrix:
    """Hold what was executed for one task: distinct programs against distinct tests.

    `members[i]` are the samples that spell program i, and `passed[i]` has a flag per test. Programs
    in `lost` met a failure of the sandbox; their flags mean nothing. Programs in `unsteady` differ
    between runs on tests that others pass or fail for good.
    """

    task_id: str
    programs: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    tests: tuple[str, ...]
    passed: tuple[tuple[bool, ...], ...]
    stub_passed: tuple[bool, ...]
    is_flaky: tuple[bool, ...]
    lost: tuple[int, ...]
    unsteady: tuple[int, ...] = ()

    @property
    def steady(self) -> list[int]:
        """Return the programs whose flags can be believed."""
        return [i for i in range(len(self.programs)) if i not in (*self.lost, *self.unsteady)]


PAIR_COLUMNS = frozenset({"margin"})
"""The columns of a pair's tree."""
ROW_LABELS = frozenset({"label"})
"""The labels of a single program's tree: 1 for chosen, 0 for rejected."""


@dataclass(frozen=True)
class CodePair:
    """Hold one pair with token ids as sampled; `gap` is in score units, or a ratio of times.

    By the model's own tests, one is right and the other wrong, or both are right and one is fast.
    """

    id: str
    task_id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen: str
    rejected: str
    gap: float
    kind: Literal["correctness", "efficiency"] = "correctness"

    def tree(self) -> TokenTree:
        """Return the pair as a token tree: the prompt is context, the completions are scored."""
        paths = [
            TokenPath(self.prompt_ids + ids, (False,) * len(self.prompt_ids) + (True,) * len(ids))
            for ids in (self.chosen_ids, self.rejected_ids)
        ]
        return TokenTree.from_paths(self.id, paths, columns={"margin": self.gap})


@dataclass(frozen=True)
class TaskResult:
    """Hold the hidden-test results of one task: per sample, or None where the sandbox failed."""

    task_id: str
    band: str
    passed: tuple[bool | None, ...]
    programs: tuple[str, ...]

    @property
    def judged(self) -> tuple[bool, ...]:
        """Return the results without the failures of the sandbox."""
        return tuple(flag for flag in self.passed if flag is not None)


@dataclass(frozen=True)
class TaskMeters:
    """Hold what programs of one task cost: least CPU seconds and opcodes, None where one failed.

    Both are beyond what the program needs to be loaded, `loading_s`: its imports are no part of
    its speed. `programs` are places in the task's matrix, or 0 for before and 1 for after.
    """

    task_id: str
    programs: tuple[int, ...]
    cpu_s: tuple[float | None, ...]
    opcode_counts: tuple[int | None, ...]
    loading_s: tuple[float | None, ...]


@dataclass(frozen=True)
class TaskSpeed:
    """Hold how much faster right programs became: a mean log ratio, and shares of couples."""

    task_id: str
    log_speedup: float
    share_faster: float
    share_slower: float


def to_row(record: "Record") -> dict[str, object]:
    """Return a record as it stands in a file."""
    return asdict(record)


def write_records(path: Path, records: Iterable["Record"]) -> None:
    """Write a file of records in one step."""
    lines = (json.dumps(to_row(record), ensure_ascii=False) + "\n" for record in records)
    write_atomically(path, "".join(lines))


def read_records(path: Path, kind: type["Record"]) -> list["Record"]:
    """Read a file of records back; the files are our own and hashed by the run's manifest."""
    adapter = TypeAdapter(list[kind])  # type: ignore[valid-type]
    return adapter.validate_python(list(read_rows(path)))
