"""Tasks of a run, read, checked and kept apart, before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.objectives.table import needs_of
from trillium.training.fit import check_options

from trillium_code.config import CodeConfig
from trillium_code.contamination import find_duplicates
from trillium_code.records import PAIR_COLUMNS
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

    Raises DataError for files that cannot be used, ConfigError when a set is empty, a held-out task
    has no tests, or the objective needs what pairs of programs do not have.
    """
    check_objective(config)
    held_out = select(read_tasks(config.tasks.held_out.source), config.tasks.held_out, "held_out")
    train = select(read_tasks(config.tasks.train.source), config.tasks.train, "train")
    untested = [task.id for task in held_out if not task.tests]
    if untested:
        raise ConfigError(
            f"tasks.held_out: without hidden tests are {len(untested)} of {len(held_out)}, the "
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


def check_objective(config: CodeConfig) -> None:
    """Raise ConfigError for an objective that cannot be computed on pairs of programs."""
    objective = config.objective
    check_options(objective, config.train, n_held_out=0)
    needs = needs_of(objective)
    if needs.shape != "pair":
        raise ConfigError(
            f"objective {objective.name} needs labelled rows and sampled programs come in pairs; "
            "set objective.name=dpo, or another objective of pairs"
        )
    missing = sorted({*needs.labels, *needs.columns} - PAIR_COLUMNS)
    if missing:
        raise ConfigError(
            f'objective {objective.name} needs column "{missing[0]}" and pairs of programs have '
            f"only {', '.join(sorted(PAIR_COLUMNS))}; set objective.name=dpo, or another "
            "objective without such columns"
        )


def check_apart(train: Sequence[CodeTask], held_out: Sequence[CodeTask]) -> None:
    """Stop when a task is on both sides: no held-out task may ever be trained on."""
    shared = {task.id for task in train} & {task.id for task in held_out}
    shared |= {task.id for task in train if task.header in {other.header for other in held_out}}
    assert not shared, f"tasks on both sides of the split: {sorted(shared)}"
