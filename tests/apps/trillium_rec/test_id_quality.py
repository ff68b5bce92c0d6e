import math

import numpy as np
import pytest
from trillium_rec.id_quality import describe_ids, entropy, gini
from trillium_rec.splits import pack


def test_gini_and_entropy_have_their_textbook_values():
    assert gini(np.array([2.0, 2, 2])) == pytest.approx(0)
    assert gini(np.array([0.0, 0, 0, 5])) == pytest.approx(0.75)
    assert entropy(np.array([1.0, 1, 0])) == pytest.approx(math.log(2))


def test_use_and_collisions_are_counted():
    codes = np.array([[0, 0], [0, 0], [0, 1], [2, 1]])
    quality = describe_ids(codes, (3, 2), pack([np.array([0, 1]), np.array([2, 3])]))
    assert (quality.n_distinct, quality.n_collisions, quality.largest_collision) == (3, 1, 2)
    assert quality.levels[0].usage == pytest.approx(2 / 3)
    assert (quality.levels[0].smallest, quality.levels[0].largest) == (0, 3)
    assert quality.largest_prefix_group == 3


def test_alignment_compares_neighbours_with_chance():
    # Codes 0 and 1 have half of the events each, so chance is 1/2; neighbours agree in 2 of 3 steps
    # (the step from one user to the next does not count).
    sequences = pack([np.array([0, 1, 2]), np.array([3, 2]), np.array([0])])
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    quality = describe_ids(codes, (2, 2), sequences)
    assert quality.alignment[1] == pytest.approx((2 / 3) / (1 / 2))
