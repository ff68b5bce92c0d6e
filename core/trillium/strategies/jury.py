"""`judge_pairs`: judge the pairs of a file by one model, a jury, or a jury that debates.

Every opinion is a row on disk as soon as it is given, so a kill costs one question. The file that
comes out has chosen and rejected as the jury sees them; ties and unreadable pairs are left out and
counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.generation.interface import SamplingConfig
from trillium.records import PairRow
from trillium.strategies.answers import Answers, open_answers
from trillium.strategies.asking import Asker, as_text
from trillium.strategies.judging import (
    Opinion,
    Vote,
    ask_for_scores,
    cohen_kappa,
    combine_orders,
    count_votes,
    read_opinion,
)


@dataclass(frozen=True)
class Judged:
    """Hold the pairs as judged and how the judges agreed.

    `kappa` is Cohen's, with the file's own order of chosen and rejected under "file", and between
    judges; `consistent` is each judge's share of pairs on which both orders agree.
    """

    rows: list[PairRow]
    n_same: int
    n_turned: int
    n_ties: int
    n_unreadable: int
    kappa: Mapping[str, float]
    consistent: Mapping[str, float]


@dataclass(frozen=True)
class _Jury:
    judges: Mapping[str, Asker]
    sampling: SamplingConfig
    answers: Answers

    def ask(self, name: str, keys: Sequence[str], questions: Sequence[str]) -> None:
        """Ask a judge what it has not answered yet."""
        self.answers.ask(self.judges[name], keys, questions, self.sampling)

    def opinion(self, key: str) -> Opinion:
        """Return an opinion that was asked for."""
        return read_opinion(self.answers.known[key])


def judge_pairs(
    rows: Sequence[PairRow],
    judges: Mapping[str, Asker],
    opinions: Path,
    *,
    n_rounds: int,
    sampling: SamplingConfig,
    seed: int,
) -> Judged:
    """Judge every pair in both orders; from the second round on judges hear one another.

    `opinions` is the file that the answers are kept in and taken from. Raises ConfigError for more
    rounds than one with a single judge.
    """
    if n_rounds > 1 and len(judges) < 2:
        raise ConfigError("rounds: a debate needs at least two judges; name another one")
    with open_answers(opinions, seed=seed) as answers:
        jury = _Jury(judges, sampling, answers)
        for number in range(n_rounds):
            _hold_round(jury, rows, number)
    return _conclude(jury, rows, n_rounds - 1)


def _hold_round(jury: _Jury, rows: Sequence[PairRow], number: int) -> None:
    for name in jury.judges:
        keys, questions = [], []
        for row in rows:
            for order in ("forward", "backward"):
                sides = (as_text(row.chosen), as_text(row.rejected))
                first, second = sides if order == "forward" else sides[::-1]
                others = [
                    jury.opinion(_key(row, other, number - 1, order)).text
                    for other in jury.judges
                    if number and other != name
                ]
                keys.append(_key(row, name, number, order))
                questions.append(ask_for_scores(as_text(row.prompt), first, second, others))
        jury.ask(name, keys, questions)


def _conclude(jury: _Jury, rows: Sequence[PairRow], last: int) -> Judged:
    votes = {name: [_vote(jury, row, name, last) for row in rows] for name in jury.judges}
    sides: list[int] = []
    kept, n_unreadable = [], 0
    for index, row in enumerate(rows):
        heard = [votes[name][index] for name in jury.judges]
        if all(vote.preference is None for vote in heard):
            n_unreadable += 1
            sides.append(0)
            continue
        side = count_votes(heard)
        sides.append(side)
        if side:
            kept.append(row if side > 0 else _turn(row))
    return Judged(
        rows=kept,
        n_same=sides.count(1),
        n_turned=sides.count(-1),
        n_ties=sides.count(0) - n_unreadable,
        n_unreadable=n_unreadable,
        kappa=_agreement(votes),
        consistent={
            name: sum(vote.is_consistent for vote in each) / len(each)
            for name, each in votes.items()
        },
    )


def _agreement(votes: Mapping[str, Sequence[Vote]]) -> dict[str, float]:
    """Return Cohen's kappa of all two judges, over the pairs that both could be read on."""
    found = {}
    for left, right in combinations(votes, 2):
        both = [
            (count_votes([a]), count_votes([b]))
            for a, b in zip(votes[left], votes[right], strict=True)
            if a.preference is not None and b.preference is not None
        ]
        if both:
            found[f"{left} and {right}"] = cohen_kappa([a for a, _ in both], [b for _, b in both])
    return found


def _vote(jury: _Jury, row: PairRow, name: str, number: int) -> Vote:
    forward, backward = (
        jury.opinion(_key(row, name, number, order)) for order in ("forward", "backward")
    )
    return combine_orders(forward, backward)


def _turn(row: PairRow) -> PairRow:
    labels = {name: values[::-1] for name, values in row.labels.items()}
    return replace(row, chosen=row.rejected, rejected=row.chosen, labels=labels)


def _key(row: PairRow, name: str, number: int, order: str) -> str:
    return hash_json([row.id, name, number, order])
