"""What localisers take and return: a wrong trajectory in steps, and its first wrong step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trillium.generation import Generator, SamplingConfig

from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.rollout import Roller
from trillium_math.agent.tool import PythonTool
from trillium_math.agent.trajectory import Trajectory
from trillium_math.problems import Problem


@dataclass(frozen=True)
class Mistake:
    """Hold a wrong trajectory, its problem, and the token ranges of its steps."""

    trajectory: Trajectory
    problem: Problem
    steps: tuple[tuple[int, int], ...]

    def prefix_length(self, step: int) -> int:
        """Return how many tokens lie before step `step`, to be given to `Roller.cut`."""
        return self.steps[step - 1][1] if step else self.steps[0][0]


@dataclass(frozen=True)
class Located:
    """Hold the first wrong step, from 0, or None; and why, in a word or two that is counted.

    `rates` are success rates after the steps that were tried, where rollouts told.
    """

    step: int | None
    why: str
    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class Toolbox:
    """Hold what localisers work with; `generator` samples from the policy."""

    roller: Roller
    dialogue: Dialogue
    tool: PythonTool
    generator: Generator
    sampling: SamplingConfig


class Localiser(Protocol):
    """What finds first wrong steps."""

    def locate(self, mistakes: Sequence[Mistake], *, seed: int) -> list[Located]:
        """Return where each trajectory goes wrong first."""
        ...


Asks = Callable[[Sequence[str], int], list[str]]
"""Questions and a seed in, a judge's answers out."""
