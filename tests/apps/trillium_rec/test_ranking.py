import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium.errors import DataError
from trillium_rec.ranking import Request, ScoreRecommender, best_items
from trillium_rec.splits import pack


def request(histories, n_items, *, seed=0, eligible=None):
    is_eligible = torch.ones(n_items, dtype=torch.bool) if eligible is None else eligible
    return Request(pack([np.array(h, np.int64) for h in histories]), is_eligible, seed=seed)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=12))
def test_scores_of_any_size_and_sign_are_put_in_their_order(scores):
    lists = best_items(torch.tensor([scores]), request([[]], len(scores)), len(scores))
    assert lists.scores[0].tolist() == sorted(
        (torch.tensor(value).item() for value in scores), reverse=True
    )


def test_seen_and_ineligible_items_are_left_out_and_short_lists_end_in_minus_one():
    eligible = torch.tensor([True, True, False, True])
    scores = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1]])
    lists = best_items(scores, request([[0], [0, 1, 3]], 4, eligible=eligible), 3)
    assert lists.items.tolist() == [[1, 3, -1], [-1, -1, -1]]
    assert lists.scores[0].tolist() == [3, 1, float("-inf")]


def test_ties_are_broken_at_random_evenly_and_the_same_way_for_a_seed():
    scores = torch.zeros(3000, 3005)
    histories = [[5 + user] for user in range(3000)]
    five = torch.arange(3005) < 5
    lists = best_items(scores, request(histories, 3005, eligible=five), 1)
    counts = torch.bincount(lists.items[:, 0], minlength=5)
    # Four standard deviations of a binomial with n = 3000 and p = 1/5.
    assert (counts - 600).abs().max() < 4 * (3000 * 0.2 * 0.8) ** 0.5
    again = best_items(scores, request(histories, 3005, eligible=five), 1)
    other = best_items(scores, request(histories, 3005, eligible=five, seed=1), 1)
    assert torch.equal(lists.items, again.items)
    assert not torch.equal(lists.items, other.items)


class Zeros:
    def score_items(self, histories):
        return torch.zeros(histories.n_sequences, 7)


def test_the_size_of_a_batch_does_not_change_the_lists():
    asked = request([[0], [1], [2], [3], [4]], 7)
    one, two = (ScoreRecommender("z", Zeros(), batch_size=size) for size in (5, 2))
    assert torch.equal(one.recommend(asked, 4).items, two.recommend(asked, 4).items)


def test_a_user_alone_gets_the_list_of_the_same_history_among_others():
    histories = [[0], [1, 2], [], [2, 1], [3]]
    among = ScoreRecommender("z", Zeros()).recommend(request(histories, 7), 4)
    alone = [ScoreRecommender("z", Zeros()).recommend(request([h], 7), 4) for h in histories]
    assert among.items.tolist() == [found.items[0].tolist() for found in alone]
    assert among.items[1].tolist() != among.items[3].tolist()  # the order of a history counts


def test_an_empty_eligibility_mask_is_one_sentence():
    with pytest.raises(DataError, match="none of 2 items is eligible"):
        request([[]], 2, eligible=torch.zeros(2, dtype=torch.bool))


@pytest.mark.parametrize("seed", [2**23 - 1, 2**23, 20241127, 2**70])
def test_a_seed_of_any_size_breaks_ties(seed):
    found = best_items(torch.zeros(1, 5), request([[0]], 5, seed=seed), 5).items[0].tolist()
    assert sorted(found) == [-1, 1, 2, 3, 4]


def test_the_lists_of_a_small_seed_stay_what_they_were():
    found = [best_items(torch.zeros(1, 9), request([[0]], 9, seed=s), 8).items[0] for s in (0, 1)]
    assert found[0].tolist() == [2, 5, 1, 6, 8, 7, 4, 3]
    assert found[1].tolist() == [7, 4, 5, 3, 2, 6, 1, 8]
