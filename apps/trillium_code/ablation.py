"""`run_ablation`: what each selector, objective and kind of pair is worth, on equal samples.

For every seed, programs and tests are sampled, executed and judged once; then each arm chooses its
own pairs, trains its own adapter from the same start, and is evaluated on the same held-out tasks.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from trillium.manifest import StageRecord
from trillium.runs import Run

from trillium_code.ablation_config import AblationConfig, ArmConfig
from trillium_code.efficiency import EfficiencyConfig
from trillium_code.journey import Evaluated, Explored, Journey, Place
from trillium_code.label_quality import LabelQuality, judge_labels
from trillium_code.opening import open_models, opened_cluster
from trillium_code.pairing import pair, pair_fast
from trillium_code.preparation import check_objective, prepare_tasks
from trillium_code.records import TaskResult, TaskSpeed


@dataclass(frozen=True)
class ArmResult:
    """Hold one arm with one seed; without a pair there is nothing after.

    `plus_after` are the held-out tasks again, by their plus tests, where the run has any.
    """

    quality: LabelQuality
    n_pairs: int
    n_fast: int
    after: tuple[TaskResult, ...]
    speed: tuple[TaskSpeed, ...]
    seconds: float
    plus_after: tuple[TaskResult, ...] = ()


@dataclass(frozen=True)
class SeedResult:
    """Hold what one seed gave: the start, and each finished arm by name."""

    before: tuple[TaskResult, ...]
    arms: dict[str, ArmResult]
    shared_seconds: float
    plus_before: tuple[TaskResult, ...] = ()


def run_ablation(
    config: AblationConfig, note: Callable[[Mapping[int, SeedResult]], object] | None = None
) -> dict[int, SeedResult]:
    """Do what is missing of all seeds and arms; returns the results by seed.

    After every arm `note` is told all that is finished, so that a kill leaves a table behind. An
    arm that finds no pair is kept with that result. Raises what a run raises.
    """
    for arm in config.arms:
        check_objective(arm.apply(config.run))
    results: dict[int, SeedResult] = {}
    with opened_cluster(config.run):
        for seed in config.seeds:
            for found in _run_seed(config, seed):
                results[seed] = found
                if note is not None:
                    note(results)
    return results


def _run_seed(config: AblationConfig, seed: int) -> Iterator[SeedResult]:
    """Yield what is known of a seed after each of its arms."""
    folder = config.output / f"seed_{seed}"
    run_config = config.run.model_copy(update={"output": folder, "seed": seed})
    tasks = prepare_tasks(run_config)
    with Run.open(folder, run_config, seed=seed) as run:
        journey = Journey(run_config, tasks, run, _announcer(seed))
        models = open_models(run_config)
        explored = journey.explore(models, Place())
        truth = journey.judge_training(explored)
        before = journey.evaluate("before", models, models.before, Place())
        shared_seconds = _seconds(journey.stages())
        models.close()
        del models
        arms: dict[str, ArmResult] = {}
        for arm in config.arms:
            arms[arm.name] = _run_arm(journey, arm, explored, truth, before)
            gc.collect()  # a model with adapters is full of cycles
            yield SeedResult(tuple(before.results), dict(arms), shared_seconds, tuple(before.plus))


def _run_arm(
    journey: Journey,
    arm: ArmConfig,
    explored: Explored,
    truth: list[TaskResult],
    before: Evaluated,
) -> ArmResult:
    config, place = arm.apply(journey.config), Place(f"_{arm.name}", f"{arm.name}/")
    models, earlier = open_models(config), set(journey.stages())
    paired = pair(journey, explored, models, config.rank, place)
    if config.efficiency is not None:
        paired = pair_fast(journey, explored, paired, config.efficiency, place)
    after: list[TaskResult] = []
    plus: list[TaskResult] = []
    speed: list[TaskSpeed] = []
    if paired.pairs:
        adapter = journey.align(paired, models, place, config)
        folder = journey.run.folder / place.folder / "adapter"
        evaluated = journey.evaluate("after", models, models.after(folder, adapter), place)
        after, plus = evaluated.results, evaluated.plus
        if config.evaluate.speed:
            settings = config.efficiency or EfficiencyConfig()
            speed = journey.compare_speed(before, evaluated, settings, place)
    models.close()
    own = {name: record for name, record in journey.stages().items() if name not in earlier}
    return ArmResult(
        quality=judge_labels(paired.rankings, truth),
        n_pairs=len(paired.pairs),
        n_fast=sum(pair.kind == "efficiency" for pair in paired.pairs),
        after=tuple(after),
        speed=tuple(speed),
        seconds=_seconds(own),
        plus_after=tuple(plus),
    )


def _seconds(stages: Mapping[str, StageRecord]) -> float:
    return sum(record.seconds for record in stages.values())


def _announcer(seed: int) -> Callable[[str, Mapping[str, StageRecord]], None]:
    """Return what says on stderr which stage of which seed begins."""
    return lambda name, _: print(f"seed {seed}, {name}: begins", file=sys.stderr, flush=True)
