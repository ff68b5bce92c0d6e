"""Rank programs by a pass/fail matrix alone: which tests to believe, scores, and pairs.

Pure functions. A matrix has a row per program and a column per test; True means that the program
passed the test. Nobody knows which tests are right, so programs and tests vouch for one another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from trillium.errors import DataError

Matrix = NDArray[np.bool_]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Hold one score per program and one per test; only their order means something."""

    programs: Vector
    tests: Vector


@dataclass(frozen=True)
class TestCensus:
    """Say which columns are kept and how many were removed for each reason.

    A test has one reason, the first that applies: uncalled (does not call the entry point), flaky
    (two runs differ), trivial (an empty function passes it), impossible (every program fails it).
    """

    __test__ = False  # not a test class for pytest

    kept: tuple[int, ...]
    n_uncalled: int
    n_flaky: int
    n_trivial: int
    n_impossible: int


@dataclass(frozen=True)
class Pair:
    """Hold the rows of a chosen and a rejected program, and by how much their scores differ."""

    chosen: int
    rejected: int
    gap: float


def codedpo(passed: Matrix, *, damping: float = 0.85, n_rounds: int = 10) -> Scores:
    """Score programs and tests by mutual trust (CodeDPO, arXiv 2410.05605, Section 3.2).

        c_i <- (1-d) c_i + d sum_j t_j P_ij        t_j <- (1-d) t_j + d sum_i c_i P_ij

    Both start at 1 and are updated from the values of the round before. The rounds run in whole
    numbers, d = a/b and every value times b: rounding would make pairs out of ties, and the order
    of the tests would choose their direction. At the end both are divided by their joint maximum;
    the update is linear, so ranks and ratios stay those of the plain recurrence. Constants of their
    own for programs and tests would change them.
    The paper has a row for every sample; `rank` gives one to every distinct program unless
    `rank.counts_repeats` is set.
    """
    rows = [np.flatnonzero(row).tolist() for row in _checked(passed)]
    columns = [np.flatnonzero(column).tolist() for column in passed.T]
    spread, whole = Fraction(str(damping)).as_integer_ratio()
    programs, tests = [1] * len(rows), [1] * len(columns)
    for _ in range(n_rounds):
        programs, tests = (
            [
                (whole - spread) * c + spread * sum(tests[j] for j in row)
                for c, row in zip(programs, rows, strict=True)
            ],
            [
                (whole - spread) * t + spread * sum(programs[i] for i in column)
                for t, column in zip(tests, columns, strict=True)
            ],
        )
    joint = max(*programs, *tests)
    return Scores(np.array([c / joint for c in programs]), np.array([t / joint for t in tests]))


def pass_count(passed: Matrix) -> Scores:
    """Score a program by the tests it passes, a test by the programs that pass it."""
    passes = _checked(passed).astype(np.float64)
    return Scores(passes.sum(axis=1), passes.sum(axis=0))


def single_test(passed: Matrix) -> Scores:
    """Score a program by the first test alone; samples come in random order, so it is any test."""
    passes = _checked(passed).astype(np.float64)
    tests = np.zeros(passes.shape[1])
    tests[0] = 1.0
    return Scores(passes[:, 0].copy(), tests)


def codet(passed: Matrix) -> Scores:
    """Score by consensus sets (CodeT, arXiv 2207.10397, Section 2.2).

    Programs that pass exactly the same tests form a set; its score is the number of its programs
    times the number of those tests. A test scores as the best set that passes it. The paper counts
    every sample; `rank` counts distinct programs unless `rank.counts_repeats` is set.
    """
    rows = [row.tobytes() for row in _checked(passed)]
    programs = np.array(
        [rows.count(row) * passed[i].sum() for i, row in enumerate(rows)], dtype=np.float64
    )
    return Scores(programs, (programs[:, None] * passed).max(axis=0))


def plum(passed: Matrix) -> Scores:
    """Score 1 for a program that passes every test, else 0 (PLUM, arXiv 2406.06887, Section 3).

    A test scores the number of those programs, as each of them passes it: with tests that the
    model wrote, one wrong test leaves nothing to choose.
    """
    passes_all = np.asarray(_checked(passed).all(axis=1), dtype=np.float64)
    tests = passed[passes_all > 0].sum(axis=0)
    return Scores(passes_all, np.asarray(tests, dtype=np.float64))


