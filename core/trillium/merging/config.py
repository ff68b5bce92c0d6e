"""What to merge, and how: checked before anything is read."""

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trillium.config import Seed
from trillium.errors import ConfigError

Method = Literal["linear", "slerp", "ties", "dare_linear", "dare_ties"]


class MergeConfig(BaseModel):
    """Choose inputs, method and weights; null weights are equal shares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[Path, ...] = Field(min_length=2, description="adapter or model folders")
    method: Method = Field(default="linear", description="how to merge")
    weights: tuple[float, ...] | None = Field(default=None, description="one per input")
    density: float = Field(
        default=0.5, gt=0, le=1, description="ties, dare: share of entries that stay"
    )
    base: str | None = Field(
        default=None, description="model that updates of whole models are against: ties, dare"
    )
    rank: int | None = Field(
        default=None, gt=0, description="of the merged adapter, ties and dare; null: the sum"
    )
    seed: Seed = Field(default=0, description="of what dare drops")

    @model_validator(mode="after")
    def _check_together(self) -> "MergeConfig":
        if self.weights is not None and len(self.weights) != len(self.inputs):
            raise ValueError(
                f"{len(self.weights)} weights for {len(self.inputs)} inputs; give one per input"
            )
        if not all(map(math.isfinite, self.shares)):
            raise ValueError(f"weights {self.weights} are not all finite; correct them")
        if not any(self.shares):
            raise ValueError("all weights are 0, which leaves nothing; give one that is not")
        if self.method == "slerp" and len(self.inputs) != 2:
            raise ValueError(f"slerp takes two inputs, not {len(self.inputs)}; use linear")
        if self.method == "slerp" and not (
            0 <= self.shares[1] <= 1 and math.isclose(sum(self.shares), 1)
        ):
            raise ValueError(
                f"slerp takes weights 1 - t and t, not {self.shares}; give --weight between 0 and 1"
            )
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the weights, equal shares where none are given."""
        return self.weights or (1 / len(self.inputs),) * len(self.inputs)

    def at(self, t: float) -> "MergeConfig":
        """Return the same merge of two inputs at the mixing weight t of the second."""
        return MergeConfig(**{**self.model_dump(), "weights": (1 - t, t)})


def are_adapters(config: MergeConfig) -> bool:
    """Say whether the inputs are adapters; raises ConfigError for a mixture or a missing folder."""
    kinds = []
    for path in config.inputs:
        if not path.is_dir():
            raise ConfigError(f"{path}: there is no such folder (needs an adapter or a model)")
        kinds.append((path / "adapter_config.json").is_file())
    if len(set(kinds)) > 1:
        adapter, model = (config.inputs[kinds.index(kind)] for kind in (True, False))
        raise ConfigError(
            f"merge: {adapter} is an adapter and {model} is a model (needs inputs of one kind); "
            "merge the adapter into its base first"
        )
    return kinds[0]
