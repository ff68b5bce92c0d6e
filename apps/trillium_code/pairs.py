"""From sampled programs and their pass/fail matrix to preference pairs.

The hidden tests of a task never come here: a pair rests on tests that the model wrote itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trillium_code.programs import calls
from trillium_code.ranking import (
    SCORERS,
    Matrix,
    Pair,
    TestCensus,
    choose_pairs,
    count_agreeing,
    take_census,
)
from trillium_code.records import CodePair, TaskMatrix, TaskSamples

Reason = Literal["paired", "no_tests", "one_program", "nothing_to_tell_apart"]


class RankConfig(BaseModel):
    """Choose how programs are ranked and how many pairs a task gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: Literal["codedpo", "pass_count", "codet", "single_test"] = Field(
        "codedpo", description="how programs and tests vouch for one another"
    )
    min_chosen_pass_frac: float = Field(
        0.5, ge=0, le=1, description="share of the kept tests that a chosen program passes"
    )
    min_agreement: int = Field(
        1, ge=1, description="samples that pass the same tests as a chosen program, itself included"
    )
    n_chosen: int = Field(1, ge=1, description="best programs of a task that are paired")
    n_rejected: int = Field(1, ge=1, description="worst programs that each of them is paired with")


@dataclass(frozen=True)
class Ranking:
    """Hold the scores of one task's programs, what became of its tests, and its pairs.

    Scores and shares are in the order of the matrix; a program whose sandbox failed has -1 in both.
    """

    task_id: str
    scores: tuple[float, ...]
    pass_fracs: tuple[float, ...]
    census: TestCensus
    pairs: tuple[Pair, ...]
    reason: Reason


def rank(
    matrix: TaskMatrix, entry_point: str, may_be_chosen: Sequence[bool], config: RankConfig
) -> Ranking:
    """Score the programs of one task and choose its pairs."""
    alive = [i for i in range(len(matrix.programs)) if i not in matrix.lost]
    if not matrix.tests:
        return _unranked(matrix, TestCensus((), 0, 0, 0, 0), "no_tests")
    if len(alive) < 2:
        return _unranked(matrix, TestCensus((), 0, 0, 0, 0), "one_program")
    passed: Matrix = np.array([matrix.passed[i] for i in alive], dtype=np.bool_)
    census = take_census(
        passed,
        stub_passed=matrix.stub_passed,
        is_flaky=matrix.is_flaky,
        calls_entry_point=[calls(test, entry_point) for test in matrix.tests],
    )
    if not census.kept:
        return _unranked(matrix, census, "no_tests")
    kept = passed[:, list(census.kept)]
    scores = SCORERS[config.scorer](kept).programs
    agreeing = count_agreeing(kept, [len(matrix.members[i]) for i in alive])
    pairs = choose_pairs(
        kept,
        scores,
        may_be_chosen=[
            may_be_chosen[i] and n >= config.min_agreement
            for i, n in zip(alive, agreeing, strict=True)
        ],
        min_chosen_pass_frac=config.min_chosen_pass_frac,
        n_chosen=config.n_chosen,
        n_rejected=config.n_rejected,
    )
    return Ranking(
        matrix.task_id,
        _spread(scores.tolist(), alive, len(matrix.programs)),
        _spread(kept.mean(axis=1).tolist(), alive, len(matrix.programs)),
        census,
        tuple(Pair(alive[pair.chosen], alive[pair.rejected], pair.gap) for pair in pairs),
        "paired" if pairs else "nothing_to_tell_apart",
    )


def build_pairs(
    samples: TaskSamples, matrix: TaskMatrix, entry_point: str, config: RankConfig
) -> tuple[Ranking, list[CodePair]]:
    """Rank one task and return its pairs with the token ids of the samples.

    A program stands for all samples that spell it; the first of them that ended by itself gives the
    tokens. A program of which every sample was cut off at the token limit is never chosen: it would
    teach the model not to stop.
    """
    ended = [
        next((i for i in members if samples.samples[i].finish == "stop"), None)
        for members in matrix.members
    ]
    ranking = rank(matrix, entry_point, [i is not None for i in ended], config)
    pairs = []
    for number, pair in enumerate(ranking.pairs):
        ids = []
        for program in (pair.chosen, pair.rejected):
            first = ended[program]
            sample = matrix.members[program][0] if first is None else first
            ids.append(samples.samples[sample].ids)
        if ids[0] == ids[1]:
            continue
        pairs.append(
            CodePair(
                id=f"{matrix.task_id}/{number}",
                task_id=matrix.task_id,
                prompt_ids=samples.prompt_ids,
                chosen_ids=ids[0],
                rejected_ids=ids[1],
                chosen=matrix.programs[pair.chosen],
                rejected=matrix.programs[pair.rejected],
                gap=pair.gap,
            )
        )
    return ranking, pairs


def _unranked(matrix: TaskMatrix, census: TestCensus, reason: Reason) -> Ranking:
    nothing = (-1.0,) * len(matrix.programs)
    return Ranking(matrix.task_id, nothing, nothing, census, (), reason)


def _spread(values: Sequence[float], places: Sequence[int], size: int) -> tuple[float, ...]:
    spread = [-1.0] * size
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return tuple(spread)
