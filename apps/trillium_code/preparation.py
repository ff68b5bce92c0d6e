"""Tasks of a run, read, checked and kept apart, before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from trillium.errors import ConfigError
from trillium.files import hash_json

from trillium_code.config import CodeConfig
from trillium_code.contamination import find_duplicates
from trillium_code.task_files import read_tasks
from trillium_code.tasks import CodeTask, select


@dataclass(frozen=True)
class RunTasks:
    """Hold the tasks of a run; `removed` maps training tasks left out to the task they repeat."""

    train: tuple[CodeTask, ...]
    held_out: tuple[CodeTask, ...]
    removed: dict[str, str]

    @property
    def held_out_hash(self) -> str:
        """Return the hash of the tasks that judge, tests included."""
        return hash_json([task.hash for task in self.held_out])


def prepare_tasks(config: CodeConfig) -> RunTasks:
    """Read and select both sets; remove training tasks that repeat a held-out one.

    Raises DataError for files that cannot be used, ConfigError when a set is empty or a held-out
    task has no tests.
    """
    held_out = select(read_tasks(config.tasks.held_out.source), config.tasks.held_out, "held_out")
    train = select(read_tasks(config.tasks.train.source), config.tasks.train, "train")
    untested = [task.id for task in held_out if not task.tests]
    if untested:
        raise ConfigError(
            f"tasks.held_out: {len(untested)} of {len(held_out)} tasks have no hidden tests, the "
            f"first is {untested[0]} (evaluation needs one or more each); add tests to the file"
        )
    removed = find_duplicates(train, held_out, limit=config.tasks.max_overlap)
    kept = tuple(task for task in train if task.id not in removed)
    if not kept:
        raise ConfigError(
            f"tasks.train: all {len(train)} tasks repeat held-out tasks, the first is "
            f"{train[0].id}; choose another split, or other files"
        )
    check_apart(kept, held_out)
    return RunTasks(kept, tuple(held_out), removed)


def check_apart(train: Sequence[CodeTask], held_out: Sequence[CodeTask]) -> None:
    """Stop when a task is on both sides: no held-out task may ever be trained on."""
    shared = {task.id for task in train} & {task.id for task in held_out}
    shared |= {task.id for task in train if task.header in {other.header for other in held_out}}
    assert not shared, f"tasks on both sides of the split: {sorted(shared)}"
