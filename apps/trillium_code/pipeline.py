"""`run_code`: from a run file to an aligned adapter, one resumable stage after another.

    sample_programs  sample_tests  execute  pair      training tasks; no hidden test is read
    sample_before    judge_before                     held-out tasks, the policy to start from
    align                                             pairs -> adapter
    sample_after     judge_after                      held-out tasks, the adapter

A stage is skipped when its inputs hash to what they were. A run killed at any moment and started
again ends in the same bytes; what the clock says stands in run.json, timing.jsonl and the report.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import DataError
from trillium.files import hash_json
from trillium.generation import Generator, SamplingConfig
from trillium.manifest import StageRecord
from trillium.runs import Run, Stage, hash_config

from trillium_code.config import CodeConfig
from trillium_code.estimate import announce
from trillium_code.judging import judge_stage, matrix_stage
from trillium_code.memory import peak_memory_bytes
from trillium_code.models import Models
from trillium_code.pairs import Ranking, build_pairs
from trillium_code.preparation import RunTasks, prepare_tasks
from trillium_code.prompts import assert_prompts, program_prompts
from trillium_code.records import (
    CodePair,
    TaskResult,
    TaskSamples,
    read_records,
    write_records,
)
from trillium_code.sampling import sample_stage
from trillium_code.tasks import CodeTask

_MATRICES, _PAIRS, _RANKINGS = "matrices.jsonl", "pairs.jsonl", "rankings.jsonl"


@dataclass(frozen=True)
class CodeResult:
    """Say where everything is that a run of the application left behind."""

    folder: Path
    tasks: RunTasks
    pairs: tuple[CodePair, ...]
    before: tuple[TaskResult, ...]
    after: tuple[TaskResult, ...]
    stages: dict[str, StageRecord]


def run_code(config: CodeConfig) -> CodeResult:
    """Do what is missing of a run and return its results.

    Raises ConfigError and DataError for input that cannot be used, before any model is loaded where
    that can be known; BackendError and SandboxError for a machine that fails.
    """
    tasks = prepare_tasks(config)
    with Run.open(config.output, config, seed=config.seed) as run:
        return _Journey(config, tasks, run).finish()


class _Journey:
    """The stages of one run, each a method; what a stage returns is read back from its files."""

    def __init__(self, config: CodeConfig, tasks: RunTasks, run: Run) -> None:
        self._config = config
        self._tasks = tasks
        self._run = run
        self._models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)
        self._stages: list[Stage] = []

    def finish(self) -> CodeResult:
        """Go through all stages."""
        models, run = self._models, self._run
        paired, pairs = self._pairs()
        before = self._evaluate("before", models.before, models.identity)
        adapter = self._align(paired, pairs)
        after = self._evaluate("after", lambda: models.after(run.folder / "adapter"), adapter)
        return CodeResult(
            folder=run.folder,
            tasks=self._tasks,
            pairs=tuple(pairs),
            before=tuple(before),
            after=tuple(after),
            stages=self._finished(),
        )

    def _stage(self, name: str, inputs: dict[str, str]) -> Stage:
        """Begin, continue or skip a stage, and say how far the run is when there is work."""
        stage = self._run.stage(name, inputs)
        self._stages.append(stage)
        if stage.is_due:
            announce(name, self._config, self._tasks, self._finished())
        return stage

    def _finished(self) -> dict[str, StageRecord]:
        return {stage.name: stage.record for stage in self._stages if not stage.is_due}

    def _sample(
        self,
        name: str,
        tasks: Sequence[CodeTask],
        sampling: SamplingConfig,
        open_generator: Callable[[], Generator],
        policy: str,
    ) -> tuple[Stage, list[TaskSamples]]:
        """Sample programs, or tests, for every task; before and after share seed and batches."""
        is_tests = name == "tests"
        render = assert_prompts if is_tests else program_prompts
        stage = self._stage(
            f"sample_{name}",
            {
                "policy": policy,
                "prompts": hash_json([[task.id, task.entry_point, task.header] for task in tasks]),
                "prompt": hash_config(self._config.prompt),
                "sampling": hash_config(sampling),
                "rows": str(self._config.max_rows),
                "seed": str(self._config.seed),
            },
        )
        samples = sample_stage(
            stage,
            f"samples_{name}.jsonl",
            [task.id for task in tasks],
            lambda: self._models.checked(
                render(tasks, self._models.tokenizer, self._config.prompt),
                [task.id for task in tasks],
                max_new_tokens=sampling.max_new_tokens,
            ),
            sampling,
            open_generator,
            seed=self._config.seed + (1 if is_tests else 0),
        )
        return stage, samples

    def _pairs(self) -> tuple[Stage, list[CodePair]]:
        """Sample programs and tests of the training tasks, run them all, and choose pairs."""
        config, tasks, models = self._config, self._tasks.train, self._models
        first, programs = self._sample(
            "programs", tasks, config.programs, models.before, models.identity
        )
        second, tests = self._sample("tests", tasks, config.tests, models.before, models.identity)
        sandbox, rank = hash_config(config.sandbox), hash_config(config.rank)
        inputs = {"programs": first.hash, "tests": second.hash, "sandbox": sandbox}
        third = self._stage("execute", {**inputs, "max_tests": str(config.max_tests)})
        matrices = matrix_stage(
            third, _MATRICES, tasks, programs, tests, config.sandbox, max_tests=config.max_tests
        )
        stage = self._stage("pair", {"matrices": third.hash, "programs": first.hash, "rank": rank})
        if stage.is_due:
            rankings, pairs = [], []
            for task, own, matrix in zip(tasks, programs, matrices, strict=True):
                ranking, chosen = build_pairs(own, matrix, task.entry_point, config.rank)
                rankings.append(ranking)
                pairs += chosen
            write_records(stage.work / _PAIRS, pairs)
            write_records(stage.work / _RANKINGS, rankings)
            stage.finish([_PAIRS, _RANKINGS], count_pairs(rankings, pairs))
        return stage, read_records(stage.path(_PAIRS), CodePair)

    def _align(self, paired: Stage, pairs: Sequence[CodePair]) -> str:
        """Train the adapter on the pairs and return its hash."""
        config = self._config
        stage = self._stage(
            "align",
            {
                "pairs": paired.record.outputs[_PAIRS],
                "policy": self._models.identity,
                "adapter": hash_config(config.policy),
                "align": hash_config(config.align),
                "seed": str(config.seed),
            },
        )
        if stage.is_due:
            held_out = {task.id for task in self._tasks.held_out}
            assert held_out.isdisjoint(pair.task_id for pair in pairs), "training on held-out tasks"
            result = self._models.train(config.align, [pair.tree() for pair in pairs], stage.work)
            counts = {
                "steps": result.n_steps,
                "stopped_early": int(result.stopped_early),
                "tokens": int(sum(row["n_tokens"] for row in result.metrics)),
                "peak_memory_bytes": peak_memory_bytes(),
            }
            stage.finish(["adapter", "metrics.jsonl", "timing.jsonl"], counts)
        return stage.record.outputs["adapter"]

    def _evaluate(
        self, name: str, open_generator: Callable[[], Generator], policy: str
    ) -> list[TaskResult]:
        """Sample programs for the held-out tasks and run the hidden tests."""
        config, tasks = self._config, self._tasks.held_out
        sampled, samples = self._sample(
            name, tasks, config.evaluate.sampling, open_generator, policy
        )
        inputs = {"programs": sampled.hash, "tasks": self._tasks.held_out_hash}
        stage = self._stage(f"judge_{name}", {**inputs, "sandbox": hash_config(config.sandbox)})
        return judge_stage(stage, f"results_{name}.jsonl", tasks, samples, config.sandbox)


def count_pairs(rankings: Sequence[Ranking], pairs: Sequence[CodePair]) -> dict[str, int]:
    """Count what became of tasks and tests; raises DataError when there is no pair at all."""
    reasons = Counter(ranking.reason for ranking in rankings)
    if not pairs:
        found = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise DataError(
            f"pair: no pair from {len(rankings)} tasks ({found}); sample more with "
            "programs.n_samples and tests.n_samples, lower rank.min_chosen_pass_frac, or choose "
            "easier tasks or a stronger model"
        )
    census = [ranking.census for ranking in rankings]
    return {
        "pairs": len(pairs),
        "paired_tasks": len({pair.task_id for pair in pairs}),
        "kept_tests": sum(len(one.kept) for one in census),
        "trivial_tests": sum(one.n_trivial for one in census),
        "impossible_tests": sum(one.n_impossible for one in census),
        "flaky_tests": sum(one.n_flaky for one in census),
        "uncalled_tests": sum(one.n_uncalled for one in census),
        **{f"tasks_{reason}": count for reason, count in sorted(reasons.items())},
    }
