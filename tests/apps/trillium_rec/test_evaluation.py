import numpy as np
import pytest
import torch
from trillium.errors import DataError
from trillium_rec.evaluation import Judge, compare_users
from trillium_rec.ranking import Lists, ScoreRecommender
from trillium_rec.splits import Judged, pack


class Fixed:
    """A scorer that gives everyone the same scores."""

    def __init__(self, scores):
        self.scores = torch.tensor(scores, dtype=torch.float32)

    def score_items(self, histories):
        return self.scores.repeat(histories.n_sequences, 1)


class Careless:
    """A recommender that ignores histories and repeats itself."""

    name = "careless"

    def recommend(self, request, k):
        items = torch.zeros(request.n_users, k, dtype=torch.int64)
        return Lists(items, items.float())


def judge(targets, histories, *, popularity=(5, 4, 3, 2, 0), eligible=None):
    judged = Judged(
        np.arange(len(targets)), pack([np.array(h) for h in histories]), np.array(targets)
    )
    is_eligible = np.ones(5, bool) if eligible is None else np.array(eligible)
    users = [f"u{number}" for number in range(len(targets))]
    return Judge(judged, users, np.array(popularity), is_eligible)


def test_seen_items_are_masked_so_the_target_moves_up():
    evaluation = judge([2, 1], [[0, 1], [0]]).evaluate(
        ScoreRecommender("f", Fixed([5, 4, 3, 2, 1]))
    )
    assert evaluation.ranks.tolist() == [1, 1]
    assert evaluation.metrics["recall@5"].mean == 1
    assert (evaluation.lists >= 0).sum(axis=1).tolist() == [3, 4]
    assert evaluation.validity == 1.0


def test_a_target_that_is_hidden_is_missed():
    hidden = judge([2], [[0]], eligible=[True, True, False, True, True])
    evaluation = hidden.evaluate(ScoreRecommender("f", Fixed([5, 4, 3, 2, 1])))
    assert evaluation.ranks.tolist() == [0]
    assert evaluation.coverage == 3 / 4


def test_lists_that_break_the_rules_are_counted_as_invalid():
    evaluation = judge([2, 1], [[0, 1], [3]]).evaluate(Careless(), ks=(5,))
    assert evaluation.validity == pytest.approx((0 + 1 / 5) / 2)
    assert evaluation.ranks.tolist() == [0, 0]


def test_cold_targets_and_deciles_are_told_apart():
    evaluation = judge([4, 3, 0], [[0], [0], [1]]).evaluate(
        ScoreRecommender("f", Fixed([5, 4, 3, 2, 1]))
    )
    assert (evaluation.cold.n_targets, evaluation.cold.recall) == (1, 1.0)
    assert [group.n_targets for group in evaluation.deciles] == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_two_recommenders_are_compared_user_by_user():
    fair = judge([1, 2], [[0], [0]])
    worse = fair.evaluate(ScoreRecommender("a", Fixed([1, 1, 2, 3, 4])))
    better = fair.evaluate(ScoreRecommender("b", Fixed([5, 4, 3, 2, 1])))
    comparison = compare_users(worse, better, "ndcg", 10)
    assert (comparison.n_better, comparison.n_worse) == (2, 0)
    assert better.values("recall", 5) == {"u0": 1.0, "u1": 1.0}


def test_nobody_to_judge_is_one_sentence():
    with pytest.raises(DataError, match="no user to judge"):
        judge([], [])
