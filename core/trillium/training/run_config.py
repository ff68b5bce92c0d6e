"""The run file of `trillium train`: one frozen model; reading one loads nothing that trains."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from trillium.objectives.configs import DPOConfig, ObjectiveConfig
from trillium.policies.config import PolicyConfig
from trillium.rowfiles import check_file
from trillium.tokenize_config import TokenizeConfig
from trillium.training.config import TrainConfig


class DataConfig(BaseModel):
    """Choose the rows to train on, as TRL's data sets have them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(description="rows of the kind the objective needs, .jsonl or .parquet")
    held_out: Path | None = Field(
        default=None, description="rows to evaluate on every train.eval_steps"
    )
    tokenize: TokenizeConfig = Field(default=TokenizeConfig(), description="rows to tokens")


class TrainRun(BaseModel):
    """A run of `trillium train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(default=Path("runs/train"), description="run folder")
    data: DataConfig = Field(description="what to learn from")
    policy: PolicyConfig = Field(default=PolicyConfig(), description="model and adapter")
    reference: str = Field(
        default="base",
        pattern="^(base|snapshot|none|adapter:.+)$",
        description="base | adapter:PATH | snapshot (of the adapter it starts from) | none",
    )
    objective: ObjectiveConfig = Field(default=DPOConfig(), description="what to minimise")
    train: TrainConfig = Field(default=TrainConfig(), description="how to minimise it")


def check_files(config: TrainRun) -> None:
    """Raise DataError where a file of rows is missing."""
    check_file(config.data.path)
    if config.data.held_out is not None:
        check_file(config.data.held_out)
