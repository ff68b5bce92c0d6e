"""The stages of a run that need its models, each a method: explore, align, evaluate.

What a stage returns is read back from its files. `Place` says where a round, or an arm of an
ablation, keeps its stages and files, so that several of them share one run folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from trillium.environment import peak_memory_bytes
from trillium.files import hash_json
from trillium.generation import SamplingConfig
from trillium.manifest import StageRecord
from trillium.runs import Run, Stage, hash_config

from trillium_code.config import CodeConfig
from trillium_code.efficiency import (
    METER,
    EfficiencyConfig,
    measure_stage,
    plan_speed_race,
    task_speed,
)
from trillium_code.judging import count_readings, judge_stage, matrix_stage, read_programs
from trillium_code.matrices import RULES
from trillium_code.models import Models, Source
from trillium_code.opening import open_sandbox
from trillium_code.pairs import Ranking
from trillium_code.preparation import RunTasks
from trillium_code.prompts import assert_prompts, program_prompts
from trillium_code.records import (
    CodePair,
    TaskMatrix,
    TaskResult,
    TaskSamples,
    TaskSpeed,
)
from trillium_code.sampling import Prompts, sample_stage
from trillium_code.tasks import CodeTask
from trillium_code.training_rows import training_trees

_SEEDS_PER_ROUND = 1000


@dataclass(frozen=True)
class Place:
    """Say what ends the stage names, and begins the file names, of one part of a run."""

    tag: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Explored:
    """Hold what one policy wrote for the training tasks, and what came of running it."""

    programs: list[TaskSamples]
    matrices: list[TaskMatrix]
    programs_hash: str
    matrices_hash: str


@dataclass(frozen=True)
class Paired:
    """Hold the rankings and pairs of one exploration; `hash` names the pairs."""

    rankings: list[Ranking]
    pairs: list[CodePair]
    hash: str


@dataclass(frozen=True)
class Evaluated:
    """Hold what the held-out tasks say about one policy; `plus` are its results on more tests."""

    results: list[TaskResult]
    plus: list[TaskResult]


class Journey:
    """Goes through the stages of one run folder."""

    def __init__(
        self,
        config: CodeConfig,
        tasks: RunTasks,
        run: Run,
        announce: Callable[[str, Mapping[str, StageRecord]], None],
    ) -> None:
        """Work in `run`; `announce` is told which stage begins and what is finished."""
        self.config = config
        self.tasks = tasks
        self.run = run
        self._announce = announce
        self._open_backend = partial(open_sandbox, config)
        self._stages: list[Stage] = []

    def stages(self) -> dict[str, StageRecord]:
        """Return the records of the stages that are finished so far."""
        return {stage.name: stage.record for stage in self._stages if not stage.is_due}

    def stage(self, name: str, inputs: dict[str, str]) -> Stage:
        """Begin, continue or skip a stage, and say so when there is work."""
        stage = self.run.stage(name, inputs)
        self._stages.append(stage)
        if stage.is_due:
            self._announce(name, self.stages())
        return stage

    def explore(self, models: Models, place: Place, *, number: int = 1) -> Explored:
        """Sample programs and tests of the training tasks in round `number`, and run them all.

        A sandbox that cannot isolate enough is found out before anything is sampled.
        """
        config, tasks = self.config, self.tasks.train
        if f"execute{place.tag}" not in self.run.manifest.stages:
            with self._open_backend():
                pass
        seed = config.seed + _SEEDS_PER_ROUND * (number - 1)
        opened = (models, models.exploring)
        first, programs = self._sample("programs", tasks, config.programs, opened, place, seed)
        second, tests = self._sample("tests", tasks, config.tests, opened, place, seed + 1)
        stage = self.stage(
            f"execute{place.tag}",
            {
                "programs": first.hash,
                "tests": second.hash,
                "sandbox": hash_config(config.sandbox),
                "max_tests": str(config.max_tests),
                **RULES,
                **self._reading,
            },
        )
        output = f"{place.folder}matrices.jsonl"
        matrices = matrix_stage(
            stage,
            output,
            tasks,
            programs,
            tests,
            config.sandbox,
            max_tests=config.max_tests,
            prompt=config.prompt,
            open_backend=self._open_backend,
        )
        return Explored(programs, matrices, first.hash, stage.hash)

    def align(self, paired: Paired, models: Models, place: Place, config: CodeConfig) -> str:
        """Train the adapter on the pairs and return its hash; `config` says how."""
        stage = self.stage(
            f"align{place.tag}",
            {
                "pairs": paired.hash,
                "policy": models.identity,
                "adapter": hash_config(config.policy),
                "align": hash_config(config.align),
                "seed": str(config.seed),
            },
        )
        outputs = [f"{place.folder}{name}" for name in ("adapter", "metrics.jsonl", "timing.jsonl")]
        if stage.is_due:
            held_out = {task.id for task in self.tasks.held_out}
            trained = {pair.task_id for pair in paired.pairs}
            assert held_out.isdisjoint(trained), "training on held-out tasks"
            trees = training_trees(paired.pairs, config.objective)
            result = models.train(config.align, trees, stage.work / place.folder)
            counts = {
                "steps": result.n_steps,
                "stopped_early": int(result.stopped_early),
                "tokens": int(sum(row["n_tokens"] for row in result.metrics)),
                "peak_memory_bytes": peak_memory_bytes(),
                "peak_gpu_bytes": torch.cuda.max_memory_allocated(),
            }
            stage.finish(outputs, counts)
        return stage.record.outputs[outputs[0]]

    def evaluate(
        self,
        name: str,
        models: Models,
        source: Source,
        place: Place,
    ) -> Evaluated:
        """Sample programs for the held-out tasks and run the hidden tests."""
        config, tasks = self.config, self.tasks.held_out
        opened = (models, source)
        sampled, samples = self._sample(
            name, tasks, config.evaluate.sampling, opened, place, config.seed
        )
        readings = {
            task.id: read_programs(task, own, config.prompt)
            for task, own in zip(tasks, samples, strict=True)
        }
        sandbox = hash_config(config.sandbox)
        inputs = {"programs": sampled.hash, "sandbox": sandbox, **self._reading}
        judged = []
        for kind, chosen, tests_hash in (
            ("", tasks, self.tasks.held_out_hash),
            ("plus_", self.tasks.plus, hash_json([task.hash for task in self.tasks.plus])),
        ):
            results: list[TaskResult] = []
            if chosen:
                stage = self.stage(
                    f"judge_{kind}{name}{place.tag}", {**inputs, "tasks": tests_hash}
                )
                results = judge_stage(
                    stage,
                    f"{place.folder}results_{kind}{name}.jsonl",
                    chosen,
                    [[one.program for one in readings[task.id]] for task in chosen],
                    config.sandbox,
                    counts=count_readings(one for task in chosen for one in readings[task.id]),
                    open_backend=self._open_backend,
                )
            judged.append(results)
        return Evaluated(*judged)

    def judge_training(self, explored: Explored) -> list[TaskResult]:
        """Return which training programs pass the hidden tests; for reports alone."""
        tested = [
            (task, matrix.programs)
            for task, matrix in zip(self.tasks.train, explored.matrices, strict=True)
            if task.tests
        ]
        inputs = {
            "matrices": explored.matrices_hash,
            "tasks": hash_json([task.hash for task, _ in tested]),
            "sandbox": hash_config(self.config.sandbox),
        }
        return judge_stage(
            self.stage("judge_training", inputs),
            "results_training.jsonl",
            [task for task, _ in tested],
            [programs for _, programs in tested],
            self.config.sandbox,
            open_backend=self._open_backend,
        )

    def compare_speed(
        self, before: Evaluated, after: Evaluated, config: EfficiencyConfig, place: Place
    ) -> list[TaskSpeed]:
        """Measure the right programs of both policies on the held-out tasks that both solve."""
        rows = zip(self.tasks.held_out, before.results, after.results, strict=True)
        found = [plan_speed_race(*row, config.max_programs) for row in rows]
        races = [race for race in found if race is not None]
        inputs = {
            "programs": hash_json([list(race.sources) for race in races]),
            "tests": self.tasks.held_out_hash,
            "efficiency": hash_config(config),
            "sandbox": hash_config(self.config.sandbox),
            **METER,
        }
        stage = self.stage(f"speed{place.tag}", inputs)
        output = f"{place.folder}speed.jsonl"
        meters = measure_stage(stage, output, races, config, self.config.sandbox)
        speeds = [task_speed(one) for one in meters]
        return [speed for speed in speeds if speed is not None]

    @property
    def _reading(self) -> dict[str, str]:
        """Return what reading programs adds to inputs; the style is in the hash of the samples."""
        prompt = self.config.prompt
        reading = {"answers": "with other blocks"} if prompt.program_style == "answer" else {}
        return reading | ({"repairs_signature": "yes"} if prompt.repairs_signature else {})

    def _sample(
        self,
        name: str,
        tasks: Sequence[CodeTask],
        sampling: SamplingConfig,
        opened: tuple[Models, Source],
        place: Place,
        seed: int,
    ) -> tuple[Stage, list[TaskSamples]]:
        """Sample programs, or tests, for every task; before and after share seed and batches."""
        models, source = opened
        ids = [task.id for task in tasks]
        stage = self.stage(
            f"sample_{name}{place.tag}",
            {
                "policy": source.hash,
                "prompts": hash_json([[task.id, task.entry_point, task.header] for task in tasks]),
                "prompt": self.config.prompt.asked_hash,
                "sampling": hash_config(sampling),
                "rows": str(self.config.max_rows),
                "seed": str(seed),
            },
        )

        def render() -> Prompts:
            written = assert_prompts if name == "tests" else program_prompts
            prompts = written(tasks, models.tokenizer, self.config.prompt)
            fits = models.fitting(prompts, ids, max_new_tokens=sampling.max_new_tokens)
            return Prompts(prompts, fits)

        output = f"{place.folder}samples_{name}.jsonl"
        samples = sample_stage(stage, output, ids, render, sampling, source.open, seed=seed)
        return stage, samples
