"""Programming tasks: what to write, what a program starts with, and the tests that judge it.

The hidden tests of a task are for evaluation alone. Nothing that trains a model may read them; the
pipeline samples its own tests instead. Files are read in `task_files.py`.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from trillium.errors import ConfigError, DataError
from trillium.files import hash_json

from trillium_code.syntax import describe, lines_of, parse

Split = Literal["train", "held_out"]
Band = Literal["easy", "medium", "hard", "unrated"]
BANDS: tuple[Band, ...] = ("easy", "medium", "hard", "unrated")


@dataclass(frozen=True)
class CodeTask:
    """Hold one task. `header` is the code a program begins with: imports, signature, docstring.

    `tests` are the hidden ones, each a statement that raises when the program is wrong. `solution`
    and `wrong` are whole programs that pass all hidden tests and fail at least one.
    """

    id: str
    entry_point: str
    header: str
    statement: str
    tests: tuple[str, ...] = ()
    band: Band = "unrated"
    split: Split | None = None
    idea: str = ""
    solution: str | None = None
    wrong: tuple[str, ...] = ()

    @property
    def signature(self) -> str:
        """Return the lines of the header from `def` to the colon that ends the signature."""
        return signature_of(self.header, self.entry_point)

    @property
    def hash(self) -> str:
        """Return a hash of what a model or a judge sees of the task."""
        return hash_json([self.id, self.entry_point, self.header, self.statement, self.tests])


class TaskSource(BaseModel):
    """Choose tasks: our own set, an asset, or a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field("own", description="own | humaneval | path of a .jsonl or .jsonl.gz file")
    split: Split | Literal["all"] | None = Field(
        None, description="train | held_out | all; null = the part for its role, if it has parts"
    )
    bands: tuple[Band, ...] = Field(BANDS, min_length=1, description="difficulty bands to keep")
    first: int = Field(0, ge=0, description="number of tasks to skip, in file order")
    limit: int | None = Field(None, gt=0, description="tasks to keep after that; null = all")


def select(tasks: Sequence[CodeTask], source: TaskSource, role: Split) -> list[CodeTask]:
    """Return the tasks that `source` chooses for a role, in file order.

    Raises ConfigError when none is left.
    """
    has_parts = any(task.split is not None for task in tasks)
    split = source.split or (role if has_parts else "all")
    kept = [task for task in tasks if task.band in source.bands and split in ("all", task.split)]
    end = None if source.limit is None else source.first + source.limit
    chosen = kept[source.first : end]
    if not chosen:
        raise ConfigError(
            f"tasks {source.source}: none of {len(tasks)} tasks is left (split {split}, "
            f"bands {', '.join(source.bands)}, from number {source.first} on); loosen the selection"
        )
    return chosen


def signature_of(header: str, entry_point: str) -> str:
    """Cut the signature of `entry_point` out of `header`; raises DataError when it is not there."""
    try:
        tree = parse(header.rstrip() + "\n    pass\n")
    except SyntaxError as error:
        raise DataError(
            f"the code before the solution does not parse ({describe(error)}); "
            "it must end in the signature or the docstring of the function"
        ) from None
    lines = lines_of(header)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == entry_point:
            return "\n".join(lines[node.lineno - 1 : max(node.body[0].lineno - 1, node.lineno)])
    raise DataError(
        f'the code before the solution defines no function "{entry_point}"; '
        "entry_point must be the name of the function that the prompt begins"
    )
