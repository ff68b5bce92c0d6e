"""`solve_problems`: let a policy work on a file of problems, as a run of one stage."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from trillium.files import hash_path
from trillium.policies.config import PolicyConfig
from trillium.runs import Run, hash_config

from trillium_math.agent.config import AgentConfig, TurnSampling
from trillium_math.agent.stage import rollout_stage
from trillium_math.models import Models
from trillium_math.problems.problem_files import read_problems
from trillium_math.value.config import SampleSearch, SearchConfig
from trillium_math.value.work import open_search, rows_per_problem


class SolveConfig(BaseModel):
    """Choose the policy and how it works."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/math-solve"), description="run folder")
    seed: int = Field(0, ge=0, description="seed of sampling")
    policy: PolicyConfig = Field(PolicyConfig(), description="model and adapter")
    agent: AgentConfig = Field(AgentConfig(), description="how a trajectory runs and ends")
    sampling: TurnSampling = Field(TurnSampling(), description="how turns are sampled")
    search: SearchConfig = Field(
        SampleSearch(), description="sample | best_of_k | beam, by the value function of an adapter"
    )
    max_rows: int = Field(64, gt=0, description="trajectories sampled together")


def solve_problems(config: SolveConfig, problems_path: Path) -> dict[str, int | float]:
    """Roll out every problem of a file into `output/trajectories.jsonl` and return the counts."""
    problems = read_problems(problems_path)
    models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)
    models.check_length(config.agent.max_tokens)
    work = open_search(config.search, models, models.start, config.sampling)
    with Run.open(config.output, config, seed=config.seed) as run:
        stage = run.stage(
            "solve",
            {
                "problems": hash_path(problems_path),
                "policy": models.start.hash,
                "agent": hash_config(config.agent),
                "sampling": hash_config(config.sampling),
                "search": hash_config(config.search),
                "rows": str(config.max_rows),
                "seed": str(config.seed),
            },
        )
        rollout_stage(
            stage,
            "trajectories.jsonl",
            problems,
            lambda: models.tokenizer,
            work,
            config.agent,
            policy=models.start.hash,
            chunk_size=max(1, config.max_rows // rows_per_problem(config.search, config.sampling)),
            seed=config.seed,
        )
        return stage.record.counts
