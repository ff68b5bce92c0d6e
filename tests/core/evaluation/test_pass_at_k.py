import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.errors import DataError
from trillium.evaluation import pass_at_k, pass_at_k_by_task


@pytest.mark.golden
@pytest.mark.parametrize(
    ("n_samples", "n_correct", "k", "expected"),
    [(5, 2, 2, 0.7), (10, 3, 1, 0.3), (10, 0, 5, 0.0), (4, 4, 3, 1.0), (4, 3, 2, 1.0)],
)
def test_pass_at_k_by_hand(n_samples, n_correct, k, expected):
    """Drawing 2 of 5 with 2 right: 1 - C(3,2)/C(5,2) = 1 - 3/10."""
    assert pass_at_k(n_samples, n_correct, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.property
@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(outcomes, data):
    k = data.draw(st.integers(1, len(outcomes)))
    draws = list(itertools.combinations(outcomes, k))
    expected = sum(any(draw) for draw in draws) / len(draws)
    assert pass_at_k(len(outcomes), sum(outcomes), k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.property
@given(n_samples=st.integers(1, 300), data=st.data())
def test_pass_at_k_equals_the_stable_product(n_samples, data):
    n_correct = data.draw(st.integers(0, n_samples))
    k = data.draw(st.integers(1, n_samples))
    product = np.prod(1.0 - k / np.arange(n_samples - n_correct + 1, n_samples + 1))
    expected = 1.0 if n_samples - n_correct < k else 1.0 - product
    assert pass_at_k(n_samples, n_correct, k) == pytest.approx(expected, abs=1e-9)


def test_more_samples_to_look_for_than_drawn_is_refused():
    with pytest.raises(DataError, match=r"k=8 with 4 samples .* draw more samples"):
        pass_at_k(4, 1, 8)
    with pytest.raises(DataError, match="5 correct of 4"):
        pass_at_k(4, 5, 1)


def test_tasks_keep_their_order_and_their_own_number_of_samples():
    by_task = pass_at_k_by_task({"b": [True, False], "a": [False, False, True, True]}, 2)
    assert list(by_task) == ["b", "a"]
    assert by_task == {"b": 1.0, "a": pytest.approx(1 - 1 / 6)}
