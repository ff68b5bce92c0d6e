"""How a model is trained: settings that load nothing that trains."""

from pydantic import BaseModel, ConfigDict, Field


class FitConfig(BaseModel):
    """Choose how a model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_epochs: int = Field(60, gt=0, description="epochs at most")
    batch_size: int = Field(256, gt=0, description="users per step")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW, after a warm-up")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW, on matrices")
    warmup_steps: int = Field(100, ge=0, description="steps until the full learning rate")
    eval_every: int = Field(4, gt=0, description="epochs between validations")
    n_negatives: int = Field(
        0, ge=0, description="items drawn per step for the dense loss; 0 is all of them"
    )
    patience: int = Field(4, gt=0, description="validations without gain that end the training")
