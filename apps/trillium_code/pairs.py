"""From sampled programs and their pass/fail matrix to preference pairs.

The hidden tests of a task never come here: a pair rests on tests that the model wrote itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from trillium.files import hash_json

from trillium_code.joint import JointConfig, choose_joint
from trillium_code.programs import calls
from trillium_code.ranking import (
    SCORERS,
    Matrix,
    Pair,
    Scores,
    TestCensus,
    at_random,
    choose_pairs,
    count_agreeing,
    pass_count,
    take_census,
)
from trillium_code.records import CodePair, TaskMatrix, TaskSamples

if TYPE_CHECKING:
    from trillium_code.prompts import JointPrompt

Scorer = Literal["codedpo", "dstc", "pass_count", "codet", "plum", "single_test", "random"]
Reason = Literal["paired", "no_tests", "one_program", "nothing_to_tell_apart"]


class RankConfig(BaseModel):
    """Choose how programs are ranked and how many pairs a task gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scorer: Scorer = Field("codedpo", description="how programs and tests vouch for one another")
    min_chosen_pass_frac: float = Field(
        0.5, ge=0, le=1, description="share of the kept tests that a chosen program passes"
    )
    min_agreement: int = Field(
        1, ge=1, description="samples that pass the same tests as a chosen program, itself included"
    )
    n_chosen: int = Field(1, ge=1, description="best programs of a task that are paired")
    n_rejected: int = Field(1, ge=1, description="worst programs that each of them is paired with")
    counts_repeats: bool = Field(
        False,
        description="a program has as many votes as samples spell it, as in the papers; false = "
        "one, as in the figures of the README",
    )
    joint: JointConfig = Field(
        JointConfig(), description="tests that scorer dstc puts behind the programs"
    )


@dataclass(frozen=True)
class Ranking:
    """Hold the scores of one task's programs, what became of its tests, and its pairs.

    Scores and shares are in the order of the matrix; a program that was left out has -1 in both.
    `pair_tests` are the tests behind chosen and rejected, by column, where the scorer is dstc.
    """

    task_id: str
    scores: tuple[float, ...]
    pass_fracs: tuple[float, ...]
    census: TestCensus
    pairs: tuple[Pair, ...]
    reason: Reason
    pair_tests: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Kept:
    """The part of a matrix that counts: programs that ran, tests that can tell them apart.

    `votes` says in how many rows the rules see each program.
    """

    passed: Matrix
    votes: Sequence[int]
    may_be_chosen: Matrix

    @property
    def voters(self) -> list[int]:
        """Return the program of each row that the rules see."""
        return [program for program, n in enumerate(self.votes) for _ in range(n)]


def rank(
    matrix: TaskMatrix,
    entry_point: str,
    may_be_chosen: Sequence[bool],
    config: RankConfig,
    *,
    seed: int = 0,
) -> Ranking:
    """Score the programs of one task and choose its pairs; only scorer random draws by `seed`."""
    alive = matrix.steady
    if not matrix.tests or len(alive) < 2:
        reason: Reason = "one_program" if matrix.tests else "no_tests"
        return _unranked(matrix, TestCensus((), 0, 0, 0, 0), reason)
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
    n_samples = [len(matrix.members[i]) for i in alive]
    agreeing = count_agreeing(kept, n_samples)
    # Agreement is evidence, which scorer random does without.
    least = 1 if config.scorer == "random" else config.min_agreement
    allowed = [may_be_chosen[i] and n >= least for i, n in zip(alive, agreeing, strict=True)]
    own_seed = int(hash_json([seed, matrix.task_id])[:8], 16)
    votes = n_samples if config.counts_repeats else [1] * len(alive)
    part = _Kept(kept, votes, np.array(allowed, dtype=np.bool_))
    scores = _score(part, config, own_seed)
    pairs, tests = _choose(part, scores, config, own_seed)
    return Ranking(
        matrix.task_id,
        _spread(scores.programs.tolist(), alive, len(matrix.programs)),
        _spread(kept.mean(axis=1).tolist(), alive, len(matrix.programs)),
        census,
        tuple(Pair(alive[pair.chosen], alive[pair.rejected], pair.gap) for pair in pairs),
        "paired" if pairs else "nothing_to_tell_apart",
        tuple((census.kept[first], census.kept[second]) for first, second in tests),
    )


