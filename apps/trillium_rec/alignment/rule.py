"""The rule that was fixed before the experiment: what an aligned policy must show, and not lose.

    judge and oracle   reward of the shown sessions up, the 95 % interval above 0, paired by user
    recall             Recall@10 and @50 of the next session not more than 1 % down, by their means
    coverage           of the lists and of the sessions, not more than 5 % down
    beats              more oracle reward (where there is none, judge's) than the arms named

Recall departs from the plan, which tests for non-inferiority (interval above -1 %): at the spread
in tests/benchmarks/results/rec_alignment-*.json an aligned policy with Recall@10 unchanged would
need 39,000 to 300,000 users to pass. So a rule that holds does not show that no recall was lost.

A user of several seeds counts once, with the mean over them; worlds of their own name users apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from trillium.evaluation import Comparison, Interval, bootstrap_mean, compare

from trillium_rec.alignment.measures import Measured

RECALL_LOSS, COVERAGE_LOSS = 0.01, 0.05
MUST_BEAT = ("ntp", "best_of_n", "random_loser")
TERMS = (
    "Rewards up with the interval above 0; recall at most 1 % down and coverage 5 %, by their "
    "means. Recall is not tested for non-inferiority: its interval is shown and no condition."
)
_N_RESAMPLES = 2000
# So that a loss of exactly the limit is within it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Check:
    """Hold one condition: whether it holds, and the figure it was read from."""

    name: str
    holds: bool
    figure: str


@dataclass(frozen=True)
class Verdict:
    """Hold all conditions of one arm against the seed model."""

    arm: str
    gains: Mapping[str, Comparison]
    checks: tuple[Check, ...]

    @property
    def passes(self) -> bool:
        """Say whether every condition holds."""
        return all(check.holds for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """Return the conditions that do not hold."""
        return tuple(check for check in self.checks if not check.holds)


Seeds = Mapping[int, Mapping[str, Measured]]
"""The measures by seed and arm."""


def judge_arm(seeds: Seeds, arm: str, *, before: str = "seed") -> Verdict:
    """Return what the rule says of one arm; arms it must beat count where they were run."""
    first = next(iter(seeds.values()))
    rewards = [name for name in ("oracle", "judge") if name in first[arm].values]
    names = [*rewards, "reward", "recall@10", "recall@50", "logged_logp"]
    gains = {name: compare_arms(seeds, before, arm, name) for name in names}
    checks = [_rises(name, gains[name].gain) for name in rewards]
    checks += [_keeps_recall(seeds, before, arm, k) for k in (10, 50)]
    checks += [
        _keeps_coverage(seeds, before, arm, name) for name in ("coverage", "session_coverage")
    ]
    for other in MUST_BEAT:
        if other in first and other != arm:
            gain = compare_arms(seeds, other, arm, rewards[0]).gain
            checks.append(Check(f"beats {other}", gain.mean > 0, _interval(gain)))
    return Verdict(arm, gains, tuple(checks))


def compare_arms(seeds: Seeds, before: str, after: str, name: str) -> Comparison:
    """Compare two arms in one measure, user by user."""
    return compare(
        pool_users(seeds, before, name), pool_users(seeds, after, name), n_resamples=_N_RESAMPLES
    )


def pool_users(seeds: Seeds, arm: str, name: str) -> dict[str, float]:
    """Return one measure by user, a mean over the seeds in which the user was judged."""
    found: dict[str, list[float]] = {}
    for arms in seeds.values():
        for user, value in arms[arm].by_user(name).items():
            found.setdefault(user, []).append(value)
    return {user: float(np.mean(values)) for user, values in found.items()}


def relative_change(seeds: Seeds, before: str, after: str, name: str) -> Interval:
    """Return (after - before) / before of the means, with a paired bootstrap over users."""
    old, new = (pool_users(seeds, arm, name) for arm in (before, after))
    users = sorted(old)
    pairs = np.array([[old[user], new[user]] for user in users])
    random = np.random.default_rng(0)
    draws = [
        pairs[random.integers(0, len(pairs), len(pairs))].mean(axis=0) for _ in range(_N_RESAMPLES)
    ]
    changes = np.array([_ratio(after_mean, before_mean) for before_mean, after_mean in draws])
    mean = _ratio(*pairs.mean(axis=0)[::-1].tolist())
    low, high = np.quantile(changes, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def coverage_change(seeds: Seeds, before: str, after: str, name: str) -> float:
    """Return the relative change of a figure of whole panels, a mean over seeds."""
    changes = [_ratio(a[after].totals[name], a[before].totals[name]) for a in seeds.values()]
    return float(np.mean(changes))


def seed_gains(seeds: Seeds, arm: str, name: str) -> Sequence[float]:
    """Return the gain over the seed model in each seed."""
    return [arms[arm].mean(name) - arms["seed"].mean(name) for arms in seeds.values()]


def mean_over_users(seeds: Seeds, arm: str, name: str) -> Interval:
    """Return a measure with its interval over the users of all seeds."""
    values = list(pool_users(seeds, arm, name).values())
    return bootstrap_mean(values, n_resamples=_N_RESAMPLES)


def _rises(name: str, gain: Interval) -> Check:
    return Check(f"{name} reward up", gain.low > 0, _interval(gain))


def _keeps_recall(seeds: Seeds, before: str, arm: str, k: int) -> Check:
    change = relative_change(seeds, before, arm, f"recall@{k}")
    return Check(
        f"recall@{k} kept",
        change.mean >= -RECALL_LOSS - _ROUNDING,
        f"{change.mean:+.1%} [{change.low:+.1%}, {change.high:+.1%}]",
    )


def _keeps_coverage(seeds: Seeds, before: str, arm: str, name: str) -> Check:
    change = coverage_change(seeds, before, arm, name)
    return Check(
        f"{name.replace('_', ' ')} kept", change >= -COVERAGE_LOSS - _ROUNDING, f"{change:+.1%}"
    )


def _ratio(after: float, before: float) -> float:
    """Return the relative change; where there was nothing there is nothing to lose."""
    return after / before - 1 if before > 0 else 0.0


def _interval(gain: Interval) -> str:
    return f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
