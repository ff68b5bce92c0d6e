"""Locate errors by rollouts: a step is wrong when no continuation of it ends well."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from trillium_math.localisation.mistake import Located, Mistake, Toolbox
from trillium_math.step_accuracy import judge_steps


class MonteCarloLocaliser(BaseModel):
    """Roll out from the end of each step, the first step first, all trajectories together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["monte_carlo"] = "monte_carlo"
    n_rollouts: int = Field(8, gt=0, description="continuations of each prefix")
    threshold: float = Field(
        0.0, ge=0, lt=1, description="share of right ones at which a step counts as wrong"
    )

    def open(self, toolbox: Toolbox) -> "MonteCarlo":
        """Return the localiser at work."""
        return MonteCarlo(self, toolbox)


class MonteCarlo:
    """Rollouts from prefixes. The last step of a wrong trajectory needs none: nothing mends it."""

    def __init__(self, config: MonteCarloLocaliser, toolbox: Toolbox) -> None:
        """Use an open agent."""
        self._config = config
        self._toolbox = toolbox

    def locate(self, mistakes: Sequence[Mistake], *, seed: int) -> list[Located]:
        """Return the first step after which too few continuations are right."""
        rates: list[list[float]] = [[] for _ in mistakes]
        going = [index for index, one in enumerate(mistakes) if len(one.steps) > 1]
        step = 0
        while going:
            found = self._rates([mistakes[index] for index in going], step, seed=seed + step)
            for index, rate in zip(going, found, strict=True):
                rates[index].append(rate)
            step += 1
            going = [
                index
                for index in going
                if rates[index][-1] > self._config.threshold
                and step < len(mistakes[index].steps) - 1
            ]
        return [self._first(one, found) for one, found in zip(mistakes, rates, strict=True)]

    def _rates(self, mistakes: Sequence[Mistake], step: int, *, seed: int) -> list[float]:
        """Return the share of right rollouts from the end of `step` of each trajectory."""
        roller, n_rollouts = self._toolbox.roller, self._config.n_rollouts
        partials = [
            roller.cut(one.trajectory, one.problem, one.steps[step][1], id=f"{step}.{number}")
            for one in mistakes
            for number in range(n_rollouts)
        ]
        box = self._toolbox
        done = roller.complete(partials, box.generator, box.sampling, seed=seed)
        groups = [
            [one for one in done[start : start + n_rollouts] if one.reward is not None]
            for start in range(0, len(done), n_rollouts)
        ]
        # Where the sandbox lost all rollouts nothing is known, and the step is not blamed.
        return [sum(one.is_right for one in group) / len(group) if group else 1.0
                for group in groups]  # fmt: skip

    def _first(self, one: Mistake, rates: Sequence[float]) -> Located:
        is_right = judge_steps([*rates, 0.0], threshold=self._config.threshold)
        step = is_right.index(False)
        why = "last step" if step == len(one.steps) - 1 else "rollouts fail"
        return Located(step, why, tuple(rates))
