"""What a comparison of methods runs: seeds, arms, and the run that they share."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from trillium.config import Seed

from trillium_math.config import MathConfig
from trillium_math.methods.table import MethodConfig


class ArmConfig(BaseModel):
    """Name an arm and its method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern="^[a-z0-9_]+$", description="of the arm; also of its folder")
    method: MethodConfig = Field(description="what to learn from trajectories, and how")


class ArmsConfig(BaseModel):
    """A run and the methods to compare on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/math-arms"), description="folder with a run per seed")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="one whole run for each")
    run: MathConfig = Field(
        MathConfig(), description="what all arms share; its output and method are not read"
    )
    arms: tuple[ArmConfig, ...] = Field(min_length=1, description="what to compare")

    @model_validator(mode="after")
    def _arms_are_comparable(self) -> Self:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"arms: {twice[0]} occurs twice (names are folders); rename one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: one occurs twice; give different ones")
        return self
