"""What `trillium math solve` reads: the policy, and how it works."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from trillium.config import Seed
from trillium.policies.config import PolicyConfig

from trillium_math.agent.config import AgentConfig, TurnSampling
from trillium_math.value.config import SampleSearch, SearchConfig


class SolveConfig(BaseModel):
    """Choose the policy and how it works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/math-solve"), description="run folder")
    seed: Seed = Field(0, description="seed of sampling")
    policy: PolicyConfig = Field(PolicyConfig(), description="model and adapter")
    agent: AgentConfig = Field(AgentConfig(), description="how a trajectory runs and ends")
    sampling: TurnSampling = Field(TurnSampling(), description="how turns are sampled")
    search: SearchConfig = Field(
        SampleSearch(), description="sample | best_of_k | beam, by the value function of an adapter"
    )
    max_rows: int = Field(64, gt=0, description="trajectories sampled together")
