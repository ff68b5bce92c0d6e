"""Rank a pass/fail matrix that was saved to a file, without any model or sandbox."""

import csv
import json
from pathlib import Path

import numpy as np
from trillium.errors import ConfigError, DataError

from trillium_code.ranking import SCORERS, Matrix, choose_pairs, take_census

_VALUES = {"0": False, "1": True, "false": False, "true": True, "fail": False, "pass": True}


def read_matrix(path: Path) -> Matrix:
    """Read programs x tests from .json (lists of 0/1 or true/false), .csv or .npy.

    Raises DataError that names file, row and column of a missing or unreadable cell.
    """
    readers = {".json": _read_json, ".csv": _read_csv, ".npy": _read_npy}
    if path.suffix not in readers:
        raise DataError(
            f"{path}: unknown kind of matrix (expected .json, .csv or .npy); convert it"
        )
    try:
        rows = readers[path.suffix](path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no UTF-8 text; give a .json, .csv or .npy matrix") from None
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file") from None
    if not rows or not rows[0]:
        raise DataError(f"{path}: holds no cell (needs programs x tests); add rows")
    width = max(map(len, rows))
    problems = [
        f"{path}: row {i}, column {j}: {_describe(row, j)} (expected 0 or 1); fill it in"
        for i, row in enumerate(rows, 1)
        for j in range(1, width + 1)
        if _cell(row, j) is None
    ]
    if problems:
        raise DataError("\n".join(problems[:20]))
    return np.array([[_cell(row, j) for j in range(1, width + 1)] for row in rows], dtype=np.bool_)


def rank_file(path: Path, *, scorer: str, min_chosen_pass_frac: float) -> str:
    """Return scores, removed tests and the pair of a saved matrix as text.

    Tests that every program fails are removed; trivial and flaky ones cannot be told from a matrix.
    """
    if scorer not in SCORERS:
        raise ConfigError(f"scorer {scorer}: unknown (expected {', '.join(SCORERS)}); choose one")
    passed = read_matrix(path)
    census = take_census(passed)
    lines = [f"{passed.shape[0]} programs, {passed.shape[1]} tests"]
    lines.append(f"removed: {census.n_impossible} tests that every program fails")
    if not census.kept:
        return "\n".join([*lines, "no test is left, so there is nothing to rank"])
    kept = passed[:, list(census.kept)]
    scores = SCORERS[scorer](kept)
    lines.append(f"\n{'program':>8} {scorer:>12} {'passes':>8}")
    for row in np.argsort(-scores.programs, kind="stable").tolist():
        share = f"{int(kept[row].sum())}/{kept.shape[1]}"
        lines.append(f"{row + 1:>8} {scores.programs[row]:>12.6g} {share:>8}")
    lines.append(f"\n{'test':>8} {scorer:>12} {'passed by':>10}")
    for column in np.argsort(-scores.tests, kind="stable").tolist():
        share = f"{int(kept[:, column].sum())}/{kept.shape[0]}"
        lines.append(f"{census.kept[column] + 1:>8} {scores.tests[column]:>12.6g} {share:>10}")
    pairs = choose_pairs(kept, scores.programs, min_chosen_pass_frac=min_chosen_pass_frac)
    for pair in pairs:
        lines.append(
            f"\npair: chosen {pair.chosen + 1}, rejected {pair.rejected + 1}, gap {pair.gap:.6g}"
        )
    if not pairs:
        lines.append(
            f"\nno pair: no program passes {min_chosen_pass_frac:.0%} of the tests and beats one"
        )
    return "\n".join(lines)


def _read_json(path: Path) -> list[list[object]]:
    rows = json.loads(path.read_text())
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("it must hold a list of lists")
    return rows


def _read_csv(path: Path) -> list[list[object]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return [list(row) for row in csv.reader(stream) if row]


def _read_npy(path: Path) -> list[list[object]]:
    array = np.load(path, allow_pickle=False)
    if array.ndim != 2:
        raise ValueError(f"it has {array.ndim} axes, two are needed")
    return [list(row) for row in array.tolist()]


def _cell(row: list[object], column: int) -> bool | None:
    """Return the cell in the 1-based column, None when it is missing or no flag."""
    value = row[column - 1] if column <= len(row) else None
    if value in (0, 1):
        return bool(value)
    return _VALUES.get(value.strip().lower()) if isinstance(value, str) else None


def _describe(row: list[object], column: int) -> str:
    value = row[column - 1] if column <= len(row) else ""
    return "is missing" if value in ("", None) else f"is {value!r}"
