"""DSTC: choose programs together with tests, so that a wrong test cannot turn a label around.

A response is a program followed by one test. The chosen program passes its test, the rejected one
fails its own. Where the test and not the program is wrong, the rejected response is still
inconsistent: the pair says nothing, instead of the opposite of the truth.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trillium_code.ranking import Matrix, Vector, pass_count

ChosenTest = Literal["most_passed", "least_passed", "random"]
RejectedTest = Literal["most_passed", "same_as_chosen"]


class JointConfig(BaseModel):
    """Choose which test goes with a program, for the scorer `dstc`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen_test: ChosenTest = Field(
        "most_passed", description="of the tests that the chosen program passes"
    )
    rejected_test: RejectedTest = Field(
        "most_passed", description="of the tests that the rejected program fails"
    )
    min_gap: int = Field(1, ge=1, description="tests that the chosen program passes more, at least")


@dataclass(frozen=True)
class JointPair:
    """Hold two (program, test) couples, by row and column, and their difference in tests passed."""

    chosen: int
    chosen_test: int
    rejected: int
    rejected_test: int
    gap: float


def choose_joint(
    passed: Matrix, config: JointConfig, *, allowed: Matrix | None = None, seed: int = 0
) -> JointPair | None:
    """Return the minimax pair of (program, test) couples (DSTC, arXiv 2411.13611, Section 3).

        i+ = argmax_i n_c(i)    j+ = a test that i+ passes      n_c(i) = sum_j P_ij
        i- = argmin_i n_c(i)    j- = argmax_j n_t(j), P_i-j = 0   n_t(j) = sum_i P_ij

    Tests that every program passes or fails are never used. `allowed` says which rows may be
    chosen. Ties go to the earlier row and column. None when no two couples fit.
    Reading: the paper's abstract names the minimax selection and the concatenation; which test goes
    with a program is not settled there, hence the options of `JointConfig`.
    """
    counts = pass_count(passed)
    usable = (counts.tests > 0) & (counts.tests < passed.shape[0])
    may = np.ones(passed.shape[0], np.bool_) if allowed is None else allowed
    if not may.any() or not usable.any():
        return None
    best = int(np.where(may, counts.programs, -1.0).argmax())
    worst = int(counts.programs.argmin())
    gap = float(counts.programs[best] - counts.programs[worst])
    passes = np.flatnonzero(passed[best] & usable)
    if best == worst or gap < config.min_gap or not passes.size:
        return None
    chosen_test = _pick(passes, counts.tests, config.chosen_test, seed)
    if config.rejected_test == "same_as_chosen":
        fails = np.array([chosen_test]) if not passed[worst, chosen_test] else np.array([], int)
    else:
        fails = np.flatnonzero(~passed[worst] & usable)
    if not fails.size:
        return None
    rejected_test = _pick(fails, counts.tests, "most_passed", seed)
    return JointPair(best, chosen_test, worst, rejected_test, gap)


def _pick(columns: np.ndarray, n_passing: Vector, rule: ChosenTest, seed: int) -> int:
    if rule == "random":
        return int(np.random.default_rng(seed).choice(columns))
    trust = n_passing[columns]
    return int(columns[trust.argmax() if rule == "most_passed" else trust.argmin()])
