"""What may be tuned, and how: one frozen model, and the map between settings and the unit cube."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trillium.config import Seed

Acquisition = Literal["expected_improvement", "knowledge_gradient", "entropy_search", "random"]


_SPACE = "space."


class Parameter(BaseModel):
    """Bound one setting of the run file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(description="smallest value")
    high: float = Field(description="largest value")
    scale: Literal["linear", "log"] = Field(
        default="linear", description="log for rates and weights: equal factors are equal steps"
    )
    integer: bool = Field(default=False, description="whole numbers only")

    @model_validator(mode="after")
    def _check_order(self) -> "Parameter":
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low is {self.low:g} and high {self.high:g}; low must be below high")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low is {self.low:g} on a log scale; it must be above 0")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"bounds {self.low:g} and {self.high:g} must be whole numbers")
        return self

    def at(self, place: float) -> float | int:
        """Return the value at `place`, 0 for low and 1 for high."""
        low, high = self._ends
        value = low + place * (high - low)
        value = math.exp(value) if self.scale == "log" else value
        value = min(max(value, self.low), self.high)
        # Twelve digits, so that a run file reads well and the same place is the same run.
        return round(value) if self.integer else float(f"{value:.12g}")

    def place_of(self, value: float) -> float:
        """Return where `value` lies between low, 0, and high, 1."""
        low, high = self._ends
        return ((math.log(value) if self.scale == "log" else value) - low) / (high - low)

    @property
    def _ends(self) -> tuple[float, float]:
        if self.scale == "log":
            return math.log(self.low), math.log(self.high)
        return self.low, self.high


class SpaceConfig(BaseModel):
    """Choose what to tune, by which measure, and how long to search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(default=Path("runs/tune"), description="folder of the search")
    parameters: dict[str, Parameter] = Field(
        min_length=1, description="keys of the run file, such as train.learning_rate"
    )
    measure: str = Field(
        default="eval_rewards/accuracies",
        description="measure of the last held-out evaluation, or of the last step",
    )
    goal: Literal["maximise", "minimise"] = Field(default="maximise", description="which is better")
    n_trials: int = Field(default=16, gt=0, description="settings to try, at most")
    n_initial: int | None = Field(
        default=None, gt=0, description="of them spread evenly at first; null: 2 d + 2"
    )
    seeds: tuple[Seed, ...] = Field(
        default=(0,), min_length=1, description="train.seed of the repeats of each trial"
    )
    acquisition: Acquisition = Field(
        default="expected_improvement", description="how the next trial is chosen"
    )
    patience: int | None = Field(
        default=None,
        gt=0,
        description="stop after so many trials without a better one; null: never",
    )
    prune: bool = Field(
        default=False,
        description="skip the further seeds of a trial whose first is worse than the median",
    )
    seed: Seed = Field(default=0, description="of the search itself")

    @model_validator(mode="after")
    def _check_seeds(self) -> "SpaceConfig":
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds {self.seeds} must be different and not negative")
        if "train.seed" in self.parameters or "output" in self.parameters:
            raise ValueError("train.seed and output are set by the search; leave them out")
        return self

    @property
    def n_spread(self) -> int:
        """Return how many trials are spread evenly before the surrogate chooses."""
        return self.n_initial or 2 * len(self.parameters) + 2

    @property
    def n_settings(self) -> float:
        """Return how many different settings there are: infinitely many unless all are whole."""
        sizes = [p.high - p.low + 1 if p.integer else math.inf for p in self.parameters.values()]
        return math.prod(sizes)

    def settings(self) -> Iterator[dict[str, float | int]]:
        """Yield every setting of a space in which all are whole numbers."""
        ranges = [range(int(p.low), int(p.high) + 1) for p in self.parameters.values()]
        for values in itertools.product(*ranges):
            yield dict(zip(self.parameters, values, strict=True))

    def values_at(self, point: Sequence[float]) -> dict[str, float | int]:
        """Return the settings at a point of the unit cube."""
        pairs = zip(self.parameters.items(), point, strict=True)
        return {name: parameter.at(place) for (name, parameter), place in pairs}

    def point_of(self, values: Mapping[str, float]) -> list[float]:
        """Return the point of the unit cube where the settings lie."""
        return [parameter.place_of(values[name]) for name, parameter in self.parameters.items()]


def split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of the run and those of the space, which begin with `space.`."""
    of_space = [one.removeprefix(_SPACE) for one in overrides if one.startswith(_SPACE)]
    return [one for one in overrides if not one.startswith(_SPACE)], of_space
