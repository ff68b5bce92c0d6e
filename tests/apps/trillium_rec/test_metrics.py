import math

import numpy as np
import pytest
from trillium_rec.metrics import (
    are_valid,
    diversity,
    exposure,
    ndcg,
    novelty,
    popularity_deciles,
    ranks_of,
    recall,
)

LISTS = np.array([[3, 1, 2], [0, 2, -1]])


def test_the_rank_of_a_target_is_its_place_or_zero():
    assert ranks_of(LISTS, np.array([2, 1])).tolist() == [3, 0]


def test_recall_and_ndcg_have_their_textbook_values():
    ranks = np.array([1, 2, 3, 0, 11])
    assert recall(ranks, 2).tolist() == [1, 1, 0, 0, 0]
    expected = [1, 1 / math.log2(3), 0.5, 0, 0]
    assert ndcg(ranks, 10).tolist() == pytest.approx(expected)


def test_places_that_are_unknown_seen_hidden_or_repeated_are_invalid():
    lists = np.array([[0, 1, 2, 2], [5, 1, 3, 0]])
    seen = np.zeros((2, 4), bool)
    seen[1, 0] = True
    valid = are_valid(lists, seen, np.array([True, False, True, True]))
    # First list: 1 is hidden and the second 2 repeats. Second: only 3 is valid.
    assert valid.tolist() == [0.5, 0.25]


def test_a_place_that_lists_nothing_is_no_invalid_one():
    lists = np.array([[3, -1, -1, -1], [3, -1, 0, 3], [-1, -1, -1, -1]])
    seen = np.zeros((3, 4), bool)
    seen[1, 0] = True
    valid = are_valid(lists, seen, np.ones(4, bool))
    assert valid.tolist() == [1.0, 1 / 3, 1.0]
    assert are_valid(lists[:, :2], seen, np.ones(4, bool)).tolist() == [1.0, 1.0, 1.0]


def test_exposure_ignores_empty_places():
    assert exposure(LISTS, 5).tolist() == [1, 1, 2, 1, 0]


def test_rare_items_are_more_novel_by_the_bits_of_their_share():
    popularity = np.array([0, 3, 1, 0])
    shares = np.array([1, 4, 2, 1]) / 8
    bits = -np.log2(shares)
    assert novelty(LISTS, popularity).tolist() == pytest.approx(
        [bits[[3, 1, 2]].mean(), bits[[0, 2]].mean()]
    )


def test_diversity_is_one_minus_the_mean_cosine_of_pairs():
    vectors = np.array([[1, 0], [0, 2], [3, 0], [-1, 0]], np.float32)
    # 3-1: 0, 3-2: -1, 1-2: 0; and 0-2: 1.
    assert diversity(LISTS, vectors).tolist() == pytest.approx([1 + 1 / 3, 0.0])
    assert diversity(np.array([[1, -1]]), vectors).tolist() == [0.0]


def test_deciles_are_equal_shares_of_the_items_with_events():
    popularity = np.concatenate([[0], np.arange(1, 21)])
    deciles = popularity_deciles(popularity)
    assert deciles[0] == -1
    assert deciles[1:].tolist() == [number // 2 for number in range(20)]
