"""`run_ablation`: what each selector, objective and kind of pair is worth, on equal samples.

For every seed, programs and tests are sampled, executed and judged once; then each arm chooses its
own pairs, trains its own adapter from the same start, and is evaluated on the same held-out tasks.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from trillium.manifest import StageRecord
from trillium.objectives.configs import ObjectiveConfig
from trillium.runs import Run
from trillium.training.config import TrainConfig

from trillium_code.config import CodeConfig
from trillium_code.efficiency import EfficiencyConfig
from trillium_code.journey import Evaluated, Explored, Journey, Place
from trillium_code.label_quality import LabelQuality, judge_labels
from trillium_code.opening import open_models, opened_cluster
from trillium_code.pairing import pair, pair_fast
from trillium_code.pairs import Scorer
from trillium_code.preparation import check_objective, prepare_tasks
from trillium_code.records import TaskResult, TaskSpeed


class ArmConfig(BaseModel):
    """Say in what one arm differs from the run; what is null is as in the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern="^[a-z0-9_]+$", description="of the arm; also of its folder")
    scorer: Scorer | None = Field(None, description="selector of pairs")
    min_agreement: int | None = Field(
        None, ge=1, description="samples that must agree with a chosen program, itself included"
    )
    objective: ObjectiveConfig | None = Field(None, description="what to minimise")
    train: TrainConfig | None = Field(None, description="how to minimise it")
    efficiency: EfficiencyConfig | None = Field(
        None, description="adds pairs of a fast and a slow program"
    )
    speed: bool | None = Field(None, description="measure how fast its right programs are")

    def apply(self, run: CodeConfig) -> CodeConfig:
        """Return the run of this arm."""
        choice = {"scorer": self.scorer, "min_agreement": self.min_agreement}
        own = {"objective": self.objective, "train": self.train, "efficiency": self.efficiency}
        rank = run.rank.model_copy(update=_set(choice))
        evaluate = run.evaluate.model_copy(update=_set({"speed": self.speed}))
        return run.model_copy(update={"rank": rank, "evaluate": evaluate, **_set(own)})


def _set(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


_SELECTORS: tuple[Scorer, ...] = (
    "random",
    "single_test",
    "plum",
    "pass_count",
    "codet",
    "codedpo",
    "dstc",
)


class AblationConfig(BaseModel):
    """A run and the arms to compare on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/code-ablation"), description="folder with a run per seed")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="one whole run for each")
    run: CodeConfig = Field(CodeConfig(), description="what all arms share; output is not read")
    arms: tuple[ArmConfig, ...] = Field(
        tuple(ArmConfig(name=scorer, scorer=scorer) for scorer in _SELECTORS),
        min_length=1,
        description="what to compare",
    )

    @model_validator(mode="after")
    def _arms_are_comparable(self) -> Self:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"arms: {twice[0]} occurs twice (names are folders); rename one")
        if self.run.rounds != 1:
            raise ValueError(
                f"run.rounds = {self.run.rounds}: arms share the samples of one round; set 1"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: one occurs twice; give different ones")
        return self


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
