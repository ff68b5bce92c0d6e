"""`solve_problems`: let a policy work on a file of problems, as a run of one stage."""

from collections.abc import Sequence
from pathlib import Path

from trillium.files import hash_path
from trillium.runs import Run, hash_config

from trillium_math.agent.solve_config import SolveConfig
from trillium_math.agent.stage import rollout_stage
from trillium_math.models import Models
from trillium_math.problems.problem import Problem
from trillium_math.value.work import open_search, rows_per_problem


def solve_problems(
    config: SolveConfig, problems: Sequence[Problem], *, source: Path
) -> dict[str, int | float]:
    """Roll out every problem into `output/trajectories.jsonl` and return the counts.

    `source` is the file that the problems are from.
    """
    models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)
    models.check_length(config.agent.max_tokens)
    work = open_search(config.search, models, models.start, config.sampling)
    with Run.open(config.output, config, seed=config.seed) as run:
        stage = run.stage(
            "solve",
            {
                "problems": hash_path(source),
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
