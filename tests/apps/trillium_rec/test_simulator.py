import dataclasses

import numpy as np
import pytest
from trillium_rec.simulated_world import BASE_RATES, affinity_of
from trillium_rec.simulator import preset_config, simulate


@pytest.fixture(scope="module")
def small():
    return simulate(preset_config("small"))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first, again, other = (simulate(preset_config("tiny", seed=s)) for s in (3, 3, 4))
    assert first.dataset.events.item.tobytes() == again.dataset.events.item.tobytes()
    watch = [s.dataset.events.feedback["watch_s"].tobytes() for s in (first, again)]
    assert watch[0] == watch[1]
    assert first.dataset.events.item.tobytes() != other.dataset.events.item.tobytes()


def test_no_user_is_shown_an_item_twice_and_none_before_its_birth(small):
    events = small.dataset.events
    pairs = events.user * small.dataset.catalogue.n_items + events.item
    assert len(np.unique(pairs)) == len(pairs)
    assert (events.request >= small.oracle.world.birth_day[events.item]).all()


def test_lists_hold_five_to_ten_items_in_time_order(small):
    events = small.dataset.events
    sizes = np.unique(events.user * 100 + events.request, return_counts=True)[1]
    assert (sizes.min(), sizes.max()) == (5, 10)
    same_user = np.diff(events.user) == 0
    assert (np.diff(events.timestamp)[same_user] >= 0).all()


def test_the_first_day_has_the_base_rates(small):
    events = small.dataset.events
    first = events.request == 0
    for head, rate in BASE_RATES.items():
        mean = events.feedback[head][first].mean()
        # Four standard errors of a Bernoulli mean over the events of the day.
        assert abs(mean - rate) < 4 * np.sqrt(rate * (1 - rate) / first.sum())


def test_propensities_are_those_of_the_draws(small):
    # The mean of 1/(n p) over all draws of a policy with support everywhere is 1: here per event,
    # over the items that the user had not seen, so their number stands for n.
    events = small.dataset.events
    first = events.request == 0
    position = np.arange(events.n_events) - np.searchsorted(
        events.user * 100 + events.request, events.user * 100 + events.request
    )
    opening = first & (position == 0)
    n_born = (small.oracle.world.birth_day == 0).sum()
    weights = 1 / (n_born * events.feedback["propensity"][opening].astype(float))
    error = weights.std() / np.sqrt(opening.sum())
    assert abs(weights.mean() - 1) < 4 * error


def test_the_oracle_prefers_what_fits_the_user_and_values_the_log_at_about_one(small):
    oracle, users = small.oracle, np.arange(300)
    n_items = small.dataset.catalogue.n_items
    everything = np.tile(np.arange(n_items), (300, 1))
    taste = dataclasses.replace(oracle.taste, novelty=np.zeros_like(oracle.taste.novelty))
    single = np.stack(
        [
            affinity_of(oracle.world, taste.take(users), everything[:, [i]])[:, 0]
            for i in range(n_items)
        ],
        axis=1,
    )
    best = oracle.reward(users, np.argsort(-single, axis=1)[:, :5]).mean()
    random = oracle.reward(users, np.random.default_rng(0).integers(0, n_items, (300, 5))).mean()
    assert best > 1.5 > 1.0 > random


def test_the_oracle_values_variety_within_a_list(small):
    oracle = small.oracle
    topic = oracle.world.topic
    same = np.flatnonzero(topic == np.bincount(topic).argmax())[:5]
    alone = [oracle.reward(np.array([0]), same[None, [i]])[0] for i in range(5)]
    assert oracle.reward(np.array([0]), same[None])[0] < np.mean(alone)
