"""`run_arms`: what each method is worth, from one warm-up policy and one sampling budget.

For every seed the warm-up, its evaluation and one sampling of training trajectories are shared.
Each arm then makes its own trees, trains its own adapter and is judged on the same problems. Arms
that sample for themselves get the tokens that the shared sampling took, and no more. Seeds have
folders of their own, so that each may run in a process of its own; `finished_arms` reads what is
there, whoever made it and whether or not more is to come.
"""

import gc
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trillium.errors import DataError
from trillium.manifest import StageRecord, read_manifest
from trillium.runs import Run

from trillium_math.agent.trajectory import Trajectory
from trillium_math.arms_config import ArmConfig, ArmsConfig
from trillium_math.config import MathConfig
from trillium_math.journey import Journey
from trillium_math.preparation import RunProblems, prepare_problems
from trillium_math.records import read_records
from trillium_math.round import NothingToLearnError, Round


@dataclass(frozen=True)
class ArmResult:
    """Hold one arm with one seed; where there was nothing to learn from, `after` is empty.

    `sampled` are the tokens that the policy wrote to make the arm's trees, `trained` those that its
    training read.
    """

    after: tuple[Trajectory, ...]
    n_trees: int
    sampled: int
    trained: int
    seconds: float


@dataclass(frozen=True)
class SeedResult:
    """Hold what one seed gave: the warm-up policy's trajectories, and each arm by name.

    `practised` names the held-out problems that are new numbers in templates trained on.
    """

    before: tuple[Trajectory, ...]
    arms: dict[str, ArmResult]
    shared_seconds: float
    practised: frozenset[str] = frozenset()


Results = Mapping[int, SeedResult]


def run_arms(
    config: ArmsConfig, after_each: Callable[[Results], object] = lambda results: None
) -> dict[int, SeedResult]:
    """Do what is missing of all seeds and arms; returns the results by seed.

    `after_each` is told after every arm what there is so far. An arm that finds nothing to learn
    from is kept with that result. Raises what a run raises.
    """
    for arm in config.arms:
        arm.method.check()
    results: dict[int, SeedResult] = {}
    for seed in config.seeds:
        _run_seed(config, seed, results, after_each)
    return results


def finished_arms(config: ArmsConfig) -> dict[int, SeedResult]:
    """Read the arms that are finished so far, also of seeds that run elsewhere; compute nothing.

    Raises DataError when no seed has an arm that is finished.
    """
    results = {}
    for seed in config.seeds:
        shared = _share(config, seed)
        folder = shared.output
        stages = read_manifest(folder).stages if (folder / "run.json").is_file() else {}
        arms = {
            arm.name: _result(arm.name, stages, tuple(read_records(path, Trajectory)))
            for arm in config.arms
            if f"after_{arm.name}" in stages
            and (path := folder / arm.name / f"after_{arm.name}.jsonl").is_file()
        }
        if arms:
            before = tuple(read_records(folder / "before.jsonl", Trajectory))
            common = {name: record for name, record in stages.items() if name in _SHARED}
            practised = _practised(prepare_problems(shared))
            results[seed] = SeedResult(before, arms, _seconds(common), practised)
    if not results:
        raise DataError(
            f"{config.output}: no arm is finished yet in any of seeds {list(config.seeds)}; run "
            "the comparison without --finished"
        )
    return results


def _share(config: ArmsConfig, seed: int) -> MathConfig:
    """Return the run of one seed, with the first arm's method in the place of all."""
    folder = config.output / f"seed_{seed}"
    return config.run.model_copy(
        update={"output": folder, "seed": seed, "method": config.arms[0].method}
    )


def _run_seed(
    config: ArmsConfig,
    seed: int,
    results: dict[int, SeedResult],
    after_each: Callable[[Results], object],
) -> None:
    shared = _share(config, seed)
    problems = prepare_problems(shared)
    with Run.open(shared.output, shared, seed=seed) as run:
        journey = Journey(shared, problems, run)
        first = journey.first_policy()
        before = journey.roll_out("before", problems.held_out, first, shared.evaluate.sampling)
        sampled = Round(journey, 0, (first,)).sample()
        budget = sum(int(part.stage.record.counts["sampled_tokens"]) for part in sampled)
        seconds, practised = _seconds(journey.records()), _practised(problems)
        # Every arm loads the policy afresh, so that none begins with another's adapter.
        del journey
        arms: dict[str, ArmResult] = {}
        for arm in config.arms:
            print(f"seed {seed}, {arm.name}: begins", file=sys.stderr, flush=True)
            arms[arm.name] = _run_arm(arm, shared, problems, run, budget)
            gc.collect()  # a model with adapters is full of cycles
            results[seed] = SeedResult(before.trajectories, dict(arms), seconds, practised)
            after_each(results)


def _run_arm(
    arm: ArmConfig, shared: MathConfig, problems: RunProblems, run: Run, budget: int
) -> ArmResult:
    method = arm.method.within_budget(budget)
    config = shared.model_copy(update={"method": method})
    journey = Journey(config, problems, run)
    policies = [journey.first_policy()]
    after: tuple[Trajectory, ...] = ()
    try:
        for number in range(config.n_rounds):
            this = Round(journey, number, tuple(policies), arm=arm.name)
            policies.append(method.learn(this, method.gather(this)))
        rolled = journey.roll_out(
            f"after_{arm.name}",
            problems.held_out,
            policies[-1],
            config.evaluate.sampling,
            folder=f"{arm.name}/",
        )
        after = rolled.trajectories
    except NothingToLearnError as error:
        print(f"{arm.name}: {error}", file=sys.stderr, flush=True)
    return _result(arm.name, journey.records(), after)


def _result(
    arm: str, records: Mapping[str, StageRecord], after: tuple[Trajectory, ...]
) -> ArmResult:
    """Return what the stages of an arm add up to, with its part of what arms share."""
    is_own = re.compile(rf"(?:[a-z]+_\d+|after)_{arm}")
    own = {name: record for name, record in records.items() if is_own.fullmatch(name)}
    selected = own.get(f"select_0_{arm}")
    # An arm that reads the shared sampling has it among its stages or, when read back, its inputs.
    samples = {"sample_0"} if selected is None or "sample_0" in selected.inputs else set()
    sampled = {name: records[name] for name in samples & records.keys()} | own
    return ArmResult(
        after=after,
        n_trees=_total(own, "select_", "trees"),
        sampled=sum(_total(sampled, prefix, "sampled_tokens") for prefix in _SAMPLING),
        trained=_total(own, "train_", "tokens"),
        seconds=_seconds(own),
    )


def _practised(problems: RunProblems) -> frozenset[str]:
    """Return the held-out problems of templates that training sees as well."""
    trained = (*problems.train, *problems.warm_up)
    known = {(one.family, one.template) for one in trained if one.template}
    return frozenset(one.id for one in problems.held_out if (one.family, one.template) in known)


def _total(records: Mapping[str, StageRecord], prefix: str, count: str) -> int:
    return sum(
        int(record.counts.get(count, 0))
        for name, record in records.items()
        if name.startswith(prefix)
    )


def _seconds(records: Mapping[str, StageRecord]) -> float:
    return sum(record.seconds for record in records.values())


_SAMPLING = ("sample_", "previous_", "collect_", "mend_", "search_")
_SHARED = frozenset({"demonstrate", "warm_up", "before", "sample_0"})
