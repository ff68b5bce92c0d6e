import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium.errors import ShapeError
from trillium_rec.balance import auction, even_capacities, exact, greedy, propose


def total(costs, clusters):
    return costs[np.arange(len(costs)), clusters].sum()


@pytest.mark.property
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**20),
    n_points=st.integers(1, 60),
    n_clusters=st.integers(1, 9),
    is_rounded=st.booleans(),
)
def test_the_auction_is_within_n_epsilon_of_the_least_cost(seed, n_points, n_clusters, is_rounded):
    random = np.random.default_rng(seed)
    costs = random.random((n_points, n_clusters))
    costs = costs.round(1) if is_rounded else costs
    capacities = even_capacities(random.integers(0, 5, n_clusters), n_points)
    clusters = auction(costs, capacities, epsilon=1e-4)
    assert (np.bincount(clusters, minlength=n_clusters) == capacities).all()
    least = total(costs, exact(costs, capacities))
    assert least - 1e-9 <= total(costs, clusters) <= least + n_points * 1e-4 + 1e-9


def test_prices_of_an_earlier_auction_may_start_the_next():
    random = np.random.default_rng(1)
    capacities, prices = np.full(5, 8), np.zeros(5)
    for _ in range(3):
        costs = random.random((40, 5))
        clusters = auction(costs, capacities, epsilon=1e-5, prices=prices)
        assert total(costs, clusters) == pytest.approx(
            total(costs, exact(costs, capacities)), abs=40 * 1e-5
        )


def test_the_auction_does_not_depend_on_the_order_and_the_greedy_sweep_does():
    random = np.random.default_rng(0)
    costs, capacities = random.random((120, 6)), np.full(6, 20)
    order = np.array([5, 4, 3, 2, 1, 0])
    first = auction(costs, capacities, epsilon=1e-6)
    second = order[auction(costs[:, order], capacities, epsilon=1e-6)]
    assert (first == second).all()
    greedy_first, greedy_second = (
        greedy(costs, capacities),
        order[greedy(costs[:, order], capacities)],
    )
    assert (greedy_first != greedy_second).any()
    assert total(costs, first) < min(total(costs, greedy_first), total(costs, greedy_second))


def test_the_greedy_sweep_is_that_of_the_paper():
    # Cluster 0 takes the two nearest of four points on a line, cluster 1 the rest.
    points, centres = np.array([0.0, 1, 2, 9]), np.array([2.0, 0.0])
    costs = np.abs(points[:, None] - centres)
    assert greedy(costs, np.array([2, 2])).tolist() == [1, 0, 0, 1]


def test_proposals_end_stable():
    random = np.random.default_rng(2)
    costs = random.random((90, 12))
    capacities = np.full(12, 8)
    candidates = np.argsort(costs, axis=1)[:, :6]
    clusters = propose(candidates, np.take_along_axis(costs, candidates, 1), capacities)
    assert (np.bincount(clusters[clusters >= 0], minlength=12) <= capacities).all()
    for point in range(90):
        own = costs[point, clusters[point]] if clusters[point] >= 0 else np.inf
        for other in candidates[point]:
            if costs[point, other] < own:
                held = costs[clusters == other, other]
                assert len(held) == 8
                assert held.max() < costs[point, other]


def test_capacities_differ_by_one_and_follow_demand():
    assert even_capacities(np.array([0, 9, 5]), 8).tolist() == [2, 3, 3]


def test_capacities_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="4 points and 2 clusters with room for 3 in 2"):
        auction(np.zeros((4, 2)), np.array([1, 2]), epsilon=0.1)
