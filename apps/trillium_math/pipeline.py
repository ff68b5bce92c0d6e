"""`run_math`: from a run file to an aligned adapter, one resumable stage after another.

    demonstrate  warm_up           problems with solutions -> the adapter to start from
    before                         held-out problems, that adapter
    sample_0  select_0  train_0    training problems -> trajectories -> trees -> adapter
    sample_1  previous_1  ...      mixture: the policy before has its share of the samples
    after                          held-out problems, the last adapter
    values  guided                 what its value function says of them, and a search by it

What a round does between its policy and the next is the method's affair. A run killed at any moment
and started again ends in the same bytes; what the clock says stands in run.json, timing.jsonl and
the report.
"""

from dataclasses import dataclass
from pathlib import Path

from trillium.manifest import StageRecord
from trillium.runs import Run

from trillium_math.agent.trajectory import Trajectory
from trillium_math.config import MathConfig
from trillium_math.journey import Journey
from trillium_math.preparation import RunProblems, prepare_problems
from trillium_math.round import Round
from trillium_math.value.stage import Valued


@dataclass(frozen=True)
class MathResult:
    """Say where everything is that a run of the application left behind."""

    folder: Path
    problems: RunProblems
    before: tuple[Trajectory, ...]
    after: tuple[Trajectory, ...]
    valued: tuple[Valued, ...]
    guided: tuple[Trajectory, ...]
    stages: dict[str, StageRecord]


def run_math(config: MathConfig) -> MathResult:
    """Do what is missing of a run and return its results.

    Raises ConfigError and DataError for input that cannot be used, before any model is loaded where
    that can be known; BackendError and SandboxError for a machine that fails.
    """
    problems = prepare_problems(config)
    with Run.open(config.output, config, seed=config.seed) as run:
        journey = Journey(config, problems, run)
        policies = [journey.first_policy()]
        judged, sampling = problems.held_out, config.evaluate.sampling
        before = journey.roll_out("before", judged, policies[0], sampling)
        for number in range(config.n_rounds):
            this = Round(journey, number, tuple(policies))
            policies.append(config.method.learn(this, config.method.gather(this)))
        after = journey.roll_out("after", judged, policies[-1], sampling)
        valued = journey.value("values", after, policies[-1])
        guided: tuple[Trajectory, ...] = ()
        if config.evaluate.search is not None:
            search = config.evaluate.search
            found = journey.roll_out("guided", judged, policies[-1], sampling, search=search)
            guided = found.trajectories
        return MathResult(
            folder=run.folder,
            problems=problems,
            before=before.trajectories,
            after=after.trajectories,
            valued=tuple(valued),
            guided=guided,
            stages=journey.records(),
        )
