"""Where the log of a run comes from: one configuration per format, and `load_dataset`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from trillium.config import Seed

from trillium_rec.dataset import Catalogue, Dataset, build_dataset, keep_events
from trillium_rec.log_files import Columns, read_log, read_recbole, read_recbole_items
from trillium_rec.sequence_files import read_item_texts, read_sequences
from trillium_rec.simulator import Preset, Simulation, preset_config, simulate

MOVIELENS = "movielens-100k"


class SimulatorSource(BaseModel):
    """Take a simulated log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["simulator"] = "simulator"
    preset: Preset = Field("small", description="tiny, small or medium")
    seed: Seed = Field(0, description="seed of the simulation, apart from the run's")


class SequenceSource(BaseModel):
    """Read one sequence per user: S3-Rec text, or LETTER and CollisionGenRec JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["sequences"] = "sequences"
    path: Path = Field(description="a text file, or .json")
    items: Path | None = Field(None, description="JSON of item texts")


class TableSource(BaseModel):
    """Read one event per row: CSV, TSV or Parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["table"] = "table"
    path: Path = Field(description="a .csv, .tsv or .parquet file with named columns")
    items: Path | None = Field(None, description="JSON of item texts")
    user: str = Field("user_id", description="column of the user")
    item: str = Field("item_id", description="column of the item")
    timestamp: str | None = Field("timestamp", description="column of the time in seconds, or none")
    request: str | None = Field(None, description="column of the request id, or none")
    feedback: tuple[str, ...] = Field((), description="columns of numbers: watch time, like, ...")


class RecboleSource(BaseModel):
    """Read a RecBole `.inter` file, or MovieLens-100K by the name of its asset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["recbole"] = "recbole"
    path: str = Field(MOVIELENS, description="an .inter file, or movielens-100k")
    items: Path | None = Field(None, description="an .item file; the asset brings its own")


Source = Annotated[
    SimulatorSource | SequenceSource | TableSource | RecboleSource, Field(discriminator="name")
]


class PositiveRule(BaseModel):
    """Say which events count as liked: only those are history and targets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(description="feedback column")
    at_least: float = Field(description="value from which an event counts")


class DataConfig(BaseModel):
    """Choose a log and which of its events are positive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Source = Field(SimulatorSource(), description="where the log comes from")
    positive: tuple[PositiveRule, ...] = Field(
        (), description="an event is positive when any of these holds; none: every event is"
    )


def load_dataset(source: Source) -> Dataset:
    """Read, check and index the log of a source; raises DataError for what cannot be used."""
    match source:
        case SimulatorSource():
            return simulate_source(source).dataset
        case SequenceSource():
            return build_dataset(read_sequences(source.path), _texts(source.items))
        case TableSource():
            columns = Columns(
                source.user, source.item, source.timestamp, source.request, source.feedback
            )
            return build_dataset(read_log(source.path, columns), _texts(source.items))
        case RecboleSource():
            log, items = _recbole_files(source)
            return build_dataset(
                read_recbole(log), read_recbole_items(items) if items is not None else None
            )


def simulate_source(source: SimulatorSource) -> Simulation:
    """Return the log of a simulator together with the oracle that made it."""
    return simulate(preset_config(source.preset, seed=source.seed))


def keep_positive(dataset: Dataset, rules: tuple[PositiveRule, ...]) -> Dataset:
    """Return the data set with positive events only; raises DataError when none is left."""
    if not rules:
        return dataset
    keep = dataset.events.feedback_column(rules[0].column) >= rules[0].at_least
    for rule in rules[1:]:
        keep = keep | (dataset.events.feedback_column(rule.column) >= rule.at_least)
    return keep_events(dataset, keep, name="positive_feedback")


def _texts(path: Path | None) -> Catalogue | None:
    return read_item_texts(path) if path is not None else None


def _recbole_files(source: RecboleSource) -> tuple[Path, Path | None]:
    if source.path != MOVIELENS:
        return Path(source.path), source.items
    from trillium.assets import fetch_asset

    folder = fetch_asset(MOVIELENS)
    return next(folder.rglob("ml-100k.inter")), next(folder.rglob("ml-100k.item"))
