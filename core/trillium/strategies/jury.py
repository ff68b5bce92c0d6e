"""`judge_pairs`: judge the pairs of a file by one model, a jury, or a jury that debates.

Every opinion is a row on disk as soon as it is given, so a kill costs one batch of questions; what
is asked otherwise, of whom or how, is asked anew. The file that comes out has chosen and rejected
as the jury sees them; ties and unreadable pairs are left out and counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from trillium.errors import ConfigError
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
from trillium.strategies.turning import is_one_sided, turn


@dataclass(frozen=True)
class Judged:
    """Hold the pairs as judged and how the judges agreed.

    `n_lost` of the turned pairs lost a field of one side (see `turning`). `kappa` is Cohen's, of
    every two judges; `consistent` is each judge's share of pairs on which both orders agree.
    """

    rows: list[PairRow]
    n_same: int
    n_turned: int
    n_lost: int
    n_ties: int
    n_unreadable: int
    kappa: Mapping[str, float]
    consistent: Mapping[str, float]


@dataclass(frozen=True)
class _Jury:
    judges: Mapping[str, Asker]
    sampling: SamplingConfig
    answers: Answers


_Round = dict[str, list[Opinion]]
"""What each judge said of each pair: with chosen first, then with rejected first."""


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
        heard: _Round = {}
        for number in range(n_rounds):
            heard = _hold_round(jury, rows, number, heard)
    return _conclude(rows, heard)


def _hold_round(jury: _Jury, rows: Sequence[PairRow], number: int, before: _Round) -> _Round:
    """Return what each judge says now that it knows what the others said `before`."""
    heard: _Round = {}
    for name, judge in jury.judges.items():
        others = [before[other] for other in before if other != name]
        keys: list[str] = []
        questions: list[str] = []
        for row in rows:
            sides = (as_text(row.chosen), as_text(row.rejected))
            for order, (first, second) in enumerate((sides, sides[::-1])):
                said = [opinions[len(questions)].text for opinions in others]
                question = ask_for_scores(as_text(row.prompt), first, second, said)
                questions.append(question)
                place = [row.id, number, order]
                keys.append(jury.answers.key(name, question, place, jury.sampling))
        answers = jury.answers.ask(judge, keys, questions, jury.sampling)
        heard[name] = [read_opinion(answer) for answer in answers]
    return heard


def _conclude(rows: Sequence[PairRow], heard: _Round) -> Judged:
    votes = {
        name: [combine_orders(*both) for both in zip(said[::2], said[1::2], strict=True)]
        for name, said in heard.items()
    }
    sides: list[int] = []
    kept, n_unreadable, n_lost = [], 0, 0
    for index, row in enumerate(rows):
        cast = [each[index] for each in votes.values()]
        if all(vote.preference is None for vote in cast):
            n_unreadable += 1
            sides.append(0)
            continue
        side = count_votes(cast)
        sides.append(side)
        if side:
            kept.append(row if side > 0 else turn(row))
            n_lost += side < 0 and is_one_sided(row)
    return Judged(
        rows=kept,
        n_same=sides.count(1),
        n_turned=sides.count(-1),
        n_lost=n_lost,
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
