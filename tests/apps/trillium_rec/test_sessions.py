import numpy as np
import pytest
from trillium.errors import ConfigError, DataError
from trillium_rec.dataset import Events
from trillium_rec.sessions import QualityRule, SessionConfig, split_sessions


def events(**columns):
    user = np.array([0, 0, 0, 0, 1, 1])
    return Events(user, np.arange(6), **columns)


TIMES = np.array([0.0, 100, 5000, 5100, 5100, 5150])
WATCH = {"watch_s": np.array([9, 1, 20, 0, 3, 3], np.float32)}


def test_a_pause_and_another_user_end_a_session():
    sessions = split_sessions(events(timestamp=TIMES), SessionConfig(gap_s=1800))
    assert sessions.starts.tolist() == [0, 2, 4, 6]
    assert sessions.user.tolist() == [0, 0, 1]
    assert sessions.items(1).tolist() == [2, 3]
    assert sessions.is_good.all()


def test_requests_that_overlap_in_time_are_taken_apart():
    request = np.array([7, 8, 7, 8, 7, 7])
    sessions = split_sessions(events(request=request), SessionConfig(by="request"))
    assert [sessions.items(s).tolist() for s in range(sessions.n_sessions)] == [
        [0, 2],
        [1, 3],
        [4, 5],
    ]


@pytest.mark.parametrize(
    ("rules", "combine", "good"),
    [
        ([{"column": "watch_s", "event_at_least": 2, "at_least": 2}], "any", [0, 0, 1]),
        ([{"column": "watch_s", "statistic": "sum", "at_least": 10}], "any", [1, 1, 0]),
        ([{"column": "watch_s", "statistic": "mean", "at_least": 5}], "any", [1, 1, 0]),
        (
            [
                {"column": "watch_s", "statistic": "max", "at_least": 20},
                {"column": "watch_s", "event_at_least": 2, "at_least": 2},
            ],
            "any",
            [0, 1, 1],
        ),
        (
            [
                {"column": "watch_s", "statistic": "sum", "at_least": 10},
                {"column": "watch_s", "statistic": "max", "at_least": 20},
            ],
            "all",
            [0, 1, 0],
        ),
    ],
)
def test_rules_choose_the_good_sessions(rules, combine, good):
    config = SessionConfig(rules=[QualityRule(**rule) for rule in rules], combine=combine)
    sessions = split_sessions(events(timestamp=TIMES, feedback=WATCH), config)
    assert sessions.is_good.tolist() == [bool(value) for value in good]


@pytest.mark.parametrize("statistic", ["count", "max", "mean"])
def test_a_threshold_is_as_exact_as_the_column_it_is_compared_with(statistic):
    # 0.7 as float32 is less than 0.7 as float64.
    at_least = 1 if statistic == "count" else 0.7
    rule = QualityRule(column="watch_s", statistic=statistic, event_at_least=0.7, at_least=at_least)
    watch = {"watch_s": np.array([0.7, 0.7, 0.1, 0.1, 0.7, 0.7], np.float32)}
    config = SessionConfig(rules=[rule])
    sessions = split_sessions(events(timestamp=TIMES, feedback=watch), config)
    assert sessions.is_good.tolist() == [True, False, True]


def test_what_the_log_lacks_and_rules_that_pass_nothing_are_refused():
    with pytest.raises(ConfigError, match="the log has no timestamps"):
        split_sessions(events(), SessionConfig())
    with pytest.raises(ConfigError, match="the log has no request ids"):
        split_sessions(events(timestamp=TIMES), SessionConfig(by="request"))
    config = SessionConfig(rules=[QualityRule(at_least=9)])
    with pytest.raises(DataError, match="none of 3 sessions passes any of the 1 rules"):
        split_sessions(events(timestamp=TIMES), config)
