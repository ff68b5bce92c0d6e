"""How a reward model is made: which feedback it predicts, its form, and how it learns."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trillium_rec.fit_config import FitConfig

Architecture = Literal["target_aware", "pooled"]


class HeadConfig(BaseModel):
    """Choose one thing that users do with a shown item, as a yes or no."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(description="feedback column of the log")
    at_least: float | None = Field(
        None, description="value from which it counts; none takes the median of the log"
    )
    weight: float = Field(1.0, ge=0, description="share in the reward")


class RewardConfig(BaseModel):
    """Choose a reward model.

    `target_aware` is OneRec's: every item of the list attends to the history, the items of the list
    to one another (arXiv 2502.18965, Section 3.3). `pooled` has no attention at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: tuple[HeadConfig, ...] = Field(min_length=1, description="what is predicted")
    architecture: Architecture = Field("target_aware", description="how history and list meet")
    pooling: Literal["items", "sum"] = Field(
        "items", description="towers read every item, or the sum over the list as in the paper"
    )
    n_places: int = Field(5, gt=0, description="items of a list that are read, the first ones")
    d_model: int = Field(64, gt=0, description="width")
    n_heads: int = Field(2, gt=0, description="attention heads")
    max_items: int = Field(50, gt=0, description="items of a history that are read")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout")
    fit: FitConfig = Field(
        FitConfig(
            n_epochs=15,
            batch_size=64,
            learning_rate=1e-3,
            weight_decay=0.3,
            warmup_steps=20,
            eval_every=1,
            patience=3,
        ),
        description="how it learns",
    )
    min_auc_gain: float = Field(
        0.02,
        ge=-1,
        le=1,
        description="gain of AUC over popularity and position; below it nothing is aligned",
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model = {self.d_model} is no multiple of n_heads = {self.n_heads} (heads have "
                "equal shares); choose another n_heads"
            )
        if not any(head.weight for head in self.heads):
            raise ValueError(
                "heads have no weight above 0 (the reward is their mean by weight); give one of "
                "them a weight"
            )
        return self
