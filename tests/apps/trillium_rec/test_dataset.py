import numpy as np
import pytest
from trillium.errors import DataError
from trillium_rec.dataset import Catalogue, RawLog, build_dataset, keep_events


def log(rows, **columns):
    """A log of (user, item, time) rows; lines count from 1."""
    users, items, times = zip(*rows, strict=True)
    return RawLog("log.csv", users, items, range(1, len(rows) + 1), times, **columns)


def test_events_are_put_in_time_order_and_the_users_concerned_are_counted():
    dataset = build_dataset(log([("a", "x", 5), ("b", "x", 1), ("a", "y", 2), ("b", "y", 2)]))
    names = [dataset.catalogue.ids[item] for item in dataset.events.item]
    assert names == ["y", "x", "x", "y"]
    assert dataset.counts["users_put_in_time_order"] == 1


def test_equal_times_keep_the_order_of_the_file():
    dataset = build_dataset(log([("a", "z", 1), ("a", "y", 1), ("a", "x", 1)]))
    assert [dataset.catalogue.ids[item] for item in dataset.events.item] == ["z", "y", "x"]


def test_duplicates_and_users_with_one_event_are_left_out_and_counted():
    rows = [("a", "x", 1), ("a", "x", 1), ("a", "y", 2), ("b", "x", 3)]
    dataset = build_dataset(log(rows))
    assert dataset.users == ("a",)
    assert dataset.events.n_events == 2
    assert dataset.counts["duplicate_events"] == 1
    assert dataset.counts["users_with_one_event"] == 1


def test_an_item_seen_again_later_is_no_duplicate():
    assert build_dataset(log([("a", "x", 1), ("a", "x", 2)])).events.n_events == 2


def test_without_times_an_immediate_repeat_is_a_duplicate():
    raw = RawLog("s.txt", ["a"] * 4, ["x", "x", "y", "x"], [1] * 4)
    dataset = build_dataset(raw)
    assert dataset.events.item.tolist() == [0, 1, 0]
    assert dataset.counts["duplicate_events"] == 1


def test_items_never_seen_stay_in_the_catalogue_and_are_counted():
    catalogue = Catalogue(("n", "x"), ("New", "X"), ("New thing", "X thing"))
    dataset = build_dataset(log([("a", "x", 1), ("a", "w", 2)]), catalogue)
    assert dataset.catalogue.ids == ("n", "x", "w")
    assert dataset.events.item.tolist() == [1, 2]
    assert dataset.counts["items_without_events"] == 1
    assert dataset.counts["items_without_text"] == 1


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (RawLog("f", [], [], []), "f: holds no event"),
        (RawLog("f", ["a", "b"], ["x", "x"], [1, 2]), "every user has one event only"),
        (
            RawLog("f", ["a", "a "], ["x", "y"], [3, 9]),
            "f:9: user 'a ' and user 'a' (line 3) differ in white space only",
        ),
        (RawLog("f", ["a", "a"], ["x", " "], [1, 2]), "f:2: names no item"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused_in_one_sentence(raw, sentence):
    with pytest.raises(DataError) as error:
        build_dataset(raw)
    assert sentence in str(error.value)


def test_a_constant_reward_column_is_refused_when_it_is_asked_for():
    rows = [("a", "x", 1), ("a", "y", 2)]
    dataset = build_dataset(log(rows, feedback={"like": [0, 0], "view": [0, 1]}))
    assert dataset.events.feedback_column("view").tolist() == [0, 1]
    sentence = r"feedback like: is 0 in all 2 events .* leave it out of data\.positive, sessions\."
    with pytest.raises(DataError, match=sentence):
        dataset.events.feedback_column("like")
    with pytest.raises(DataError, match=r"feedback swt: is no column .*like, view"):
        dataset.events.feedback_column("swt")


def test_users_left_with_one_positive_event_go_and_the_others_keep_their_names():
    rows = [("a", "x", 1), ("a", "y", 2), ("b", "x", 1), ("b", "y", 2), ("b", "z", 3)]
    dataset = build_dataset(log(rows))
    kept = keep_events(dataset, np.array([True, False, True, False, True]), name="view")
    assert kept.users == ("b",)
    assert kept.events.user.tolist() == [0, 0]
    assert kept.counts["users_without_view"] == 1
    assert kept.counts["events_without_view"] == 2
    with pytest.raises(DataError, match="no user has two events"):
        keep_events(dataset, np.zeros(5, bool), name="view")
