import dataclasses

import pytest
from trillium.errors import ConfigError, DataError
from trillium_rec.dataset import RawLog, build_dataset, keep_events
from trillium_rec.session_examples import session_examples
from trillium_rec.sessions import QualityRule, SessionConfig

# A user with four requests of two items; likes in three of them.
ITEMS = ["a", "b", "c", "d", "e", "f", "g", "h"]
LIKES = [1, 0, 1, 1, 0, 0, 1, 1]


@pytest.fixture
def log():
    return build_dataset(
        RawLog(
            "log",
            ["u"] * 8,
            ITEMS,
            range(8),
            [0, 1, 10, 11, 20, 21, 30, 31],
            ["1", "1", "2", "2", "3", "3", "4", "4"],
            {"like": LIKES},
        )
    )


@pytest.fixture
def positive(log):
    return keep_events(log, log.events.feedback["like"] > 0, name="like")


def named(log, sequences):
    return [
        [log.catalogue.ids[item] for item in sequences.of(row)]
        for row in range(sequences.n_sequences)
    ]


def test_histories_are_what_was_liked_before_and_sessions_are_whole(log, positive):
    """Likes are a c d g h: g is the validation item, so the last request is not learned from.

    The first request has nothing before it.
    """
    examples = session_examples(log, positive, SessionConfig(by="request"), n_session=5)
    assert named(log, examples.histories) == [["a"], ["a", "c", "d"]]
    assert named(log, examples.sessions) == [["c", "d"], ["e", "f"]]


def test_only_good_sessions_are_learned_from_and_long_ones_are_cut(log, positive):
    rules = (QualityRule(column="like", event_at_least=1, at_least=2),)
    config = SessionConfig(by="request", rules=rules)
    examples = session_examples(log, positive, config, n_session=1)
    assert named(log, examples.sessions) == [["c"]]


def test_no_session_left_and_no_times_are_one_sentence_each(log, positive):
    rules = (QualityRule(column="like", statistic="mean", at_least=0.4),)
    late = dataclasses.replace(
        positive,
        events=dataclasses.replace(positive.events, timestamp=positive.events.timestamp + 100),
    )
    with pytest.raises(DataError, match="no good session has a positive event before it"):
        session_examples(log, late, SessionConfig(by="request", rules=rules), n_session=5)
    timeless = dataclasses.replace(log, events=dataclasses.replace(log.events, timestamp=None))
    with pytest.raises(ConfigError, match="the log has no timestamps"):
        session_examples(timeless, positive, SessionConfig(by="request"), n_session=5)
