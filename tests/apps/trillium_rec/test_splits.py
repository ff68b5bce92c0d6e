import numpy as np
import pytest
from trillium.errors import DataError
from trillium_rec.dataset import RawLog, build_dataset
from trillium_rec.splits import leave_one_out, pack


def dataset(sequences):
    users = [user for user, items in sequences.items() for _ in items]
    items = [item for items in sequences.values() for item in items]
    return build_dataset(RawLog("log", users, items, range(len(items))))


def test_the_last_event_is_the_test_and_the_one_before_it_the_validation():
    split = leave_one_out(dataset({"a": "xyzw", "b": "yz", "c": "zxy"}))
    assert [split.train.of(row).tolist() for row in range(3)] == [[0, 1], [1, 2], [2]]
    assert split.test.user.tolist() == [0, 2]
    assert split.test.target.tolist() == [3, 1]
    assert split.test.histories.of(0).tolist() == [0, 1, 2]
    assert split.valid.target.tolist() == [2, 0]
    assert split.valid.histories.of(0).tolist() == [0, 1]
    assert split.n_users_not_judged == 1


def test_targets_that_their_user_took_before_are_counted_in_both_parts():
    split = leave_one_out(dataset({"a": "xyxyx", "b": "xyzx", "c": "yzxw", "d": "yz"}))
    assert split.test.n_repeats == 2  # of a and b
    assert split.valid.n_repeats == 1  # of a


def test_popularity_counts_training_events_only():
    split = leave_one_out(dataset({"a": "xyzw", "b": "yz"}))
    assert split.popularity().tolist() == [1, 2, 1, 0]


def test_nobody_with_three_events_is_one_sentence():
    with pytest.raises(DataError, match="none of 2 users has three events"):
        leave_one_out(dataset({"a": "xy", "b": "yz"}))


def test_the_last_items_are_padded_at_the_old_end():
    sequences = pack([np.array([4, 5, 6]), np.array([7])])
    assert sequences.last(2).tolist() == [[5, 6], [-1, 7]]
    assert sequences.take(np.array([1])).items.tolist() == [7]
