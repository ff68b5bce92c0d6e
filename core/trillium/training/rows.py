"""From a preference file to token trees that fit an objective; every mistake has its line."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.objectives.batch import Needs
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.recipe_configs import LiPOConfig, SRPOConfig
from trillium.objectives.table import needs_of
from trillium.problems import Problem, describe_problems
from trillium.records import (
    RANKING_LABELS,
    CompletionRow,
    LabelledRow,
    PairRow,
    RankingRow,
    Row,
    TrajectoryRow,
)
from trillium.rowfiles import fields_of, load_rows
from trillium.search_records import TreeRow
from trillium.tokenize import (
    TokenizedDataset,
    tokenize_completions,
    tokenize_labelled,
    tokenize_pairs,
    tokenize_rankings,
    tokenize_trajectories,
    tokenize_trees,
)
from trillium.tokenize_config import TokenizeConfig
from trillium.training.fit import RowKind, row_kind, value_problems
from trillium.training.revisions import add_revisions

log = logging.getLogger(__name__)

_MAX_SHOWN = 20
# What plainly marks a file of each kind, how the kind is called, and an objective that takes it.
_MARKS: dict[RowKind, frozenset[str]] = {
    "pairs": frozenset({"chosen", "rejected"}),
    "labelled rows": frozenset({"completion"}),
    "rankings": frozenset({"completions"}),
    "search trees": frozenset({"steps"}),
    "trajectories": frozenset({"messages"}),
}
_DESCRIBED: dict[RowKind, str] = {
    "pairs": "pairs (chosen, rejected)",
    "labelled rows": "labelled rows (completion, label)",
    "rankings": "rankings (completions, rewards, ranks or labels)",
    "search trees": "search trees (steps, labels)",
    "trajectories": "trajectories (messages, reward)",
}
_EXAMPLE: dict[RowKind, str] = {
    "pairs": "dpo",
    "labelled rows": "kto",
    "rankings": "lipo",
    "search trees": "tree_tpo",
    "trajectories": "oreo",
}
_ON_DISK = {"label": "labels", "reward": "rewards"}


def read_trees(
    path: Path,
    objective: ObjectiveConfig,
    config: TokenizeConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> TokenizedDataset:
    """Read the kind of rows that the objective needs, and turn them into trees.

    Raises DataError that names every row that is wrong or lacks what the objective needs.
    """
    _check_kind(path, objective)
    needs = needs_of(objective)
    match row_kind(objective):
        case "pairs":
            pairs = [_with_columns(row, needs) for row in _load(path, objective, PairRow)]
            return tokenize_rows(_checked(pairs, objective), objective, config, tokenizer)
        case "rankings":
            rankings = [_with_labels(row, objective) for row in _load(path, objective, RankingRow)]
            return tokenize_rankings(_checked(rankings, objective), tokenizer, config)
        case "search trees":
            return tokenize_trees(
                _checked(_load(path, objective, TreeRow), objective), tokenizer, config
            )
        case "trajectories":
            rows = _checked(_load(path, objective, TrajectoryRow), objective)
            return tokenize_trajectories(rows, tokenizer, config)
    if not needs.labels:
        plain = _checked(_load(path, objective, CompletionRow), objective)
        return tokenize_completions(plain, tokenizer, config)
    labelled = _checked(_load(path, objective, LabelledRow), objective)
    if objective.name == "kto" and len({row.label for row in labelled}) == 1:
        log.warning(
            "%s: every label is %s; kto weighs good responses against bad ones, add the other kind",
            path,
            bool(labelled[0].label),
        )
    return tokenize_labelled(labelled, tokenizer, config)


def tokenize_rows(
    pairs: Sequence[PairRow],
    objective: ObjectiveConfig,
    config: TokenizeConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> TokenizedDataset:
    """Turn pairs into trees with all the paths that the objective reads."""
    needs = needs_of(objective)
    if isinstance(objective, SRPOConfig):
        pairs = [add_revisions(row, objective.revision) for row in pairs]
    return tokenize_pairs(
        pairs, tokenizer, config, further=needs.paths, scores_prompt=needs.prompts
    )


SomeRow = TypeVar("SomeRow", bound=Row)


def _load(path: Path, objective: ObjectiveConfig, kind: type[SomeRow]) -> list[SomeRow]:
    """Read rows; what is wrong with them is said together with what the objective trains on."""
    try:
        return load_rows(path, kind)
    except DataError as error:
        wanted = _DESCRIBED[row_kind(objective)]
        raise DataError(f"{error}\nobjective {objective.name} trains on {wanted}") from error


def _checked(rows: list[SomeRow], objective: ObjectiveConfig) -> list[SomeRow]:
    problems = [Problem(row.place, what) for row in rows for what in _lacks(row, objective)]
    if problems:
        raise DataError(describe_problems(problems, max_shown=_MAX_SHOWN))
    return rows


def _lacks(row: Row, objective: ObjectiveConfig) -> Iterator[str]:
    """Say what the objective needs and a row has not, or has wrong."""
    needs = needs_of(objective)
    columns = {*needs.columns, *needs.behind}
    labels = _labels_of(row)
    wanted = ", ".join(_field(name, objective) for name in [*needs.labels, *sorted(columns)])
    for name in sorted({*needs.labels} - {*labels} | columns - {*row.columns}):
        yield (
            f'field "{_field(name, objective)}" is missing or no number (objective '
            f"{objective.name} needs {wanted}); add it, {_other_source(row, objective)}or choose "
            "another objective"
        )
    if isinstance(row, PairRow) and not isinstance(objective, SRPOConfig):
        for name in needs.paths:
            if name not in row.further:
                yield (
                    f'field "{name}" is missing (objective {objective.name} needs prompt, chosen, '
                    f"rejected, {', '.join(needs.paths)}); add the text, or choose another "
                    "objective"
                )
    yield from value_problems(objective, labels, row.columns)


def _field(name: str, objective: ObjectiveConfig) -> str:
    """Return what a label or column is called in the rows of the objective."""
    if isinstance(objective, LiPOConfig):
        return objective.labels_from
    return _ON_DISK.get(name, name) if row_kind(objective) == "rankings" else name


def _other_source(row: Row, objective: ObjectiveConfig) -> str:
    """Name what else in a ranking its labels can be made of."""
    if not isinstance(row, RankingRow) or not isinstance(objective, LiPOConfig):
        return ""
    found = [name for name, label in RANKING_LABELS.items() if label in row.labels]
    return f"set objective.labels_from={found[0]}, " if found else ""


def _labels_of(row: Row) -> Mapping[str, tuple[float, ...]]:
    match row:
        case PairRow() | RankingRow() | TreeRow():
            return row.labels
        case LabelledRow():
            return {"label": (row.label,)}
        case TrajectoryRow(reward=float() as reward):
            return {"reward": (reward,)}
    return {}


def _with_columns(row: PairRow, needs: Needs) -> PairRow:
    """Read numbers of both sides as columns where the objective takes them as such."""
    sides = {
        f"{name}_{side}": value
        for name, values in row.labels.items()
        for side, value in zip(("chosen", "rejected"), values, strict=True)
        if f"{name}_{side}" in needs.columns
    }
    return replace(row, columns={**row.columns, **sides})


def _with_labels(row: RankingRow, objective: ObjectiveConfig) -> RankingRow:
    """Make the labels of a ranking from its rewards or ranks, when the objective says so.

    rewards: mean over the others of sigmoid(r_i - r_j), how often a response wins
    ranks:   (K - rank) / (K - 1), 1 for the best

    A row without what the objective names has no labels then: its own were not asked for.
    """
    if not isinstance(objective, LiPOConfig) or objective.labels_from == "labels":
        return row
    n = len(row.completions)
    labels = {name: values for name, values in row.labels.items() if name != "label"}
    if objective.labels_from == "rewards" and "reward" in labels:
        rewards = torch.tensor(labels["reward"], dtype=torch.float64)
        wins = (rewards[:, None] - rewards[None, :]).sigmoid().sum(1) - 0.5
        labels["label"] = tuple((wins / max(n - 1, 1)).tolist())
    elif objective.labels_from == "ranks" and "rank" in labels:
        labels["label"] = tuple((n - rank) / max(n - 1, 1) for rank in labels["rank"])
    return replace(row, labels=labels)


def _check_kind(path: Path, objective: ObjectiveConfig) -> None:
    """Raise DataError when the file plainly holds rows of another kind."""
    fields = fields_of(path)
    wanted = row_kind(objective)
    for kind, marks in _MARKS.items():
        is_other = kind != wanted and marks <= fields and not _MARKS[wanted] <= fields
        if is_other:
            raise DataError(
                f"{path}: holds {_DESCRIBED[kind]} and objective {objective.name} needs "
                f"{_DESCRIBED[wanted]}; set objective.name={_EXAMPLE[kind]}, or convert the rows"
            )
