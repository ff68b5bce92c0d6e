"""What the experiment compares: seeds, arms, and the run that they change."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator
from trillium.config import Seed

from trillium_rec.alignment.arms import ARMS
from trillium_rec.config import RecConfig


class AblationConfig(BaseModel):
    """Compare ways of alignment on equal sessions, over several seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/rec-ablation"), description="folder of all seeds")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="one world each")
    arms: tuple[str, ...] = Field(tuple(ARMS), min_length=1, description="names of arms")
    run: RecConfig = Field(description="data, ids, model, reward and alignment of every arm")

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in arms if name not in ARMS]
        if unknown:
            raise ValueError(f"{unknown[0]} is no arm (there are: {', '.join(ARMS)})")
        return tuple(dict.fromkeys(["seed", *arms]))
