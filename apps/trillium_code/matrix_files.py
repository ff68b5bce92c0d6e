"""Rank a pass/fail matrix that was saved to a file, without any model or sandbox."""

import csv
import json
from pathlib import Path

import numpy as np
from trillium.errors import DataError

from trillium_code.pairs import RankConfig, Ranking, rank
from trillium_code.ranking import SCORERS, Matrix, count_agreeing
from trillium_code.records import TaskMatrix

_ENTRY_POINT = "f"

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
    except (ValueError, RecursionError, EOFError, csv.Error) as error:
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


def rank_file(path: Path, *, config: RankConfig) -> str:
    """Return scores, removed tests and the pairs of a saved matrix as text.

    Tests that every program fails are removed; trivial and flaky ones cannot be told from a matrix.
    """
    passed = read_matrix(path)
    n_programs, n_tests = passed.shape
    matrix = TaskMatrix(
        task_id=path.name,
        programs=tuple(f"program {i + 1}" for i in range(n_programs)),
        members=tuple((i,) for i in range(n_programs)),
        tests=tuple(f"{_ENTRY_POINT}({j})" for j in range(n_tests)),
        passed=tuple(map(tuple, passed.tolist())),
        stub_passed=(False,) * n_tests,
        is_flaky=(False,) * n_tests,
        lost=(),
    )
    ranking = rank(matrix, _ENTRY_POINT, [True] * n_programs, config)
    kept = list(ranking.census.kept)
    lines = [f"{n_programs} programs, {n_tests} tests"]
    lines.append(f"removed: {n_tests - len(kept)} tests that every program fails")
    if not kept:
        return "\n".join([*lines, "no test is left, so there is nothing to rank"])
    if ranking.reason == "one_program":
        return "\n".join([*lines, "one program alone has nothing to be ranked against"])
    lines += _score_table(config.scorer, ranking, passed[:, kept])
    for number, pair in enumerate(ranking.pairs):
        chosen, rejected = str(pair.chosen + 1), str(pair.rejected + 1)
        if ranking.pair_tests:
            first, second = ranking.pair_tests[number]
            chosen += f" with test {first + 1}"
            rejected += f" with test {second + 1}"
        lines.append(f"\npair: chosen {chosen}, rejected {rejected}, gap {pair.gap:.6g}")
    if not ranking.pairs:
        lines.append(f"\nno pair: {_why_no_pair(ranking, passed[:, kept], config)}")
    return "\n".join(lines)


def _why_no_pair(ranking: Ranking, kept: Matrix, config: RankConfig) -> str:
    """Say what keeps the best program from being paired with the worst; scorer random has both."""
    if len(set(ranking.scores)) == 1:
        return "all programs score the same"
    passes, least = kept.sum(axis=1), config.min_agreement
    enough = kept.mean(axis=1) >= config.min_chosen_pass_frac
    they = f"program passes {config.min_chosen_pass_frac:.0%} of the tests"
    if not enough.any():
        return f"no {they}"
    may = enough & (np.array(count_agreeing(kept, [1] * len(kept))) >= least)
    if not may.any():
        return f"no {they} and is one of {least} that pass the same ones (min_agreement)"
    if config.scorer != "dstc":
        return f"no {they}, scores above the worst and passes a test that the worst fails"
    if passes[may].max() - passes.min() < config.joint.min_gap:
        return f"no {they}, and {config.joint.min_gap} more than the worst (joint.min_gap)"
    return "the worst passes the test of the best (joint.rejected_test = same_as_chosen)"


def _score_table(scorer: str, ranking: Ranking, kept: Matrix) -> list[str]:
    """Return the programs and the kept tests, the most trusted first."""
    lines = [f"\n{'program':>8} {scorer:>12} {'passes':>8}"]
    for row in sorted(range(len(kept)), key=lambda row: -ranking.scores[row]):
        share = f"{int(kept[row].sum())}/{kept.shape[1]}"
        lines.append(f"{row + 1:>8} {ranking.scores[row]:>12.6g} {share:>8}")
    if scorer in SCORERS:
        tests = SCORERS[scorer](kept).tests
        lines.append(f"\n{'test':>8} {scorer:>12} {'passed by':>10}")
        for column in np.argsort(-tests, kind="stable").tolist():
            share = f"{int(kept[:, column].sum())}/{kept.shape[0]}"
            place = ranking.census.kept[column] + 1
            lines.append(f"{place:>8} {tests[column]:>12.6g} {share:>10}")
    return lines


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
