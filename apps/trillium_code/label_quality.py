"""How right the labels of a selector are, by hidden tests that no selector has seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from trillium_code.pairs import Ranking
from trillium_code.records import TaskResult


@dataclass(frozen=True)
class LabelQuality:
    """Count the pairs of a selector by what hidden tests say of the two programs.

    Right: the chosen passes and the rejected fails. Inverted: the other way round. `n_both_right`
    and `n_both_wrong` pairs teach nothing about correctness. `n_tasks` are those with hidden tests,
    `n_paired` of them gave a pair.
    """

    n_right: int
    n_inverted: int
    n_both_right: int
    n_both_wrong: int
    n_paired: int
    n_tasks: int

    @property
    def n_pairs(self) -> int:
        """Count the pairs that could be judged."""
        return self.n_right + self.n_inverted + self.n_both_right + self.n_both_wrong

    def share(self, count: int) -> float | None:
        """Return a count as a share of the judged pairs; None without any."""
        return count / self.n_pairs if self.n_pairs else None

    def __add__(self, other: "LabelQuality") -> "LabelQuality":
        """Return the counts of both together."""
        return LabelQuality(
            self.n_right + other.n_right,
            self.n_inverted + other.n_inverted,
            self.n_both_right + other.n_both_right,
            self.n_both_wrong + other.n_both_wrong,
            self.n_paired + other.n_paired,
            self.n_tasks + other.n_tasks,
        )


def judge_labels(rankings: Sequence[Ranking], truth: Sequence[TaskResult]) -> LabelQuality:
    """Count the correctness pairs of `rankings`; `truth` has a flag per program of each matrix.

    A pair with a program that the sandbox lost is not judged.
    """
    known = {result.task_id: result.passed for result in truth}
    judged = [ranking for ranking in rankings if ranking.task_id in known]
    verdicts = [
        (known[ranking.task_id][pair.chosen], known[ranking.task_id][pair.rejected])
        for ranking in judged
        for pair in ranking.pairs
    ]
    return LabelQuality(
        verdicts.count((True, False)),
        verdicts.count((False, True)),
        verdicts.count((True, True)),
        verdicts.count((False, False)),
        sum(bool(ranking.pairs) for ranking in judged),
        len(judged),
    )
