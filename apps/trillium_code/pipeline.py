"""`run_code`: from a run file to an aligned adapter, one resumable stage after another.

    sample_programs  sample_tests  execute  pair      training tasks; no hidden test is read
    measure  pair_fast                                with `efficiency`: fast against slow programs
    sample_before    judge_before                     held-out tasks, the policy to start from
    align                                             pairs -> adapter
    sample_after     judge_after                      held-out tasks, the adapter

Several rounds repeat the first two lines and align, each from the adapter of the round before,
which is also its reference. A stage is skipped when its inputs hash to what they were. A run killed
at any moment and started again ends in the same bytes, except for what a clock says: run.json,
timing.jsonl, the report, and what `efficiency` and `evaluate.speed` measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.manifest import StageRecord
from trillium.runs import Run

from trillium_code.config import CodeConfig
from trillium_code.efficiency import EfficiencyConfig
from trillium_code.estimate import announce
from trillium_code.journey import Evaluated, Journey, Paired, Place
from trillium_code.models import Models
from trillium_code.opening import open_models, opened_cluster
from trillium_code.pair_counts import require_pairs
from trillium_code.pairing import pair, pair_fast
from trillium_code.preparation import RunTasks, prepare_tasks
from trillium_code.records import CodePair, TaskResult, TaskSpeed


@dataclass(frozen=True)
class CodeResult:
    """Say where everything is that a run of the application left behind.

    `pairs` are those of the last round; `n_pairs` has one count per round.
    """

    folder: Path
    tasks: RunTasks
    pairs: tuple[CodePair, ...]
    n_pairs: tuple[int, ...]
    before: tuple[TaskResult, ...]
    after: tuple[TaskResult, ...]
    plus_before: tuple[TaskResult, ...]
    plus_after: tuple[TaskResult, ...]
    speed: tuple[TaskSpeed, ...]
    stages: dict[str, StageRecord]


def run_code(config: CodeConfig) -> CodeResult:
    """Do what is missing of a run and return its results.

    Raises ConfigError and DataError for input that cannot be used, before any model is loaded where
    that can be known; BackendError and SandboxError for a machine that fails.
    """
    tasks = prepare_tasks(config)
    with opened_cluster(config), Run.open(config.output, config, seed=config.seed) as run:
        journey = Journey(
            config, tasks, run, lambda name, done: announce(name, config, tasks, done)
        )
        return _finish(journey, config)


def _finish(journey: Journey, config: CodeConfig) -> CodeResult:
    """Go through all rounds, with the evaluation of the start before the first training."""
    models = open_models(config)
    before, counts = None, []
    for number in range(1, config.rounds + 1):
        paired = _pairs(journey, models, config, number)
        require_pairs(paired.rankings, paired.pairs)
        counts.append(len(paired.pairs))
        if before is None:
            before = journey.evaluate("before", models, models.before, Place())
        is_last = number == config.rounds
        place = Place() if is_last else Place(f"_{number}", f"round_{number}/")
        adapter = journey.align(paired, models, place, config)
        folder = journey.run.folder / place.folder / "adapter"
        if not is_last:
            models = models.after_round(folder)
    assert before is not None
    after = journey.evaluate("after", models, models.after(folder, adapter), Place())
    models.close()
    return _result(journey, config, paired, counts, before, after)


def _pairs(journey: Journey, models: Models, config: CodeConfig, number: int) -> Paired:
    """Explore in round `number` and choose pairs of all kinds that are asked for."""
    place = Place() if number == 1 else Place(f"_{number}", f"round_{number}/")
    explored = journey.explore(models, place, number=number)
    paired = pair(journey, explored, models, config.rank, place)
    if config.efficiency is not None:
        paired = pair_fast(journey, explored, paired, config.efficiency, place)
    return paired


def _result(
    journey: Journey,
    config: CodeConfig,
    paired: Paired,
    counts: Sequence[int],
    before: Evaluated,
    after: Evaluated,
) -> CodeResult:
    speed: list[TaskSpeed] = []
    if config.evaluate.speed:
        settings = config.efficiency or EfficiencyConfig()
        speed = journey.compare_speed(before, after, settings, Place())
    return CodeResult(
        folder=journey.run.folder,
        tasks=journey.tasks,
        pairs=tuple(paired.pairs),
        n_pairs=tuple(counts),
        before=tuple(before.results),
        after=tuple(after.results),
        plus_before=tuple(before.plus),
        plus_after=tuple(after.plus),
        speed=tuple(speed),
        stages=journey.stages(),
    )