def _score(part: _Kept, config: RankConfig, seed: int) -> Scores:
    if config.scorer == "random":
        return at_random(part.passed, seed=seed)
    if config.scorer == "dstc":
        return pass_count(part.passed)
    scores = SCORERS[config.scorer](part.passed[part.voters])
    return Scores(scores.programs[np.cumsum(part.votes) - 1], scores.tests)


def _choose(
    part: _Kept, scores: Scores, config: RankConfig, seed: int
) -> tuple[list[Pair], list[tuple[int, int]]]:
    """Return the pairs by row, and for dstc the tests behind them by column."""
    if config.scorer == "dstc":
        gate = part.passed.mean(axis=1) >= config.min_chosen_pass_frac
        allowed = part.may_be_chosen & gate
        rows = part.voters
        found = choose_joint(part.passed[rows], config.joint, allowed=allowed[rows], seed=seed)
        if found is None:
            return [], []
        pair = Pair(rows[found.chosen], rows[found.rejected], found.gap)
        return [pair], [(found.chosen_test, found.rejected_test)]
    is_random = config.scorer == "random"
    pairs = choose_pairs(
        part.passed,
        scores.programs,
        may_be_chosen=part.may_be_chosen.tolist(),
        min_chosen_pass_frac=0.0 if is_random else config.min_chosen_pass_frac,
        n_chosen=config.n_chosen,
        n_rejected=config.n_rejected,
        needs_evidence=not is_random,
    )
    return pairs, []


def build_pairs(
    samples: TaskSamples,
    matrix: TaskMatrix,
    entry_point: str,
    config: RankConfig,
    *,
    seed: int = 0,
    joint: "JointPrompt | None" = None,
) -> tuple[Ranking, list[CodePair]]:
    """Rank one task and return its pairs with the token ids of the samples.

    A program stands for all samples that spell it; the first of them that ended by itself gives the
    tokens. A program of which every sample was cut off at the token limit is never chosen: it would
    teach the model not to stop. Scorer dstc needs `joint`, which asks for a program and a test.
    """
    ended = [
        next((i for i in members if samples.samples[i].finish == "stop"), None)
        for members in matrix.members
    ]
    ranking = rank(matrix, entry_point, [i is not None for i in ended], config, seed=seed)
    pairs = [
        _make_pair(samples, matrix, ranking, number, ended, joint)
        for number in range(len(ranking.pairs))
    ]
    return ranking, [pair for pair in pairs if pair.chosen_ids != pair.rejected_ids]


def _make_pair(
    samples: TaskSamples,
    matrix: TaskMatrix,
    ranking: Ranking,
    number: int,
    ended: Sequence[int | None],
    joint: "JointPrompt | None",
) -> CodePair:
    """Return one pair with its tokens, for dstc under the joint prompt and with the tests."""
    pair = ranking.pairs[number]
    sides = [
        samples.samples[matrix.members[program][0] if first is None else first]
        for program in (pair.chosen, pair.rejected)
        for first in [ended[program]]
    ]
    texts = [matrix.programs[pair.chosen], matrix.programs[pair.rejected]]
    prompt_ids, ids = samples.prompt_ids, [side.ids for side in sides]
    if ranking.pair_tests:
        assert joint is not None, "dstc without a joint prompt"
        tests = [matrix.tests[test] for test in ranking.pair_tests[number]]
        prompt_ids = joint.ids
        ids = [joint.respond(side.text, test) for side, test in zip(sides, tests, strict=True)]
        texts = [f"{text}\n\n{test}\n" for text, test in zip(texts, tests, strict=True)]
    return CodePair(
        id=f"{matrix.task_id}/{number}",
        task_id=matrix.task_id,
        prompt_ids=prompt_ids,
        chosen_ids=ids[0],
        rejected_ids=ids[1],
        chosen=texts[0],
        rejected=texts[1],
        gap=pair.gap,
    )


def _unranked(matrix: TaskMatrix, census: TestCensus, reason: Reason) -> Ranking:
    nothing = (-1.0,) * len(matrix.programs)
    return Ranking(matrix.task_id, nothing, nothing, census, (), reason)


def _spread(values: Sequence[float], places: Sequence[int], size: int) -> tuple[float, ...]:
    spread = [-1.0] * size
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return tuple(spread)
