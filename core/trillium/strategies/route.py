"""`route_pairs`: mark which pairs of a file should go to a person, and take what people said.

What comes out has the columns `gain`, and `source_human`: 1 where the label is a person's, or is to
become one, and 0 where the model's label stays. The rest goes to people as tasks without the
model's label; the order of the two responses says nothing of it either.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trillium.errors import ConfigError, DataError
from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.strategies.answers import Participant, open_answers, open_participant
from trillium.strategies.asking import as_text
from trillium.strategies.gains import (
    choose,
    doubt,
    fit_errors,
    fit_performance,
    label_accuracy,
    predict_errors,
    random_accuracies,
)
from trillium.strategies.human_labels import Sides, read_mixtures
from trillium.strategies.judging import ask_for_scores, read_opinion
from trillium.strategies.pair_features import bin_features, measure_pair
from trillium.strategies.turning import is_one_sided, turn

_JUDGE_TOKENS = 160
_N_DRAWS = 1000


@dataclass(frozen=True)
class Routed:
    """Hold the pairs with their marks, and those that people should still label.

    Pairs on which people saw a tie are left out. `is_free` and `is_routed` are over all pairs of
    the file: those outside the pilot, and those of them that go to people. `n_lost` of the turned
    pairs lost a field of one side (see `turning`).
    """

    rows: list[PairRow]
    tasks: list[PairRow]
    is_free: NDArray[np.bool_]
    is_routed: NDArray[np.bool_]
    n_turned: int
    n_lost: int
    n_ties: int


def find_gains(
    rows: Sequence[PairRow],
    *,
    judges: Sequence[str],
    pilot: Sides | None,
    mixtures: Path | None,
    opinions: Path,
    seed: int,
) -> list[float]:
    """Return the gain of a person's label of each pair, by the one source that is given.

    Raises ConfigError for none, or more than one.
    """
    if bool(judges) + (pilot is not None) + (mixtures is not None) != 1:
        raise ConfigError(
            "route: needs one source of gains; give --by for judges, --pilot for people's labels "
            "of some pairs, or --mixtures"
        )
    if pilot is not None:
        return gains_by_pilot(rows, pilot)
    if mixtures is not None:
        return gains_by_mixtures(rows, read_mixtures(mixtures))
    return gains_by_doubt(rows, [open_participant(name) for name in judges], opinions, seed=seed)


def gains_by_doubt(
    rows: Sequence[PairRow], judges: Sequence[Participant], opinions: Path, *, seed: int
) -> list[float]:
    """Ask every judge about every pair in both orders; the less they settle it, the more gain."""
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=_JUDGE_TOKENS)
    found: list[list[tuple[str, str]]] = [[] for _ in rows]
    with open_answers(opinions, seed=seed) as answers:
        for judge in judges:
            questions = []
            for row in rows:
                prompt, one, other = map(as_text, (row.prompt, row.chosen, row.rejected))
                questions += [
                    ask_for_scores(prompt, one, other),
                    ask_for_scores(prompt, other, one),
                ]
            said = [each[0] for each in answers.draw(judge, questions, sampling)]
            for place, both in enumerate(zip(said[::2], said[1::2], strict=True)):
                found[place].append(both)
    return [doubt([(read_opinion(a), read_opinion(b)) for a, b in each]) for each in found]


def gains_by_pilot(rows: Sequence[PairRow], sides: Sides) -> list[float]:
    """Return the chance of a wrong label, fitted on the rows that people have labelled.

    Raises DataError when the pilot has no wrong label, or no right one, to learn from.
    """
    features = _features(rows)
    pilot = [place for place, row in enumerate(rows) if sides.get(row.id) in ("chosen", "rejected")]
    is_wrong = [sides[rows[place].id] == "rejected" for place in pilot]
    if len(set(is_wrong)) < 2:
        raise DataError(
            f"pilot: {len(pilot)} pairs of the file have a person's label and {sum(is_wrong)} of "
            "them another than the model's (needs both kinds); let people label more pairs, or "
            "route by judges"
        )
    return list(map(float, predict_errors(features, fit_errors(features[pilot], is_wrong))))


def gains_by_mixtures(
    rows: Sequence[PairRow], mixtures: Sequence[tuple[frozenset[str], float]]
) -> list[float]:
    """Return what a person's label of each pair adds to a result, learned from mixtures.

    A mixture is the ids that people labelled, and what was measured of it.
    """
    features = _features(rows)
    is_human = np.array([[row.id in ids for row in rows] for ids, _ in mixtures], dtype=np.bool_)
    weights = fit_performance(features, is_human, [result for _, result in mixtures])
    return list(map(float, features @ weights))


def route_pairs(
    rows: Sequence[PairRow],
    gains: Sequence[float],
    pilot: Sides,
    answers: Sides,
    *,
    budget: int,
    seed: int,
) -> Routed:
    """Send the `budget` pairs of the largest gain to people, and take the labels they gave.

    Pairs of the pilot have a person's label already, so none of the budget is spent on them.
    """
    sides = {**pilot, **answers}
    is_free = np.array([row.id not in pilot for row in rows], dtype=np.bool_)
    is_routed = np.zeros(len(rows), dtype=np.bool_)
    is_routed[is_free] = choose(np.asarray(gains)[is_free].tolist(), budget, seed=seed)
    kept: list[PairRow] = []
    tasks: list[PairRow] = []
    n_turned = n_lost = n_ties = 0
    for row, gain, routed in zip(rows, gains, is_routed, strict=True):
        side = sides.get(row.id)
        if routed and side is None:
            tasks.append(row)
        if side == "tie":
            n_ties += 1
            continue
        is_human = float(bool(routed) or side is not None)
        marked = replace(row, columns={**row.columns, "gain": gain, "source_human": is_human})
        if side == "rejected":
            n_turned += 1
            n_lost += is_one_sided(marked)
            marked = turn(marked)
        kept.append(marked)
    return Routed(kept, tasks, is_free, is_routed, n_turned, n_lost, n_ties)


def check_ids(rows: Sequence[PairRow]) -> None:
    """Raise DataError for an id that two pairs have: people's labels could not be told apart."""
    first: dict[str, PairRow] = {}
    for row in rows:
        other = first.setdefault(row.id, row)
        if other is not row:
            raise DataError(
                f"{row.where}: id {row.id!r} is that of {other.where} too (needs an id per pair: "
                "people's labels are known by it); number the pairs, or drop one"
            )