def at_random(passed: Matrix, *, seed: int) -> Scores:
    """Score programs in random order, whatever they pass: what every other rule has to beat."""
    n_programs, n_tests = _checked(passed).shape
    order = np.random.default_rng(seed).permutation(n_programs)
    return Scores(order.astype(np.float64), np.zeros(n_tests))


SCORERS: dict[str, Callable[[Matrix], Scores]] = {
    "codedpo": codedpo,
    "pass_count": pass_count,
    "codet": codet,
    "plum": plum,
    "single_test": single_test,
}
"""Rules that read nothing but the matrix."""


def take_census(
    passed: Matrix,
    *,
    stub_passed: Sequence[bool] | None = None,
    is_flaky: Sequence[bool] | None = None,
    calls_entry_point: Sequence[bool] | None = None,
) -> TestCensus:
    """Keep the tests that can tell programs apart, and count the others by reason.

    `stub_passed` says which tests a function without a body passes: such tests, `assert True` among
    them, would collect the highest trust and carry every program with them.
    """
    n_tests = _checked(passed).shape[1]
    flags: dict[str, Matrix] = {
        "uncalled": ~_column(calls_entry_point, n_tests, default=True),
        "flaky": _column(is_flaky, n_tests, default=False),
        "trivial": _column(stub_passed, n_tests, default=False),
        "impossible": np.logical_not(passed.any(axis=0)),
    }
    counts = dict.fromkeys(flags, 0)
    kept = []
    for test in range(n_tests):
        reason = next((name for name, column in flags.items() if column[test]), None)
        if reason is None:
            kept.append(test)
        else:
            counts[reason] += 1
    return TestCensus(tuple(kept), *(counts[name] for name in flags))


def count_agreeing(passed: Matrix, n_samples: Sequence[int]) -> list[int]:
    """Return for each program how many samples pass exactly the tests that it passes.

    `n_samples[i]` samples spell program i. Wrong programs fail in many ways, right ones agree.
    """
    rows = [row.tobytes() for row in _checked(passed)]
    return [
        sum(n for other, n in zip(rows, n_samples, strict=True) if other == row) for row in rows
    ]


def choose_pairs(
    passed: Matrix,
    scores: Vector,
    *,
    may_be_chosen: Sequence[bool] | None = None,
    min_chosen_pass_frac: float = 0.5,
    n_chosen: int = 1,
    n_rejected: int = 1,
    needs_evidence: bool = True,
) -> list[Pair]:
    """Pair each of the best programs with each of the worst, widest gap first.

    The default is CodeDPO's pair, highest against lowest score. Chosen programs pass at least
    `min_chosen_pass_frac` of the tests; an absolute gate, because a wide gap says little about
    whether the better one is right. `may_be_chosen` can exclude programs for other reasons. A pair
    needs different scores and, with `needs_evidence`, a test that the chosen passes and the
    rejected fails. Ties go to the earlier row.
    """
    if len(scores) != _checked(passed).shape[0]:
        raise DataError(
            f"{len(scores)} scores for {passed.shape[0]} programs; give one per program"
        )
    order = np.argsort(-scores, kind="stable").tolist()
    fraction = passed.mean(axis=1)
    allowed = may_be_chosen or [True] * len(order)
    best = [r for r in order if allowed[r] and fraction[r] >= min_chosen_pass_frac][:n_chosen]
    worst = sorted(order, key=lambda row: (scores[row], row))[:n_rejected]
    pairs = [
        Pair(good, bad, float(scores[good] - scores[bad]))
        for good in best
        for bad in worst
        if scores[good] > scores[bad]
        and (not needs_evidence or bool((passed[good] & ~passed[bad]).any()))
    ]
    return sorted(pairs, key=lambda pair: -pair.gap)


def _checked(passed: Matrix) -> Matrix:
    if passed.ndim != 2 or 0 in passed.shape:
        raise DataError(
            f"the matrix has shape {passed.shape} (needs programs x tests, one or more of each); "
            "drop the task"
        )
    return passed


def _column(flags: Sequence[bool] | None, n_tests: int, *, default: bool) -> Matrix:
    if flags is None:
        return np.full(n_tests, default)
    if len(flags) != n_tests:
        raise DataError(f"{len(flags)} flags for {n_tests} tests; give one per test")
    return np.asarray(flags, dtype=np.bool_)
