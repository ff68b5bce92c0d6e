import dataclasses

import numpy as np
import pytest
from trillium.errors import ConfigError, DataError
from trillium_rec.dataset import RawLog, build_dataset, keep_events
from trillium_rec.reward.config import HeadConfig
from trillium_rec.reward.examples import reward_examples
from trillium_rec.sessions import SessionConfig

BY_REQUEST = SessionConfig(by="request")
LIKE, WATCH = HeadConfig(column="like", at_least=1), HeadConfig(column="watch")


def make_log(*, likes=(1, 0, 1, 1, 0, 0), users="uuuuuu", watch=(5, 1, 9, 2, 7, 3)):
    return build_dataset(
        RawLog(
            "log",
            list(users),
            list("abcdef"),
            range(6),
            [0, 1, 10, 11, 20, 21],
            ["1", "1", "2", "2", "3", "3"],
            {"like": list(likes), "watch": list(watch)},
        )
    )


def examples_of(log, heads=(LIKE,), *, deadline=np.inf, sessions=BY_REQUEST, n_places=2):
    positive = keep_events(log, log.events.feedback["like"] > 0, name="like")
    return reward_examples(
        log, positive, sessions, heads, n_places=n_places, deadlines={"u": deadline}
    )


def test_a_list_comes_with_what_was_liked_before_it_and_what_happened_in_it():
    found = examples_of(make_log(), (LIKE, WATCH))
    # Nothing was liked before the first list: it is left out and counted.
    assert found.n_without_history == 1
    assert found.lists.tolist() == [[2, 3], [4, 5]]
    assert [found.histories.of(row).tolist() for row in range(2)] == [[0], [0, 2, 3]]
    # Likes by their threshold, watch time against its median, 4 of (5, 1, 9, 2, 7, 3).
    assert found.labels.tolist() == [[[1, 1], [1, 0]], [[0, 1], [0, 0]]]


def test_lists_that_end_at_the_deadline_or_later_and_users_without_one_teach_nothing():
    assert examples_of(make_log(), deadline=21).lists.tolist() == [[2, 3]]
    with pytest.raises(DataError, match="none of 3 lists has a positive event before it"):
        examples_of(make_log(), deadline=11)


def test_a_longer_list_is_cut_and_a_shorter_one_padded():
    assert examples_of(make_log(), n_places=1).lists.tolist() == [[2], [4]]
    padded = examples_of(make_log(), n_places=3)
    assert padded.lists.tolist() == [[2, 3, -1], [4, 5, -1]]
    assert padded.labels[:, 2].sum() == 0


def test_rules_of_good_sessions_do_not_choose_what_teaches():
    rules = [{"column": "like", "event_at_least": 1, "at_least": 2}]
    config = SessionConfig.model_validate({"by": "request", "rules": rules})
    assert examples_of(make_log(), sessions=config).n_examples == 2


def test_a_constant_reward_column_is_refused_in_one_sentence():
    log = make_log(watch=(4, 4, 4, 4, 4, 4))
    with pytest.raises(DataError, match=r"feedback watch: is 4 in all 6 events \(nothing is"):
        examples_of(log, (WATCH,))


def test_a_threshold_that_nothing_or_everything_passes_is_refused():
    with pytest.raises(DataError, match="watch is at least 99 in none of 6 events"):
        examples_of(make_log(), (HeadConfig(column="watch", at_least=99),))
    with pytest.raises(DataError, match="watch is at least 0 in all of 6 events"):
        examples_of(make_log(), (HeadConfig(column="watch", at_least=0),))


def test_a_column_that_is_mostly_its_smallest_value_counts_what_is_above_it():
    log = make_log(watch=(0, 0, 0, 0, 3, 8))
    assert examples_of(log, (WATCH,)).labels.tolist() == [[[0], [0]], [[1], [1]]]


def test_a_log_without_times_is_refused():
    log = make_log()
    events = dataclasses.replace(log.events, timestamp=None)
    with pytest.raises(ConfigError, match="reward: the log has no timestamps"):
        examples_of(dataclasses.replace(log, events=events))
