"""What to diagnose and how, checked before anything that measures is imported."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trillium.config import Seed
from trillium.errors import ConfigError, DataError
from trillium.tokenize_config import OnPrefixViolation, ScoredTurns, TokenizeConfig


class DiagnoseConfig(BaseModel):
    """Say what to diagnose and how; null fields follow the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Path = Field(description="a preference file, or a run folder")
    pairs: Path | None = Field(default=None, description="pairs to measure; null: the run's")
    base: str | None = Field(default=None, description="base model; null: the run's")
    adapter: Path | None = Field(default=None, description="policy's adapter; null: the run's")
    beta: float | None = Field(default=None, gt=0, description="null: the run's, else 0.1")
    agreement: float = Field(
        default=1.0, gt=0, le=1, description="share of annotators that agree with a pair"
    )
    n_pairs: int | None = Field(default=None, gt=0, description="first pairs only; null: all")
    n_samples: int = Field(default=16, ge=0, description="prompts to sample replies to")
    max_new_tokens: int = Field(default=64, gt=0, description="tokens per reply")
    max_length: int | None = Field(
        default=None, gt=1, description="longest path in tokens; null: the run's, else 1024"
    )
    scored_turns: ScoredTurns | None = Field(
        default=None, description="assistant turns that count; null: the run's, else all"
    )
    on_prefix_violation: OnPrefixViolation | None = Field(
        default=None, description="template that rewrites turns; null: the run's, else refuse"
    )
    seed: Seed = Field(default=0, description="of the sampled replies")

    def tokenize_as(self, run: TokenizeConfig) -> TokenizeConfig:
        """Return how a run makes tokens of rows, with what is set here."""
        own = {
            "max_length": self.max_length,
            "scored_turns": self.scored_turns,
            "on_prefix_violation": self.on_prefix_violation,
        }
        return run.model_copy(update={key: each for key, each in own.items() if each is not None})


def resolve(
    target: Path, output: Path | None, share: float | None, options: Mapping[str, object]
) -> tuple[DiagnoseConfig, Path]:
    """Return the configuration and the output folder; raises ConfigError for options out of range.

    A filter that saw only some of the pairs would drop the others unseen, so the two exclude one
    another.
    """
    if share is not None:
        check_share(share)
        if options.get("n_pairs") is not None:
            raise ConfigError(
                "--filter-ches needs every pair and --n-pairs leaves some out; drop --n-pairs"
            )
    try:
        config = DiagnoseConfig.model_validate({"target": target, **options})
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{name} {first['input']}: {first['msg'].lower()}; correct it") from None
    beside = target / "diagnosis" if target.is_dir() else target.with_suffix(".diagnosis")
    return config, output or beside


def check_share(share: float) -> None:
    """Raise ConfigError for a share of pairs to keep that keeps none, or more than there are."""
    if not 0 < share <= 1:
        raise ConfigError(f"filter-ches: KEEP is {share:g} (a share above 0, at most 1); give 0.05")


def check_target(target: Path) -> None:
    """Raise DataError where there is nothing to diagnose."""
    if not target.exists():
        raise DataError(
            f"{target}: there is no such file or folder (needs a preference file or a run folder); "
            "check the path, or see trillium runs list"
        )
