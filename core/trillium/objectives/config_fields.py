"""What the configurations of objectives are made of: the base model and the usual bounds."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Beta = Annotated[float, Field(gt=0, description="Strength of the pull towards the reference.")]
Scale = Annotated[float, Field(gt=0, description="Scale of the compared scores.")]
Smoothing = Annotated[
    float,
    Field(ge=0, lt=0.5, description="Share of the loss that believes the label flipped."),
]
Weight = Annotated[float, Field(ge=0, description="Weight of the objective's second term.")]
Link = Annotated[
    Literal["sigmoid", "hinge"], Field(description="What turns the compared scores into a loss.")
]


class FrozenConfig(BaseModel):
    """Refuse unknown keys, infinities and changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def saturates(self) -> bool:
        """Say whether the loss is -log sigmoid of the logged reward margin and nothing else."""
        return False
