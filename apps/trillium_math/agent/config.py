"""How the agent works: what it is asked, when it stops, what its tool may use."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from trillium.generation import SamplingConfig, StopString
from trillium_sandbox import Backend, Limits, open_backend

from trillium_math.grading import Source

_HIGHEST_LEVEL = 2
"""The strongest isolation of the embedded backend."""

INSTRUCTION = (
    "{question}\nReason step by step. You can run Python: write it in a ```python block. Put the "
    "final answer in \\boxed{{}}."
)


class TurnSampling(SamplingConfig):
    """Choose how each turn is sampled; a turn ends with its code block at the latest."""

    n_samples: int = Field(4, gt=0, description="trajectories per problem")
    temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token every time")
    max_new_tokens: int = Field(160, gt=0, description="tokens of one turn")
    stop: tuple[StopString, ...] = Field(
        ("```\n", "```output"), description="strings that end a turn; they are kept"
    )
    keep_stop: Literal[True] = Field(True, description="the fence belongs to the turn")


class ToolConfig(BaseModel):
    """Choose where the agent's code runs and what it may use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_level: int = Field(2, ge=0, description="isolation below which nothing is executed")
    allow_unsafe: bool = Field(False, description="run below the required level all the same")
    n_workers: int | None = Field(None, gt=0, description="programs at once; null = by processor")
    wall_s: float = Field(3.0, gt=0, description="seconds for all cells of a trajectory together")
    memory_bytes: int = Field(256 << 20, gt=0, description="memory of a program")
    max_output_chars: int = Field(
        600, ge=40, description="longer output loses its middle before the model sees it"
    )

    @field_validator("min_level")
    @classmethod
    def _within_reach(cls, level: int) -> int:
        if level > _HIGHEST_LEVEL:
            raise ValueError(
                f"the embedded backend reaches level {_HIGHEST_LEVEL}; set {_HIGHEST_LEVEL}, or "
                "lower it knowingly"
            )
        return level

    @property
    def limits(self) -> Limits:
        """Return the limits of one program."""
        return Limits(wall_s=self.wall_s, cpu_s=self.wall_s, memory_bytes=self.memory_bytes)

    def open(self) -> Backend:
        """Start the backend; raises SandboxError when this machine cannot isolate enough."""
        return open_backend(
            "embedded",
            min_level=self.min_level,
            n_workers=self.n_workers,
            allow_unsafe=self.allow_unsafe,
        )


class AgentConfig(BaseModel):
    """Choose how a trajectory runs and when it ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instruction: str = Field(INSTRUCTION, description="user turn; {question} is the problem")
    system: str = Field("", description="system turn before it; empty = the template's own")
    max_turns: int = Field(4, gt=0, description="turns of the policy, the last one included")
    max_tokens: int = Field(1024, gt=0, description="tokens of a whole trajectory, prompt included")
    tool_role: Literal["auto", "tool", "user"] = Field(
        "auto", description="role of tool output; auto = tool where the template knows it"
    )
    answer_sources: tuple[Source, ...] = Field(
        ("box",), min_length=1, description="where in the last turn an answer may stand"
    )
    tool: ToolConfig = Field(ToolConfig(), description="where code runs")

    @field_validator("instruction")
    @classmethod
    def _asks(cls, instruction: str) -> str:
        try:
            asked = instruction.format(question="<question>")
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"is no pattern ({error}); write {{question}} once and double all other braces"
            ) from error
        if "<question>" not in asked:
            raise ValueError("has no {question}; put it where the problem goes")
        return instruction
