"""How supervised training is optimised, and whether it can be: nothing here loads what trains."""

import importlib.util

from pydantic import BaseModel, ConfigDict, Field
from trillium.errors import ConfigError


class SupervisedConfig(BaseModel):
    """Choose how supervised training is optimised."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    num_train_epochs: int = Field(1, gt=0, description="passes over the trajectories")
    per_device_train_batch_size: int = Field(8, gt=0, description="trajectories per step")
    save_steps: int = Field(25, gt=0, description="steps between checkpoints")


def check_trl(title: str) -> None:
    """Raise ConfigError when TRL, which does the supervised training of `title`, is missing."""
    if importlib.util.find_spec("trl") is None:
        raise ConfigError(
            f"{title}: TRL is not installed (supervised training uses it); "
            "pip install 'trillium[trl]'"
        )
