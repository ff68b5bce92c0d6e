"""Where the problems of a run come from: our families, reasoning-gym, or a file."""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from trillium.errors import ConfigError

from trillium_math.problems import FAMILIES, Part, Problem, draw_problems
from trillium_math.problems.problem_files import draw_from_gym, read_problems

log = logging.getLogger(__name__)

Difficulty = Annotated[int, Field(ge=1, le=5)]


class ProblemSource(BaseModel):
    """Choose problems; `families` and `difficulties` are those of our own generators."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field("own", description="own | gym:NAME (reasoning-gym) | path of a .jsonl file")
    n_problems: int = Field(100, gt=0, description="problems; of a file, at most")
    split: Part = Field(
        "train",
        description="train | held_out, which share no template; of our own generators also shown | "
        "practice, the two parts of train, and not_shown, practice and held_out together",
    )
    families: tuple[str, ...] = Field((), description="families to draw from; empty = all")
    difficulties: tuple[Difficulty, ...] = Field((1, 2, 3), min_length=1, description="1 to 5")

    @field_validator("families")
    @classmethod
    def _known(cls, families: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in families if name not in FAMILIES]
        if unknown:
            raise ValueError(f"no family {unknown[0]!r}; choose from {', '.join(FAMILIES)}")
        return families


def collect_problems(source: ProblemSource, *, seed: int) -> list[Problem]:
    """Return the problems of a source, distinct and the same for the same seed.

    Files give their problems in order and know no split: name another file for evaluation. Raises
    DataError for a bad file, ConfigError for a source that has not that many.
    """
    if source.source == "own":
        templates = [
            template
            for name in source.families or tuple(FAMILIES)
            for template in FAMILIES[name].templates
            if template.is_in(source.split)
        ]
        return draw_problems(
            templates,
            n_problems=source.n_problems,
            seed=seed,
            difficulties=source.difficulties,
        )
    if source.split not in ("train", "held_out"):
        raise ConfigError(
            f"split={source.split}: {source.source} has no such part (only our own generators "
            "have); set split=train"
        )
    if source.source.startswith("gym:"):
        return draw_from_gym(
            source.source.removeprefix("gym:"),
            split=source.split,
            n_problems=source.n_problems,
            seed=seed,
        )
    path = Path(source.source).expanduser()
    if not path.suffix:
        raise ConfigError(
            f"source={source.source}: is no source (own, gym:NAME, or a .jsonl file); correct it"
        )
    found = read_problems(path)
    if len(found) > source.n_problems:
        log.warning(
            "%s: %d of %d problems are taken, the first ones; raise n_problems to take more",
            path,
            source.n_problems,
            len(found),
        )
    return found[: source.n_problems]