def compare_with_random(rows: Sequence[PairRow], found: Routed, right: Sides, *, seed: int) -> str:
    """Return the share of right labels without people, by this routing, and by random ones.

    `right` has the labels that people would give; pairs without one, ties and the pilot are left
    out.
    """
    known = [right.get(row.id, "tie") != "tie" for row in rows]
    settled = np.flatnonzero(np.array(known, dtype=np.bool_) & found.is_free).tolist()
    if not settled:
        return "no pair has a right label to compare with"
    is_wrong = np.array([right[rows[place].id] == "rejected" for place in settled], dtype=np.bool_)
    is_human = found.is_routed[settled]
    alone = label_accuracy(is_wrong, np.zeros_like(is_human))
    routed = label_accuracy(is_wrong, is_human)
    n = int(is_human.sum())
    draws = random_accuracies(is_wrong, n, n_draws=_N_DRAWS, seed=seed)
    low, high = np.quantile(draws, [0.025, 0.975])
    return (
        f"right labels: model alone {alone:.1%}; {n:,} of {len(settled):,} to people by this "
        f"routing {routed:.1%}, at random {draws.mean():.1%} ({low:.1%} to {high:.1%} of "
        f"{_N_DRAWS:,} draws)"
    )


def _features(rows: Sequence[PairRow]) -> NDArray[np.float64]:
    measures = np.array([measure_pair(row) for row in rows])
    return bin_features(measures, measures)
