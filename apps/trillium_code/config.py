"""The run file of the code application: one frozen model, every default in it."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from trillium.config import Seed
from trillium.generation import SamplingConfig, StopString
from trillium.generation.config import GenerationConfig, RayConfig, TransformersConfig
from trillium.objectives.configs import ObjectiveConfig, RPOConfig
from trillium.policies.config import PolicyConfig
from trillium.training.config import AlignConfig, TrainConfig

from trillium_code.efficiency import EfficiencyConfig
from trillium_code.execution import SandboxConfig
from trillium_code.pairs import RankConfig
from trillium_code.prompt_config import PROGRAM_STOPS, SHORTEST_ANSWER, TEST_STOPS, PromptConfig
from trillium_code.tasks import TaskSource


class ProgramSampling(SamplingConfig):
    """Choose how programs are sampled; a completion ends where its function ends.

    A free answer (prompt.program_style = answer) ends by itself: `stop` is empty there by default.
    """

    n_samples: int = Field(12, gt=0, description="programs per task")
    max_new_tokens: int = Field(96, gt=0, description="tokens per program, at most")
    stop: tuple[StopString, ...] = Field(PROGRAM_STOPS, description="strings that end a program")


class AssertSampling(SamplingConfig):
    """Choose how tests are sampled; a completion holds several asserts, one per line."""

    n_samples: int = Field(4, gt=0, description="completions with tests per task")
    temperature: float = Field(0.7, ge=0, description="0 takes the likeliest token every time")
    max_new_tokens: int = Field(96, gt=0, description="tokens per completion, at most")
    stop: tuple[StopString, ...] = Field(TEST_STOPS, description="strings that end a list of tests")


class TasksConfig(BaseModel):
    """Choose the tasks to learn from and the tasks that judge the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: TaskSource = Field(TaskSource(), description="tasks that give pairs")
    held_out: TaskSource = Field(TaskSource(), description="tasks for evaluation, never trained on")
    plus: TaskSource | None = Field(
        None, description="more hidden tests for the held-out tasks, matched by id"
    )
    max_overlap: float = Field(
        0.6,
        ge=0,
        le=1,
        description="share of 5-grams from which a training task repeats a held-out one",
    )


class EvaluateConfig(BaseModel):
    """Choose how a policy is evaluated on the held-out tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling: ProgramSampling = Field(
        ProgramSampling(n_samples=8), description="programs per held-out task"
    )
    k: tuple[PositiveInt, ...] = Field((1, 4, 8), min_length=1, description="k of pass@k")
    speed: bool = Field(False, description="also measure how fast right programs are")


class CodeConfig(BaseModel):
    """A run of the code application.

    `generation` says who samples. With a server that does not load adapters, training samples from
    it and both evaluations sample in this process: before and after then differ in the weights
    alone, not in the engine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/code"), description="run folder")
    seed: Seed = Field(0, description="seed of sampling and training")
    policy: PolicyConfig = Field(PolicyConfig(), description="model and adapter")
    generation: GenerationConfig = Field(
        TransformersConfig(), description="who samples from the policy: transformers, vllm, server"
    )
    ray: RayConfig | None = Field(
        None,
        description="sample and execute on a Ray cluster (not speed tests); null = here",
    )
    tasks: TasksConfig = Field(TasksConfig(), description="what to learn from and what to judge by")
    prompt: PromptConfig = Field(PromptConfig(), description="how the model is asked")
    programs: ProgramSampling = Field(ProgramSampling(), description="programs to train on")
    tests: AssertSampling = Field(AssertSampling(), description="tests that judge them")
    max_tests: int = Field(16, gt=0, description="distinct tests of a task that are executed")
    sandbox: SandboxConfig = Field(SandboxConfig(), description="where programs run")
    max_rows: int = Field(96, gt=0, description="completions decoded together; more needs memory")
    rank: RankConfig = Field(RankConfig(), description="from results to pairs")
    efficiency: EfficiencyConfig | None = Field(
        None, description="pairs of a fast and a slow program, beside right and wrong; null = none"
    )
    rounds: int = Field(
        1, ge=1, description="rounds; each samples from the last policy and refers to it"
    )
    objective: ObjectiveConfig = Field(RPOConfig(), description="what to minimise")
    train: TrainConfig = Field(TrainConfig(), description="how to minimise it")
    evaluate: EvaluateConfig = Field(EvaluateConfig(), description="how the result is judged")

    @model_validator(mode="after")
    def _nodes_have_sandboxes(self) -> Self:
        if self.ray is not None and self.sandbox.backend == "http":
            raise ValueError(
                "ray opens a sandbox on every node, and sandbox.backend = http is elsewhere; set "
                "sandbox.backend=embedded, or remove ray"
            )
        return self

    @model_validator(mode="after")
    def _stops_let_answers_through(self) -> Self:
        """Give free answers no stop strings unless the run file has some; refuse what cuts all."""
        if self.prompt.program_style != "answer":
            return self
        programs, evaluate = self.programs, self.evaluate
        if "stop" not in programs.model_fields_set:
            programs = programs.model_copy(update={"stop": ()})
        if "stop" not in evaluate.sampling.model_fields_set:
            free = evaluate.sampling.model_copy(update={"stop": ()})
            evaluate = evaluate.model_copy(update={"sampling": free})
        for name, sampling in (("programs", programs), ("evaluate.sampling", evaluate.sampling)):
            cutting = [stop for stop in sampling.stop if stop in SHORTEST_ANSWER]
            if cutting:
                raise ValueError(
                    f"{name}.stop has {cutting[0]!r}, which ends a free answer before its program "
                    f"(prompt.program_style = answer); set {name}.stop=[], or leave it out"
                )
        object.__setattr__(self, "programs", programs)  # frozen, and still being made
        object.__setattr__(self, "evaluate", evaluate)
        return self

    @model_validator(mode="after")
    def _k_within_samples(self) -> Self:
        n_samples, largest = self.evaluate.sampling.n_samples, max(self.evaluate.k)
        if largest > n_samples:
            raise ValueError(
                f"evaluate.k = {largest} needs that many samples, evaluate.sampling.n_samples is "
                f"{n_samples}; raise n_samples or lower k"
            )
        return self

    @property
    def align(self) -> AlignConfig:
        """Return objective and training as the trainer takes them."""
        return AlignConfig(objective=self.objective, train=self.train)
