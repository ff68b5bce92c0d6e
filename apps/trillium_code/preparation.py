"""Tasks of a run, read, checked and kept apart, before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.objectives.table import needs_of
from trillium.training.fit import check_options

from trillium_code.config import CodeConfig
from trillium_code.contamination import find_duplicates
from trillium_code.records import PAIR_COLUMNS, ROW_LABELS
from trillium_code.task_files import read_task_file
from trillium_code.tasks import CodeTask, select

_MOST_SHOWN = 3


@dataclass(frozen=True)
class RunTasks:
    """Hold the tasks of a run; `removed` maps training tasks left out to the task they repeat.

    `plus` are held-out tasks again, with more tests. `set_aside` holds a sentence for each row of
    a file that could not be used.
    """

    train: tuple[CodeTask, ...]
    held_out: tuple[CodeTask, ...]
    removed: dict[str, str]
    plus: tuple[CodeTask, ...] = ()
    set_aside: tuple[str, ...] = ()

    @property
    def held_out_hash(self) -> str:
        """Return the hash of the tasks that judge, tests included."""
        return hash_json([task.hash for task in self.held_out])


def prepare_tasks(config: CodeConfig) -> RunTasks:
    """Read and select both sets; remove training tasks that repeat a held-out one.

    Rows that cannot be used, and held-out tasks without tests, are set aside. Raises DataError for
    files without any usable row, ConfigError when a set is empty, when an id is in both, or when
    the objective needs what programs do not have.
    """
    check_objective(config)
    sources = config.tasks
    files = {
        source: read_task_file(source)
        for source in dict.fromkeys((sources.held_out.source, sources.train.source))
    }
    aside = [row for found in files.values() for row in (*found.problems, *found.skipped)]
    held_out = select(files[sources.held_out.source].tasks, sources.held_out, "held_out")
    train = select(files[sources.train.source].tasks, sources.train, "train")
    untested = [task.id for task in held_out if not task.tests]
    if len(untested) == len(held_out):
        raise ConfigError(
            f"tasks.held_out: none of {len(held_out)} tasks has hidden tests, the first is "
            f"{untested[0]} (evaluation needs one or more each); add tests to the file"
        )
    aside += [f"{sources.held_out.source}: {id} has no hidden tests" for id in untested]
    held_out = [task for task in held_out if task.tests]
    removed = find_duplicates(train, held_out, limit=sources.max_overlap)
    kept = tuple(task for task in train if task.id not in removed)
    if not kept:
        raise ConfigError(
            f"tasks.train: all {len(train)} tasks repeat held-out tasks, the first is "
            f"{train[0].id}; choose another split, or other files"
        )
    check_apart(kept, held_out)
    plus = _plus_tasks(config, held_out) if sources.plus else ()
    return RunTasks(kept, tuple(held_out), removed, plus, tuple(aside))


def _plus_tasks(config: CodeConfig, held_out: Sequence[CodeTask]) -> tuple[CodeTask, ...]:
    """Return the held-out tasks that have more tests, in their order.

    Raises ConfigError when none has.
    """
    assert config.tasks.plus is not None
    source = config.tasks.plus
    more = {
        task.id: task for task in select(read_task_file(source.source).tasks, source, "held_out")
    }
    shared = [
        more[task.id]
        for task in held_out
        if task.id in more and more[task.id].entry_point == task.entry_point
    ]
    if not shared:
        raise ConfigError(
            f"tasks.plus: {source.source} has none of the {len(held_out)} held-out tasks, the "
            f"first is {held_out[0].id} (ids must be equal); give the plus file of that set"
        )
    return tuple(task for task in shared if task.tests)


def check_objective(config: CodeConfig) -> None:
    """Raise ConfigError for an objective that cannot be computed on what programs give."""
    objective = config.objective
    check_options(objective, config.train, n_held_out=0)
    needs = needs_of(objective)
    further = [*needs.paths, *needs.behind, *(["other prompts"] if needs.prompts else [])]
    if needs.shape not in ("pair", "single") or further:
        raise ConfigError(
            f"objective {objective.name} needs {', '.join(further) or needs.shape} (programs make "
            "pairs and single responses); set objective.name=dpo"
        )
    has = PAIR_COLUMNS if needs.shape == "pair" else ROW_LABELS
    missing = sorted({*needs.labels, *needs.columns} - has)
    if missing:
        raise ConfigError(
            f'objective {objective.name} needs "{missing[0]}" and programs have only '
            f"{', '.join(sorted(has))}; set objective.name=dpo, or another objective without such "
            "columns"
        )


def check_apart(train: Sequence[CodeTask], held_out: Sequence[CodeTask]) -> None:
    """Raise ConfigError when an id is on both sides: no held-out task may ever be trained on."""
    ids = {task.id for task in held_out}
    shared = [task.id for task in train if task.id in ids]
    if shared:
        shown, hidden = ", ".join(shared[:_MOST_SHOWN]), len(shared) - _MOST_SHOWN
        more = f" and {hidden} more" if hidden > 0 else ""
        what = f"ids {shown}{more} are" if len(shared) > 1 else f"id {shown} is"
        raise ConfigError(
            f"tasks.train: {what} also in tasks.held_out (ids must differ); rename them"
        )
    headers = {task.header for task in held_out}
    assert not any(task.header in headers for task in train), "a header on both sides of the split"
