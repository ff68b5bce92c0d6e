"""How a policy spends tokens at test time: samples, or a search that its value function guides."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from trillium_math.agent.steps import StepUnit


class SampleSearch(BaseModel):
    """Sample trajectories; no value function is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["sample"] = "sample"


class BestOfKSearch(BaseModel):
    """Sample `sampling.n_samples` whole trajectories and keep the one of highest value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["best_of_k"] = "best_of_k"


class BeamSearch(BaseModel):
    """Keep the partial trajectories of highest value, step by step (arXiv 2412.16145).

    With `n_beams` 1 and unit turn it is the paper's best of K actions for agents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["beam"] = "beam"
    n_beams: int = Field(4, gt=0, description="partial trajectories that are kept")
    n_proposals: int = Field(4, gt=0, description="next steps sampled for each of them")
    unit: StepUnit = Field("line", description="what a step is: a line of the policy, or its turn")
    max_steps: int = Field(40, gt=0, description="steps of a trajectory, at most")


SearchConfig = Annotated[SampleSearch | BestOfKSearch | BeamSearch, Field(discriminator="name")]
"""How to search at test time; the field `name` says which way."""
