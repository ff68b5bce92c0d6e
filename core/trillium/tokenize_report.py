"""What becomes of rows on their way to trees: a ledger while they are worked on, then a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trillium.errors import DataError
from trillium.problems import Problem, describe_problems
from trillium.records import Row
from trillium.trees import TokenTree

TOO_LONG = "too long"
_MAX_SHOWN = 20


@dataclass(frozen=True)
class TokenizeReport:
    """Count what became of the rows.

    `dropped` names the rows by reason, with file and line where they have them, else by id. A
    prefix violation is a row in which the text that a server would send for a turn, or the turn, is
    not a prefix of the whole conversation; a merged boundary is one where a token straddles the end
    of the prompt. `n_scored_tokens` sums over paths, `n_tokens` over trees, where shared prefixes
    count once.
    """

    n_rows: int
    n_kept: int
    n_truncated: int
    n_prefix_violations: int
    n_merged_boundaries: int
    n_scored_tokens: int
    n_tokens: int
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def n_dropped(self) -> dict[str, int]:
        """Count the dropped rows by reason."""
        return {reason: len(ids) for reason, ids in self.dropped.items()}

    def summary(self) -> str:
        """Say it all in one line."""
        dropped = _count_dropped(self.dropped)
        return (
            f"{self.n_kept:,} of {self.n_rows:,} rows kept"
            f"{f' (dropped: {dropped})' if dropped else ''}, {self.n_truncated:,} truncated, "
            f"{self.n_prefix_violations:,} with prefix violations, "
            f"{self.n_merged_boundaries:,} with merged boundaries; "
            f"{self.n_tokens:,} tokens, {self.n_scored_tokens:,} scored"
        )


class Ledger:
    """Collect what happens to rows until the report is written."""

    def __init__(self, n_rows: int) -> None:
        """Begin with nothing dropped, cut or wrong."""
        self.n_rows = n_rows
        self.n_truncated = 0
        self.n_merged = 0
        self.dropped: dict[str, list[str]] = {}
        self.violations: list[str] = []
        self.problems: list[Problem] = []

    def complain(self, row: Row, what: str) -> None:
        """Note a problem that makes the whole data set unusable."""
        self.problems.append(Problem(row.place, what))

    def drop(self, row: Row, reason: str) -> None:
        """Count a row that is left out."""
        name = str(row.where) if row.where else row.id
        self.dropped.setdefault(reason, []).append(name)

    def refuse_violations(self) -> None:
        """Make prefix violations a problem."""
        if self.violations:
            what = (
                f"chat template: in {len(self.violations)} of {self.n_rows} rows the text before a "
                "scored turn, or the turn itself, is rendered differently when the conversation "
                f"goes on (first: {self.violations[0]}); set on_prefix_violation=repair to "
                "score what the whole conversation shows, or use another template"
            )
            self.problems.append(Problem(None, what))

    def check_problems(self) -> None:
        """Raise DataError that tells all problems."""
        if self.problems:
            raise DataError(describe_problems(self.problems, max_shown=_MAX_SHOWN))

    def report(self, trees: Sequence[TokenTree]) -> TokenizeReport:
        """Close the ledger; raises DataError when no tree is left."""
        if not trees:
            remedy = "correct the rows"
            if TOO_LONG in self.dropped:
                remedy = "raise max_length, change truncation, or shorten the rows"
            raise DataError(
                f"tokenize: none of {self.n_rows} rows is left "
                f"({_count_dropped(self.dropped) or 'there were none'}); {remedy}"
            )
        paths = [tree.path(index) for tree in trees for index in range(tree.n_paths)]
        return TokenizeReport(
            n_rows=self.n_rows,
            n_kept=len(trees),
            n_truncated=self.n_truncated,
            n_prefix_violations=len(self.violations),
            n_merged_boundaries=self.n_merged,
            n_scored_tokens=sum(path.n_scored for path in paths),
            n_tokens=sum(tree.n_tokens for tree in trees),
            dropped={reason: tuple(ids) for reason, ids in self.dropped.items()},
        )


def _count_dropped(dropped: Mapping[str, Sequence[str]]) -> str:
    """Count the dropped rows by reason, with the first of each."""
    return "; ".join(
        f"{len(names)} {reason}, first {names[0]}" for reason, names in dropped.items()
    )
