"""How much work a run is, stage by stage, and about how long it takes on two idle cores."""

from dataclasses import dataclass

from trillium_math.config import MathConfig
from trillium_math.preparation import RunProblems

# Tokens per second on two idle cores with a model of 135 M parameters.
_SAMPLED_PER_S, _TRAINED_PER_S = 150.0, 180.0
# Tokens of one trajectory: what the policy writes, and all that training reads. The demo measured
# 5,265 written in 128 trajectories, and 22,277 read of 160 demonstrations.
_WRITTEN, _READ = 42, 140


@dataclass(frozen=True)
class Work:
    """Hold the expected tokens and seconds of one stage."""

    stage: str
    tokens: int
    seconds: float


def plan_work(config: MathConfig, problems: RunProblems) -> list[Work]:
    """List the stages that sample or train."""
    work = []
    if config.warm_up is not None:
        shown = len(problems.warm_up) * config.warm_up.num_train_epochs
        work.append(_train("warm_up", shown))
    judged = len(problems.held_out) * config.evaluate.sampling.n_samples
    work.append(_sample("before", judged))
    for number in range(config.n_rounds):
        n_problems = len(problems.of_round(number, config.n_rounds))
        expected = config.method.expect(n_problems, config.sampling.n_samples)
        work.append(_sample(f"sample_{number}", expected.sampled))
        work.append(_train(f"train_{number}", expected.trained))
    return [*work, _sample("after", judged)]


def _sample(stage: str, n_trajectories: int) -> Work:
    tokens = n_trajectories * _WRITTEN
    return Work(stage, tokens, tokens / _SAMPLED_PER_S)


def _train(stage: str, n_paths: int) -> Work:
    tokens = n_paths * _READ
    return Work(stage, tokens, tokens / _TRAINED_PER_S)
