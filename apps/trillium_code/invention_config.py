"""The run file of task invention."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from trillium.config import Seed
from trillium.generation import SamplingConfig, StopString
from trillium.generation.config import ServerConfig
from trillium.policies.config import PolicyConfig

from trillium_code.invention_prompts import CONCEPT_STOPS, TASK_STOPS


class ConceptSampling(SamplingConfig):
    """Choose how the concepts of a snippet are named."""

    temperature: float = Field(0.7, ge=0, description="0 takes the likeliest token every time")
    max_new_tokens: int = Field(32, gt=0, description="tokens per list of concepts, at most")
    stop: tuple[StopString, ...] = Field(CONCEPT_STOPS, description="strings that end a list")


class TaskSampling(SamplingConfig):
    """Choose how tasks are invented from concepts."""

    n_samples: int = Field(4, gt=0, description="tasks per snippet, before any is dropped")
    temperature: float = Field(1.0, ge=0, description="high, because tasks should differ")
    max_new_tokens: int = Field(96, gt=0, description="tokens per task, at most")
    stop: tuple[StopString, ...] = Field(TASK_STOPS, description="strings that end a task")


class WriterConfig(ServerConfig):
    """A server that invents tasks; one that only chats has its own words to be asked in."""

    endpoint: Literal["completions", "chat"] = Field(
        "completions", description="completions, or chat for servers without them"
    )


class InventionConfig(BaseModel):
    """A run that invents tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(Path("runs/code-tasks"), description="folder; the tasks are tasks.jsonl")
    seed: Seed = Field(0, description="which snippets, and what is sampled")
    snippets: str = Field(
        "stdlib", description="stdlib | Python file | folder of them | .jsonl with code"
    )
    n_snippets: int = Field(64, gt=0, description="functions to start from")
    policy: PolicyConfig = Field(PolicyConfig(), description="model, or the tokenizer of `server`")
    server: WriterConfig | None = Field(
        None, description="OpenAI-compatible server that writes instead; null = the policy"
    )
    max_rows: int = Field(64, gt=0, description="completions decoded together")
    concepts: ConceptSampling = Field(ConceptSampling(), description="from snippet to concepts")
    tasks: TaskSampling = Field(TaskSampling(), description="from concepts to tasks")
    against: tuple[str, ...] = Field(
        ("own",), description="evaluation tasks that no invented task may repeat"
    )
    max_overlap: float = Field(0.6, ge=0, le=1, description="share of 5-grams that is a repeat")
