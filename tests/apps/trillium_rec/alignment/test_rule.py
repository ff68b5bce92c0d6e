from dataclasses import replace

import numpy as np
import pytest
from trillium_rec.alignment.measures import Measured
from trillium_rec.alignment.report import alignment_section
from trillium_rec.alignment.rule import TERMS, judge_arm, relative_change
from trillium_rec.alignment.run_alignment import RunAlignment
from trillium_rec.reward.quality import RewardQuality
from trillium_rec.splits import pack
from trillium_rec.summary import describe_alignment

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


def named(arms, prefix):
    """The same measures of users of other names."""
    users = tuple(f"{prefix}/{user}" for user in USERS)
    return {name: replace(measured, users=users) for name, measured in arms.items()}


def test_users_of_other_names_are_other_users():
    arms = {"seed": make_measured(seed=1), "arm": make_measured(oracle=0.1, seed=2)}
    one = judge_arm({0: arms}, "arm")
    two = judge_arm({0: named(arms, 0), 1: named(arms, 1)}, "arm")
    assert two.gains["oracle"].n_tasks == 2 * one.gains["oracle"].n_tasks


def test_a_user_of_several_seeds_counts_once_with_the_mean_over_them():
    first = {"seed": make_measured(seed=1), "arm": make_measured(oracle=0.1, recall=-0.1, seed=2)}
    second = {"seed": make_measured(seed=1), "arm": make_measured(oracle=0.3, recall=-0.3, seed=2)}
    one, again, both = (
        judge_arm(seeds, "arm")
        for seeds in ({0: first}, {0: first, 1: first}, {0: first, 1: second})
    )
    # The same users measured again teach nothing new: no interval gets narrower.
    assert again == one
    assert both.gains["oracle"].n_tasks == len(USERS)
    assert both.gains["oracle"].gain.mean == pytest.approx(one.gains["oracle"].gain.mean + 0.1)
    assert relative_change({0: first, 1: second}, "seed", "arm", "recall@10").mean == pytest.approx(
        60 / 100 - 1
    )


def test_a_recall_whose_interval_is_wide_holds_by_its_mean_and_no_more_is_claimed():
    """As many users lose their hit as win one: the mean stands, the interval reaches -20 %."""
    before, after = make_measured(seed=1), make_measured(oracle=0.1, judge=0.1, seed=2)
    hits = np.zeros(len(USERS))
    hits[30:130] = 1
    after = replace(after, values={**after.values, "recall@10": tuple(hits.tolist())})
    verdict = judge_arm({0: {"seed": before, "arm": after}}, "arm")
    assert verdict.passes
    assert (
        relative_change({0: {"seed": before, "arm": after}}, "seed", "arm", "recall@10").low < -0.05
    )
    quality = RewardQuality((), 0, 0)
    found = RunAlignment(
        quality,
        quality,
        before=before,
        after=after,
        verdict=verdict,
        panel_histories=pack([]),
        sessions=(np.zeros((0, 5), np.int64), np.zeros((0, 5), np.int64)),
    )
    section = alignment_section(found, (), 0)
    assert section.intro == (
        "On 200 users the rule holds: better sessions, and the means of recall and coverage within "
        "their limits."
    )
    fewer = alignment_section(replace(found, n_left_out=3), (), 0)
    assert fewer.intro.startswith("On 200 users (3 more have taken every item and are left out) th")
    assert "left out, having taken every item: 3 users" in describe_alignment(
        replace(found, n_left_out=3)
    )
    assert "its interval is shown and no condition" in TERMS
    assert TERMS in [getattr(block, "note", "") for block in section.blocks]


def test_relative_changes_are_of_means():
    arms = {"seed": make_measured(), "arm": make_measured(recall=-0.02)}
    change = relative_change({0: arms}, "seed", "arm", "recall@10")
    assert change.mean == pytest.approx(96 / 100 - 1)
    assert change.low < change.mean < change.high <= 0
