import numpy as np
import pytest
from trillium.errors import DataError
from trillium_rec.alignment.trial import make_trial, oracle_of
from trillium_rec.dataset import RawLog, build_dataset, keep_events
from trillium_rec.sessions import SessionConfig
from trillium_rec.simulator import preset_config, simulate

BY_REQUEST = SessionConfig(by="request")


@pytest.fixture(scope="module")
def simulation():
    return simulate(preset_config("tiny", seed=5))


@pytest.fixture(scope="module")
def trial(simulation):
    log = simulation.dataset
    positive = keep_events(log, log.events.feedback["view"] >= 1, name="view")
    return make_trial(log, positive, BY_REQUEST, seed=0)


def test_no_user_is_on_two_sides(trial):
    policy = set(trial.found.positive.users)
    sides = [policy, set(trial.of_reward), set(trial.of_judge)]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert set(trial.users) <= policy
    assert [len(side) for side in sides[1:]] == [40, 40]


def test_nothing_of_the_last_session_is_learned_from(trial, simulation):
    events = simulation.dataset.events
    row = trial.users.index(trial.found.positive.users[3])
    own = (events.user == int(trial.users[row])) & (events.feedback["view"] >= 1)
    last = events.request[own].max()
    expected = list(dict.fromkeys(events.item[own & (events.request == last)].tolist()))
    assert trial.targets.of(row).tolist() == expected
    before = events.item[own & (events.request < last)]
    assert sorted(trial.histories.of(row).tolist()) == sorted(before.tolist())
    # Training stops two events earlier still: those are validation and test of the seed model.
    trained = trial.found.split.train.of(3)
    assert trained.tolist() == trial.histories.of(row)[:-2].tolist()


def test_what_is_predicted_stands_in_the_order_of_time_and_once():
    # All were met before in another order, which is the order of their numbers.
    items, times = list("fghijjhjigf"), [*range(5), *range(9000, 9006)]
    users = [user for user in "uvwxy" for _ in items]
    log = build_dataset(RawLog("log", users, items * 5, range(55), times * 5))
    trial = make_trial(log, log, SessionConfig(by="gap"), seed=0)
    assert [log.catalogue.ids[item] for item in trial.targets.of(0)] == list("jhigf")


def test_the_seed_deals_the_users(simulation, trial):
    log = simulation.dataset
    positive = keep_events(log, log.events.feedback["view"] >= 1, name="view")
    assert make_trial(log, positive, BY_REQUEST, seed=0).of_judge == trial.of_judge
    assert make_trial(log, positive, BY_REQUEST, seed=1).of_judge != trial.of_judge


def test_a_log_in_which_nobody_comes_back_often_enough_is_refused():
    log = build_dataset(
        RawLog("log", list("aabbccdd"), list("wxwxwxwx"), range(8), [0, 9] * 4, ["1", "2"] * 4)
    )
    with pytest.raises(DataError, match="align: none of 2 users has 3 positive events before"):
        make_trial(log, log, BY_REQUEST, seed=0)


def test_the_oracle_is_asked_about_the_right_users_and_short_lists(simulation):
    users = ("7", "3", "11")
    ask = oracle_of(simulation, users)
    found = ask(np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1]]))
    oracle = simulation.oracle
    assert found[0] == oracle.reward(np.array([7]), np.array([[1, 2, 3]]))[0]
    assert found[1] == oracle.reward(np.array([3]), np.array([[4, 5]]))[0]
    assert found[2] == 0.0
