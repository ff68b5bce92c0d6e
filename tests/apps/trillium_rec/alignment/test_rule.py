import numpy as np
import pytest
from trillium_rec.alignment.measures import Measured
from trillium_rec.alignment.rule import judge_arm, relative_change

USERS = tuple(f"u{number}" for number in range(200))


def make_measured(*, oracle=0.0, judge=0.0, recall=0.0, coverage=0.5, spread=0.01, seed=0):
    """Measures that differ from the seed model's by the amounts given, and a little noise."""
    random = np.random.default_rng(seed)
    own = np.random.default_rng(5).normal(size=200)

    def values(gain):
        return tuple((own + gain + spread * random.normal(size=200)).tolist())

    hits = np.zeros(200)
    hits[: 100 + round(200 * recall)] = 1
    return Measured(
        USERS,
        {
            "oracle": values(oracle),
            "judge": values(judge),
            "reward": values(1.0),
            "recall@10": tuple(hits.tolist()),
            "recall@50": tuple(hits.tolist()),
            "logged_logp": values(0.0),
        },
        {"coverage": coverage, "session_coverage": 0.3},
    )


def verdict_of(arm, others=None):
    return judge_arm({0: {"seed": make_measured(seed=1), "arm": arm, **(others or {})}}, "arm")


def test_an_arm_that_gains_and_loses_nothing_passes():
    verdict = verdict_of(make_measured(oracle=0.1, judge=0.1))
    assert verdict.passes
    assert verdict.gains["oracle"].gain.mean == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"oracle": 0.0, "judge": 0.1}, ["oracle reward up"]),
        ({"oracle": 0.1, "judge": -0.1}, ["judge reward up"]),
        ({"oracle": 0.1, "judge": 0.1, "recall": -0.02}, ["recall@10 kept", "recall@50 kept"]),
        ({"oracle": 0.1, "judge": 0.1, "coverage": 0.47}, ["coverage kept"]),
        # Up on average, and nobody can be sure: the interval holds 0.
        ({"oracle": 0.05, "judge": 0.1, "spread": 2.0}, ["oracle reward up", "judge reward up"]),
    ],
)
def test_each_condition_fails_alone(changes, failing):
    verdict = verdict_of(make_measured(**changes))
    assert [check.name for check in verdict.failures] == failing
    assert not verdict.passes


def test_losses_within_the_limits_are_accepted():
    assert verdict_of(make_measured(oracle=0.1, judge=0.1, recall=-0.005, coverage=0.48)).passes


def test_the_reward_that_was_optimised_is_no_evidence():
    assert not verdict_of(make_measured()).passes


def test_the_plain_alternatives_must_be_beaten():
    others = {"ntp": make_measured(oracle=0.2), "best_of_n": make_measured(oracle=0.05)}
    verdict = verdict_of(make_measured(oracle=0.1, judge=0.1), others)
    assert [check.name for check in verdict.failures] == ["beats ntp"]


def test_users_of_other_seeds_are_other_users():
    arms = {"seed": make_measured(seed=1), "arm": make_measured(oracle=0.1, seed=2)}
    one, two = judge_arm({0: arms}, "arm"), judge_arm({0: arms, 1: arms}, "arm")
    assert two.gains["oracle"].n_tasks == 2 * one.gains["oracle"].n_tasks


def test_relative_changes_are_of_means():
    arms = {"seed": make_measured(), "arm": make_measured(recall=-0.02)}
    change = relative_change({0: arms}, "seed", "arm", "recall@10")
    assert change.mean == pytest.approx(96 / 100 - 1)
    assert change.low < change.mean < change.high <= 0
