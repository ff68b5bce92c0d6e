"""What an ablation compares: seeds, and the arms that differ from its run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from trillium.config import Seed
from trillium.objectives.configs import ObjectiveConfig
from trillium.training.config import TrainConfig

from trillium_code.config import CodeConfig
from trillium_code.efficiency import EfficiencyConfig
from trillium_code.pairs import Scorer


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
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="one whole run for each")
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
