"""How a recommender is aligned: Algorithm 2 of OneRec, its safer options, and other losses."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from trillium.objectives.configs import DPOConfig, ObjectiveConfig


class SelectionConfig(BaseModel):
    """Choose which of the drawn sessions are preferred to which."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    winner: float = Field(1.0, ge=0, le=1, description="quantile of the reward; 1 is the best")
    loser: float | Literal["random"] = Field(
        0.0, description="quantile of the reward, 0 is the worst; or one of the others at random"
    )
    n_losers: int = Field(1, gt=0, description="sessions that the winner is compared with")
    margin: float = Field(0.0, ge=0, description="least gap in reward, nats; pairs below are left")
    distinct_sets: bool = Field(
        False, description="of sessions with the same items keep the likeliest"
    )

    @field_validator("loser")
    @classmethod
    def _is_quantile(cls, loser: float | Literal["random"]) -> float | Literal["random"]:
        if loser != "random" and not 0 <= loser <= 1:
            raise ValueError("must be a quantile from 0 to 1, or random")
        return loser


class ImitateConfig(BaseModel):
    """Imitate the winner: -log P(winner), a mean over its items (best-of-N fine-tuning)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["imitate"] = "imitate"


class GroupConfig(BaseModel):
    """Follow the advantage of every session within its group (GRPO, arXiv 2402.03300)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["group"] = "group"
    clip: float = Field(0.2, gt=0, lt=1, description="distance of the ratio from 1")
    kl_weight: float = Field(0.04, ge=0, description="of the divergence from the reference")


Objective = Annotated[ObjectiveConfig | ImitateConfig | GroupConfig, Field(discriminator="name")]
"""What prefers one session to another; the field `name` says which."""


class AlignConfig(BaseModel):
    """Choose how a recommender is aligned with a reward model.

    The paper draws 128 sessions for 1 % of its samples and does not publish beta, lam and T. A log
    of some thousand samples needs a larger share, and has time for fewer sessions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective | None = Field(
        DPOConfig(beta=0.1), description="what prefers; none goes on imitating the log"
    )
    n_rounds: int = Field(3, gt=0, description="epochs T; each begins with a new snapshot")
    share: float = Field(0.25, gt=0, le=1, description="share r of the samples with sessions drawn")
    n_beams: int = Field(32, gt=1, description="sessions N drawn for each of them")
    n_groups: int = Field(1, gt=0, description="groups of beams by first code; 1 is plain search")
    n_session: int = Field(5, gt=0, description="items of a session")
    selection: SelectionConfig = Field(SelectionConfig(), description="which sessions are compared")
    mask_shared: bool = Field(
        False, description="leave out codes that winner and loser share at the same place"
    )
    lam: float = Field(1.0, ge=0, description="weight of the preference beside the log")
    imitates_log: bool = Field(True, description="keep the next-token loss on logged sessions")
    learning_rate: float = Field(1e-4, gt=0, description="of AdamW, constant")
    batch_size: int = Field(32, gt=0, description="samples per step")
