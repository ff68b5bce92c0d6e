from dataclasses import replace

import numpy as np
import pytest
from trillium_rec.dataset import RawLog, build_dataset, keep_events
from trillium_rec.preparation import hash_data


def make_log(**changes):
    columns = {
        "timestamp": [0, 10, 20, 5000, 5010, 9000, 20000],
        "request": list("1122334"),
        "feedback": {"like": [1, 1, 1, 1, 1, 1, 0]},
    }
    return build_dataset(
        RawLog("log", ["u"] * 7, list("abcdefg"), range(7), **{**columns, **changes})
    )


def positive_of(log):
    return keep_events(log, log.events.feedback["like"] >= 1, name="like")


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": [0, 3000, 6000, 9000, 12000, 15000, 20000]},
        {"request": list("1112223")},
        {"feedback": {"like": [2, 1, 1, 1, 1, 1, 0]}},
        {"feedback": {"love": [1, 1, 1, 1, 1, 1, 0], "like": [1, 1, 1, 1, 1, 1, 0]}},
        {"timestamp": [0, 10, 20, 5000, 5010, 9000, 20001]},  # of an event that is not positive
    ],
)
def test_whatever_sessions_are_made_of_is_part_of_a_logs_name(changes):
    log, other = make_log(), make_log(**changes)
    assert hash_data(log, positive_of(log)) != hash_data(other, positive_of(other))


def test_the_name_follows_the_content_alone():
    log, again = make_log(), make_log()
    assert hash_data(log, positive_of(log)) == hash_data(again, positive_of(again))
    assert hash_data(log, positive_of(log)) != hash_data(log, log)
    vectors = np.ones((7, 2), np.float32)
    seen = [
        replace(log, catalogue=replace(log.catalogue, vectors=each))
        for each in (None, vectors, 2 * vectors)
    ]
    assert len({hash_data(each, each) for each in seen}) == 3
