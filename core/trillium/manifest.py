"""The manifest of a run folder, `run.json`: what is finished, what was begun, and their hashes.

Names in it become paths that are replaced and deleted, so none may lead out of the folder.
"""

from pathlib import Path, PurePath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trillium.errors import DataError
from trillium.files import hash_json

StageName = Annotated[str, Field(pattern=r"^[^/\\]+$")]


class StageRecord(BaseModel):
    """What the manifest keeps of a finished stage; `outputs` maps each path to its sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input_hash: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    seconds: float
    counts: dict[str, int | float]

    @field_validator("outputs")
    @classmethod
    def _stay_inside(cls, outputs: dict[str, str]) -> dict[str, str]:
        for output in outputs:
            path = PurePath(output)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise ValueError(f"output {output!r} leads out of the run folder")
        return outputs

    @property
    def output_hash(self) -> str:
        """Return one hash over all outputs, to be an input of the next stage."""
        return hash_json(self.outputs)


class Attempt(BaseModel):
    """A stage that began; `finishing` is set once its outputs are complete and being moved."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input_hash: str = Field(pattern="^[0-9a-f]{64}$")
    started: float
    seconds_before: float = 0.0
    finishing: StageRecord | None = None


class Manifest(BaseModel):
    """The content of `run.json`; `kind` names the model of the run's configuration.

    `concluded` are the stages of the last command once it has come to its end, and nothing while it
    is at work or was stopped; it is None where no command has said. `stages` are also those of
    earlier commands, for one with other settings may want them again.
    """

    model_config = ConfigDict(extra="forbid")
    kind: str = ""
    seed: int
    stages: dict[StageName, StageRecord] = Field(default_factory=dict)
    attempts: dict[StageName, Attempt] = Field(default_factory=dict)
    concluded: list[StageName] | None = None

    @property
    def is_stopped(self) -> bool:
        """Say whether the last command has not come to its end."""
        return self.concluded is not None and not self.concluded

    @property
    def current(self) -> dict[str, StageRecord]:
        """Return the finished stages of the last command; all, while it is not known which."""
        if not self.concluded:
            return self.stages
        return {name: self.stages[name] for name in self.concluded if name in self.stages}


def read_manifest(folder: Path) -> Manifest:
    """Read `run.json` of a run folder; raises DataError when it is missing or damaged."""
    path = folder / "run.json"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder}: is not a run folder (it has no run.json); name one, see trillium runs list"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); move it away or choose another folder"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path}: is damaged ({key + ': ' if key else ''}{first['msg']}); "
            "delete it to compute the run again"
        ) from None


def find_runs(root: Path) -> list[Path]:
    """Return the run folders under `root`, by name."""
    return sorted(path.parent for path in root.glob("**/run.json"))
