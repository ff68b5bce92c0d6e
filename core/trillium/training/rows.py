"""From a preference file to token trees that fit an objective; every mistake has its line."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import needs_of
from trillium.problems import Problem, describe_problems
from trillium.records import LabelledRow, PairRow
from trillium.rowfiles import load_rows
from trillium.tokenize import (
    TokenizeConfig,
    TokenizedDataset,
    tokenize_labelled,
    tokenize_pairs,
)

log = logging.getLogger(__name__)

_MAX_SHOWN = 20


def read_trees(
    path: Path,
    objective: ObjectiveConfig,
    config: TokenizeConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> TokenizedDataset:
    """Read pairs or labelled rows, as the objective needs, and turn them into trees.

    Raises DataError that names every row that is wrong or lacks what the objective needs.
    """
    _check_kind(path, objective)
    if needs_of(objective).shape == "pair":
        pairs = load_rows(path, PairRow)
        _check_rows(pairs, objective)
        return tokenize_pairs(pairs, tokenizer, config)
    labelled = load_rows(path, LabelledRow)
    _check_rows(labelled, objective)
    if objective.name == "kto" and len({row.label for row in labelled}) == 1:
        log.warning(
            "%s: every label is %s; kto weighs good responses against bad ones, add the other kind",
            path,
            bool(labelled[0].label),
        )
    return tokenize_labelled(labelled, tokenizer, config)


def _check_rows(rows: Sequence[PairRow | LabelledRow], objective: ObjectiveConfig) -> None:
    problems = [Problem(row.place, what) for row in rows for what in _lacks(row, objective)]
    if problems:
        raise DataError(describe_problems(problems, max_shown=_MAX_SHOWN))


def _lacks(row: PairRow | LabelledRow, objective: ObjectiveConfig) -> Iterator[str]:
    """Say what the objective needs and a row has not."""
    needs = needs_of(objective)
    labels = row.labels if isinstance(row, PairRow) else {"label": (row.label,)}
    for name in sorted({*needs.labels} - {*labels} | {*needs.columns} - {*row.columns}):
        yield (
            f'field "{name}" is missing or no number (objective {objective.name} needs '
            f"{', '.join([*needs.labels, *needs.columns])}); add it, or choose another objective"
        )
    if objective.name == "kto" and isinstance(row, LabelledRow) and row.label not in (0, 1):
        yield (
            f'field "label" is {row.label:g} (objective kto needs true or false, 1 or 0); '
            "correct the line"
        )


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
        except (pa.ArrowException, OSError):
            return set()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = next((line for line in file if line.strip()), "")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return set()
    return set(record) if isinstance(record, dict) else set()
