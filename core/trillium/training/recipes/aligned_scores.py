"""PoFT: what aligned models think of supervised targets becomes a column that weighs them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.files import hash_json, read_rows
from trillium.objectives.recipe_configs import PoFTConfig
from trillium.progress import Progress
from trillium.records import LabelledRow
from trillium.rowfiles import load_rows, save_rows
from trillium.runs import Run, Stage
from trillium.scoring.layout import choose_layout, evaluating
from trillium.scoring.scores import score
from trillium.tokenize import tokenize_labelled
from trillium.tokenize_config import TokenizeConfig
from trillium.training.align import AlignResult, align
from trillium.training.config import AlignConfig, TrainConfig
from trillium.training.round_rows import hash_trees
from trillium.training.steps import StepCollator

COLUMN = "aligned_mean_logps"
"""The mean over models of the mean log-probability of a target's tokens, in nats."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlignedModel:
    """Hold a model that is aligned already, and its own tokenizer with its chat template.

    `identity` names the weights; under another one every row is scored anew. `load` is called when
    a row lacks its score, and not before.
    """

    identity: str
    tokenizer: PreTrainedTokenizerBase
    load: Callable[[], nn.Module]


class AlignedScoresConfig(BaseModel):
    """Choose how targets are scored and how they are trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: PoFTConfig = Field(default=PoFTConfig(), description="how targets are weighed")
    train: TrainConfig = Field(default=TrainConfig(), description="how they are trained on")
    tokenize: TokenizeConfig = Field(
        default=TokenizeConfig(), description="for the policy and for each aligned model"
    )
    micro_tokens: int = Field(default=4096, gt=0, description="tokens scored at once")


def score_aligned(
    config: AlignedScoresConfig,
    rows: Sequence[LabelledRow],
    models: Sequence[AlignedModel],
    run: Run,
) -> list[LabelledRow]:
    """Return the rows with the column `aligned_mean_logps`, one model after the other.

    Each model reads a row with its own tokenizer and template; means per token make their scores
    comparable. A row that any of them cannot take is dropped and counted. What was scored before is
    read from `run`. Raises DataError when there is no model, different rows share an id, or no row
    is left.
    """
    if not models:
        raise DataError("poft: no aligned model was given (needs one or more); pass them")
    _check_ids(rows)
    stages = [_score(config, rows, model, run, number) for number, model in enumerate(models)]
    output = "rows.jsonl"
    inputs = {f"scores_{n}": stage.hash for n, stage in enumerate(stages)}
    column = run.stage("column", {**inputs, "rows": _hash_rows(rows)})
    if column.is_due:
        scores = [_read(stage.path(f"scores_{n}.jsonl")) for n, stage in enumerate(stages)]
        kept = [row for row in rows if all(row.id in each for each in scores)]
        if not kept:
            raise DataError(
                f"poft: none of {len(rows)} rows fits every aligned model (needs at least one); "
                "raise tokenize.max_length, or set tokenize.truncation"
            )
        if len(kept) < len(rows):
            log.warning(
                "poft: %d of %d rows are dropped, because an aligned model cannot take them",
                len(rows) - len(kept),
                len(rows),
            )
        means = [sum(each[row.id] for each in scores) / len(scores) for row in kept]
        scored = [
            replace(row, columns={**row.columns, COLUMN: mean})
            for row, mean in zip(kept, means, strict=True)
        ]
        save_rows(column.work / output, scored)
        column.finish([output], {"rows": len(kept), "dropped": len(rows) - len(kept)})
    return load_rows(column.path(output), LabelledRow)


def train_poft(
    config: AlignedScoresConfig,
    rows: Sequence[LabelledRow],
    models: Sequence[AlignedModel],
    policy: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> AlignResult:
    """Train PoFT, preference-oriented supervised fine-tuning (arXiv 2412.12865).

    Aligned models score the targets, then the policy is trained to find each target likelier than
    they do: hardly at all once it does, which for a bad target is soon. A row's label is not read.
    Resumable like every run.
    """
    with Run.open(folder, config, seed=config.train.seed) as run:
        scored = score_aligned(config, rows, models, run)
    trees = tokenize_labelled(scored, tokenizer, config.tokenize).trees
    plan = AlignConfig(objective=config.objective, train=config.train)
    return align(plan, trees, policy, None, folder / "policy", title="poft")


def _check_ids(rows: Sequence[LabelledRow]) -> None:
    """Raise DataError for one id of different rows; rows that are equal have one score anyway."""
    first: dict[str, LabelledRow] = {}
    for row in rows:
        if row != first.setdefault(row.id, row):
            raise DataError(
                f"poft: {first[row.id].place} and {row.place} are different rows called {row.id} "
                "(each needs an id of its own); rename one, or leave the ids out"
            )


def _score(
    config: AlignedScoresConfig,
    rows: Sequence[LabelledRow],
    aligned: AlignedModel,
    run: Run,
    number: int,
) -> Stage:
    """Write the mean log-probability of each row under one model, batch by batch."""
    trees = tokenize_labelled(rows, aligned.tokenizer, config.tokenize).trees
    inputs = {"model": aligned.identity, "trees": hash_trees(trees), "rows": _hash_rows(rows)}
    inputs |= {"micro_tokens": str(config.micro_tokens)}
    stage, output = run.stage(f"scores_{number}", inputs), f"scores_{number}.jsonl"
    if not stage.is_due:
        return stage
    model = aligned.load()
    device = next(model.parameters()).device
    layout = choose_layout(model, "auto").layout
    collator = StepCollator(layout, pad_id=0, micro_tokens=config.micro_tokens)
    with (
        stage.rows(output, key="row") as file,
        Progress(
            f"aligned model {number}", n_total=len(trees), n_done=len(file.finished), unit="rows"
        ) as bar,
        torch.no_grad(),
        evaluating(model),
    ):
        for batch in collator.batch_rows(trees):
            # A batch is computed whole, so that a run that was killed ends with the same bits.
            if set(batch.tree_ids) <= file.finished:
                continue
            found = score(model, batch.to(device))
            means = (found.logps.double() / found.lengths).tolist()
            for id, mean in zip(batch.tree_ids, means, strict=True):
                if id not in file.finished:
                    file.append({"row": id, "mean_logp": mean})
                    bar.advance()
    stage.finish([output], {"rows": len(trees), "dropped": len(rows) - len(trees)})
    return stage


def _read(path: Path) -> Mapping[str, float]:
    return {str(row["row"]): float(str(row["mean_logp"])) for row in read_rows(path)}


def _hash_rows(rows: Sequence[LabelledRow]) -> str:
    return hash_json([row.to_record() for row in rows])
