"""What of a row is kept and what of it is scored: plain settings that load no tokenizer."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ScoredTurns = Literal["all", "last", "final_answer", "explicit"]
Truncation = Literal["drop", "keep_start", "keep_end"]
OnPrefixViolation = Literal["refuse", "repair"]


class TokenizeConfig(BaseModel):
    """Choose what of a row is kept and what of it is scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_length: int | None = Field(
        default=1024, ge=2, description="longest path in tokens; null: any"
    )
    truncation: Truncation = Field(
        default="drop",
        description="a longer path: drop its row, keep_start (cut replies at their end) or "
        "keep_end (cut prompts at their start)",
    )
    scored_turns: ScoredTurns = Field(
        default="all", description="assistant turns of a completion that count"
    )
    add_eos: bool = Field(
        default=True, description="end replies with the stop token; false for steps"
    )
    on_prefix_violation: OnPrefixViolation = Field(
        default="refuse",
        description="template that rewrites earlier turns: stop, or score what the whole shows",
    )
