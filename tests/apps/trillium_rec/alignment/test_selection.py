import pytest
import torch
from trillium_rec.alignment.config import SelectionConfig
from trillium_rec.alignment.pool import Pool
from trillium_rec.alignment.selection import repeats_a_set, select

NOTHING = -torch.inf


def make_pool(rewards, sessions=None):
    values = torch.tensor(rewards)
    n_prompts, n_beams = values.shape
    if sessions is None:
        sessions = torch.arange(n_beams * 2).view(n_beams, 2).expand(n_prompts, -1, -1)
    return Pool(sessions, torch.zeros(n_prompts, n_beams), values)


def choose(pool, **changes):
    return select(pool, SelectionConfig(**changes), torch.Generator().manual_seed(0))


def test_algorithm_2_takes_the_best_and_the_worst():
    found = choose(make_pool([[0.1, 0.7, -0.3, 0.2], [3.0, 1.0, 2.0, 0.0]]))
    assert found.winner.tolist() == [1, 0]
    assert found.losers.tolist() == [[2], [3]]
    assert found.is_kept.tolist() == [True, True]


def test_missing_sessions_neither_win_nor_lose():
    found = choose(make_pool([[0.1, 0.7, NOTHING, NOTHING], [0.5, NOTHING, NOTHING, NOTHING]]))
    assert found.winner.tolist()[0] == 1
    assert found.losers.tolist()[0] == [0]
    assert found.is_kept.tolist() == [True, False]


def test_equal_rewards_and_gaps_below_the_margin_are_no_preference():
    pool = make_pool([[0.5, 0.5, 0.5], [0.5, 0.4, 0.45], [0.5, 0.2, 0.3]])
    assert choose(pool).is_kept.tolist() == [False, True, True]
    assert choose(pool, margin=0.2).is_kept.tolist() == [False, False, True]


def test_quantiles_leave_the_extremes_out():
    pool = make_pool([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 99.0, -99.0]])
    found = choose(pool, winner=0.9, loser=0.1)
    assert pool.rewards[0, found.winner[0]] == 8.0
    assert pool.rewards[0, found.losers[0, 0]] == 0.0


def test_several_losers_are_the_worst_ones_and_different():
    found = choose(make_pool([[0.1, 0.7, -0.3, 0.2, 0.0]]), n_losers=3)
    assert found.losers.tolist() == [[2, 4, 0]]
    few = choose(make_pool([[0.1, 0.7, -0.3, NOTHING, NOTHING]]), n_losers=3)
    assert few.is_kept.tolist() == [False]


@pytest.mark.parametrize(
    ("quantiles", "n_losers", "losers"),
    [
        ({"loser": 0.9}, 3, [3, 2, 1]),
        ({"loser": 0.5}, 10, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ({"winner": 0.5, "loser": 0.25}, 6, [14, 13, 12, 11, 10, 9]),
        ({"winner": 0.5, "loser": 0.25}, 3, [11, 10, 9]),
    ],
)
def test_losers_near_the_winner_are_different_beams_all_below_it(quantiles, n_losers, losers):
    # Beams stand in the order of their rewards, so that a beam's number is its place.
    found = choose(
        make_pool([[-float(place) for place in range(16)]]), n_losers=n_losers, **quantiles
    )
    assert found.losers.tolist() == [losers]
    assert found.is_kept.tolist() == [True]


def test_a_random_loser_is_any_below_the_winner_and_the_seed_decides():
    pool = make_pool([[0.1, 0.7, -0.3, 0.2, NOTHING]] * 200)
    found = choose(pool, loser="random")
    assert set(found.losers.flatten().tolist()) == {0, 2, 3}
    assert torch.equal(choose(pool, loser="random").losers, found.losers)


def test_permutations_of_a_set_count_once_with_the_likeliest_kept():
    sessions = torch.tensor([[[1, 2], [3, 4], [2, 1], [4, 3]]])
    assert repeats_a_set(sessions).tolist() == [[False, False, True, True]]
    pool = make_pool([[0.1, 0.2, 0.9, -0.9]], sessions)
    found = choose(pool, distinct_sets=True)
    assert found.winner.tolist() == [1]
    assert found.losers.tolist() == [[0]]
