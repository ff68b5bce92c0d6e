"""The run file of the mathematics application: one frozen model, every default in it."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from trillium.config import Seed
from trillium.objectives.recipe_configs import OREOConfig
from trillium.policies.config import PolicyConfig

from trillium_math.agent.config import AgentConfig, TurnSampling
from trillium_math.methods.multi_turn import MDPOMethod
from trillium_math.methods.table import MethodConfig
from trillium_math.problems.collection import ProblemSource
from trillium_math.supervised_config import SupervisedConfig
from trillium_math.value.config import SampleSearch, SearchConfig


class WarmUpConfig(SupervisedConfig):
    """Choose the demonstrations that teach the format, and how they are learned."""

    problems: ProblemSource = Field(
        ProblemSource(n_problems=200), description="problems with solutions to demonstrate"
    )


class ProblemsConfig(BaseModel):
    """Choose the problems to learn from and the problems that judge the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: ProblemSource = Field(ProblemSource(), description="problems that give trajectories")
    held_out: ProblemSource = Field(
        ProblemSource(split="held_out", n_problems=60), description="never trained on"
    )


class EvaluateConfig(BaseModel):
    """Choose how a policy is evaluated on the held-out problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling: TurnSampling = Field(TurnSampling(), description="trajectories per problem")
    k: tuple[PositiveInt, ...] = Field((1, 4), min_length=1, description="k of pass@k")
    search: SearchConfig | None = Field(
        None, description="also search by the value function of the last policy (method oreo)"
    )


class MathConfig(BaseModel):
    """A run of the mathematics application."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/math"), description="run folder")
    seed: Seed = Field(0, description="seed of problems, sampling and training")
    policy: PolicyConfig = Field(PolicyConfig(), description="model and adapter")
    problems: ProblemsConfig = Field(
        ProblemsConfig(), description="what to learn from and judge by"
    )
    agent: AgentConfig = Field(AgentConfig(), description="how a trajectory runs and ends")
    warm_up: WarmUpConfig | None = Field(
        WarmUpConfig(), description="supervised training first; null = the policy can do it already"
    )
    n_rounds: int = Field(1, gt=0, description="rounds of sampling and training")
    sampling: TurnSampling = Field(
        TurnSampling(n_samples=8), description="trajectories per training problem and round"
    )
    n_from_previous: int = Field(
        0, ge=0, description="of these, from the policy of the round before (mixture sampling)"
    )
    method: MethodConfig = Field(
        MDPOMethod(), description="what to learn from trajectories, and how; by its name"
    )
    max_rows: int = Field(64, gt=0, description="trajectories sampled together")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="how the result is judged")

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        largest, n_samples = max(self.evaluate.k), self.evaluate.sampling.n_samples
        if largest > n_samples:
            raise ValueError(
                f"evaluate.k = {largest} needs that many samples, evaluate.sampling.n_samples is "
                f"{n_samples}; raise n_samples or lower k"
            )
        if self.n_from_previous >= self.sampling.n_samples:
            raise ValueError(
                f"n_from_previous = {self.n_from_previous} leaves nothing of sampling.n_samples = "
                f"{self.sampling.n_samples} to the policy itself; lower it"
            )
        return self

    @model_validator(mode="after")
    def _search_has_values(self) -> Self:
        search, objective = self.evaluate.search, getattr(self.method, "objective", None)
        reads_values = search is not None and not isinstance(search, SampleSearch)
        if search is not None and reads_values and not isinstance(objective, OREOConfig):
            raise ValueError(
                f"evaluate.search.name = {search.name} reads a value function and method "
                f"{self.method.name} trains none; set method.name=oreo, or evaluate.search=null"
            )
        return self
