"""`trillium train`: from a preference file to an adapter in a run folder.

Everything that can be wrong with the run file, the rows and their fit to the objective is found
before a model is loaded; a dry run ends there.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from trillium.assets import cache_folder, find_model
from trillium.errors import ConfigError, DataError
from trillium.files import hash_path
from trillium.objectives.configs import DPOConfig, ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.policies.config import PolicyConfig
from trillium.policies.load import load_policy, load_tokenizer
from trillium.preview import render_tree
from trillium.records import LabelledRow, PairRow
from trillium.rowfiles import load_rows
from trillium.runs import Run, hash_config
from trillium.scoring.cache import LogpCache
from trillium.scoring.reference import open_reference
from trillium.tokenize import TokenizeConfig, tokenize_labelled, tokenize_pairs
from trillium.tokenize_report import TokenizeReport
from trillium.training.align import AlignConfig, AlignResult, align
from trillium.training.config import TrainConfig
from trillium.training.fit import check_fit
from trillium.training.journal import read_evaluations, read_metrics
from trillium.trees import TokenTree

OUTPUTS = ("adapter", "metrics.jsonl", "timing.jsonl")


class DataConfig(BaseModel):
    """Choose the rows to train on, as TRL's data sets have them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(description="pairs or labelled rows, .jsonl or .parquet")
    held_out: Path | None = Field(default=None, description="rows to evaluate on, same format")
    tokenize: TokenizeConfig = Field(default=TokenizeConfig(), description="rows to tokens")


class TrainRun(BaseModel):
    """A run of `trillium train`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Path = Field(default=Path("runs/train"), description="run folder")
    data: DataConfig = Field(description="what to learn from")
    policy: PolicyConfig = Field(default=PolicyConfig(), description="model and adapter")
    reference: str = Field(
        default="base",
        pattern="^(base|snapshot|none|adapter:.+)$",
        description="base | adapter:PATH | snapshot (of the adapter it starts from) | none",
    )
    objective: ObjectiveConfig = Field(default=DPOConfig(), description="what to minimise")
    train: TrainConfig = Field(default=TrainConfig(), description="how to minimise it")


@dataclass(frozen=True)
class Prepared:
    """Hold what a run trains and evaluates on, and what became of the rows."""

    trees: tuple[TokenTree, ...]
    held_out: tuple[TokenTree, ...]
    report: TokenizeReport
    tokenizer: PreTrainedTokenizerBase

    def preview(self) -> Text:
        """Return the counts and the first tree in colour."""
        text = Text(f"rows: {self.report.summary()}\n")
        if self.held_out:
            text.append(f"held out: {len(self.held_out):,} rows\n")
        return text.append_text(render_tree(self.trees[0], self.tokenizer))


def prepare(config: TrainRun) -> Prepared:
    """Read, tokenise and check the rows; loads a tokenizer and no model."""
    if needs_of(config.objective).reference and config.reference == "none":
        raise ConfigError(
            f"reference is none and objective {config.objective.name} compares with one; "
            "set reference=base, or choose an objective that needs none"
        )
    _check_kind(config.data.path, config.objective)
    tokenizer = load_tokenizer(find_model(config.policy.base))
    trees, report = _read_trees(config.data.path, config, tokenizer)
    held_out: tuple[TokenTree, ...] = ()
    if config.data.held_out is not None:
        held_out, _ = _read_trees(config.data.held_out, config, tokenizer)
        check_fit(config.objective, held_out, config.train, n_held_out=len(held_out))
    check_fit(config.objective, trees, config.train, n_held_out=len(held_out))
    return Prepared(trees, held_out, report, tokenizer)


def run_training(config: TrainRun, say: Callable[[str], None]) -> AlignResult:
    """Train as the run file says, or continue, or only read the result when all is done."""
    prepared = prepare(config)
    say(f"rows: {prepared.report.summary()}")
    with Run.open(config.output, config, seed=config.train.seed) as run:
        inputs = {"data": hash_path(config.data.path), "config": hash_config(_what_counts(config))}
        if config.data.held_out is not None:
            inputs["held_out"] = hash_path(config.data.held_out)
        stage = run.stage("align", inputs)
        if stage.is_due:
            result = _align(config, prepared, stage.work, say)
            outputs = [*OUTPUTS, *(["evaluations.jsonl"] if result.evaluations else [])]
            stage.finish(
                outputs,
                {"steps": result.n_steps, "stopped_early": int(result.stopped_early)},
            )
        counts = stage.record.counts
    return AlignResult(
        adapter=config.output / "adapter",
        n_steps=int(counts["steps"]),
        stopped_early=bool(counts["stopped_early"]),
        metrics=tuple(read_metrics(config.output)),
        evaluations=tuple(read_evaluations(config.output)),
    )


def _align(
    config: TrainRun, prepared: Prepared, work: Path, say: Callable[[str], None]
) -> AlignResult:
    policy = load_policy(config.policy, seed=config.train.seed)
    with LogpCache(cache_folder() / "reference-logps.sqlite") as cache:
        reference = open_reference(
            config.reference, policy.model, cache=cache, folder=policy.folder
        )
        say(f"reference: {reference.describe() if reference else 'none'}")
        return align(
            AlignConfig(objective=config.objective, train=config.train),
            prepared.trees,
            policy.model,
            reference,
            work,
            held_out=prepared.held_out,
            title="train",
        )


def _what_counts(config: TrainRun) -> TrainRun:
    """Return the configuration less what does not change the result: where things lie."""
    data = config.data.model_copy(update={"path": Path(), "held_out": None})
    return config.model_copy(update={"output": Path(), "data": data})


def _read_trees(
    path: Path, config: TrainRun, tokenizer: PreTrainedTokenizerBase
) -> tuple[tuple[TokenTree, ...], TokenizeReport]:
    if needs_of(config.objective).shape == "pair":
        found = tokenize_pairs(load_rows(path, PairRow), tokenizer, config.data.tokenize)
    else:
        found = tokenize_labelled(load_rows(path, LabelledRow), tokenizer, config.data.tokenize)
    return found.trees, found.report


def _check_kind(path: Path, objective: ObjectiveConfig) -> None:
    """Raise DataError when the file plainly holds rows of the other kind."""
    fields = _fields(path)
    is_labelled = {"completion", "label"} <= fields and "rejected" not in fields
    is_pairs = {"chosen", "rejected"} <= fields and "label" not in fields
    shape = needs_of(objective).shape
    if shape == "pair" and is_labelled:
        raise DataError(
            f"{path}: holds labelled rows (completion, label) and objective {objective.name} needs "
            "pairs (chosen, rejected); set objective.name=kto, or convert the rows"
        )
    if shape == "single" and is_pairs:
        raise DataError(
            f"{path}: holds pairs (chosen, rejected) and objective {objective.name} needs labelled "
            "rows (completion, label); set objective.name=dpo, or convert the rows"
        )


def _fields(path: Path) -> set[str]:
    """Return the field names of the first row; nothing where the file cannot be read as rows."""
    if not path.is_file():
        return set()
    if path.suffix == ".parquet":
        try:
            return set(pq.read_schema(path).names)
        except pa.ArrowInvalid:
            return set()
    with path.open(encoding="utf-8", errors="replace") as file:
        line = next((line for line in file if line.strip()), "")
    try:
        record = json.loads(line)
    except ValueError:
        return set()
    return set(record) if isinstance(record, dict) else set()
