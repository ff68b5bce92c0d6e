"""How the tree search runs, and what becomes of the trees."""

from pydantic import BaseModel, ConfigDict, Field

from trillium_math.agent.steps import StepUnit


class SearchConfig(BaseModel):
    """Choose size and shape of the trees, and what the search believes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_iterations: int = Field(8, gt=0, description="descents from the root to an end")
    n_first: int = Field(4, gt=1, description="steps sampled at the root")
    n_actions: int = Field(2, gt=1, description="steps sampled at any other node")
    max_depth: int = Field(
        3, gt=0, description="steps from root to end; the last one runs to the end of the answer"
    )
    unit: StepUnit = Field("turn", description="what a step is: a line of the policy, or its turn")
    exploration: float = Field(1.0, ge=0, description="weight of what is worth a look in PUCT")
    gamma: float = Field(1.0, gt=0, le=1, description="discount of what later steps gain")
    prior_power: float = Field(1.25, ge=0, description="length penalty of a step's prior")
    self_evaluation: float = Field(
        1.0, ge=0, description="weight of the policy's own judgement of a prefix; 0 = do not ask"
    )
    shows_answer: bool = Field(True, description="tell the judging policy the right answer")


class HarvestConfig(BaseModel):
    """Choose which nodes of a tree become preferences."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pairs: int = Field(8, gt=0, description="pairs, lists or labelled steps of one tree")
    every_node: bool = Field(
        False, description="siblings below every node; false: along the most visited path only"
    )
    min_gap: float = Field(
        0.1, ge=0, description="pairs: difference of Q between best and worst that is a preference"
    )
    good_from: float = Field(
        0.75, ge=0, le=1, description="labels: worth, from 0 to 1, at which a step is desirable"
    )
    bad_to: float = Field(0.25, ge=0, le=1, description="labels: worth at which it is undesirable")
