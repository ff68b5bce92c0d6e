"""What became of the tasks and tests that pairs were wanted from, in counts and in one sentence."""

from collections import Counter
from collections.abc import Sequence

from trillium.errors import DataError

from trillium_code.pairs import Ranking
from trillium_code.records import CodePair


def count_pairs(rankings: Sequence[Ranking], pairs: Sequence[CodePair]) -> dict[str, int]:
    """Count what became of tasks and tests."""
    reasons = Counter(ranking.reason for ranking in rankings)
    census = [ranking.census for ranking in rankings]
    return {
        "pairs": len(pairs),
        "paired_tasks": len({pair.task_id for pair in pairs}),
        "kept_tests": sum(len(one.kept) for one in census),
        "trivial_tests": sum(one.n_trivial for one in census),
        "impossible_tests": sum(one.n_impossible for one in census),
        "flaky_tests": sum(one.n_flaky for one in census),
        "uncalled_tests": sum(one.n_uncalled for one in census),
        **{f"tasks_{reason}": count for reason, count in sorted(reasons.items())},
    }


def require_pairs(rankings: Sequence[Ranking], pairs: Sequence[CodePair]) -> None:
    """Raise DataError when there is nothing to train on."""
    if pairs:
        return
    reasons = Counter(ranking.reason for ranking in rankings)
    found = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    raise DataError(
        f"pair: no pair from {len(rankings)} tasks ({found}); sample more with "
        "programs.n_samples and tests.n_samples, lower rank.min_chosen_pass_frac, or choose "
        "easier tasks or a stronger model"
    )
