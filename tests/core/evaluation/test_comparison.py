import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.errors import DataError
from trillium.evaluation import compare
from trillium.evaluation.comparison import permutation_p, sign_p

RATES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    min_size=1,
    max_size=25,
)


def by_task(values) -> dict[str, float]:
    return {f"task {index:03d}": value for index, value in enumerate(values)}


@pytest.mark.golden
def test_five_of_five_better_has_the_p_values_of_five_coins():
    """All signs equal: 2 of 2**5 assignments are as extreme, for both tests 1/16."""
    comparison = compare(by_task([0.1, 0.2, 0.3, 0.4, 0.5]), by_task([0.2, 0.4, 0.6, 0.8, 1.0]))
    assert comparison.permutation_p == pytest.approx(1 / 16)
    assert comparison.sign_p == pytest.approx(1 / 16)
    assert (comparison.n_better, comparison.n_equal, comparison.n_worse) == (5, 0, 0)
    assert comparison.gain.mean == pytest.approx(0.3)
    assert comparison.gain.low > 0.1


@pytest.mark.golden
def test_the_sign_test_of_eight_to_two():
    """2 * (C(10,0) + C(10,1) + C(10,2)) / 2**10 = 112 / 1024."""
    assert sign_p(8, 2) == pytest.approx(112 / 1024)
    assert sign_p(2, 8) == sign_p(8, 2)
    assert sign_p(3, 3) == 1.0
    assert sign_p(0, 0) == 1.0


@pytest.mark.property
@given(RATES)
def test_swapping_before_and_after_flips_the_gain_and_keeps_the_p_values(rates):
    before, after = by_task([old for old, _ in rates]), by_task([new for _, new in rates])
    there = compare(before, after, n_resamples=200)
    back = compare(after, before, n_resamples=200)
    assert back.gain.mean == pytest.approx(-there.gain.mean)
    assert back.gain.low == pytest.approx(-there.gain.high)
    assert (back.n_better, back.n_worse) == (there.n_worse, there.n_better)
    assert back.permutation_p == there.permutation_p
    assert back.sign_p == there.sign_p
    assert there.n_tasks == len(rates)
    assert 0 < there.permutation_p <= 1


@pytest.mark.property
@given(RATES, st.randoms(use_true_random=False))
def test_the_order_of_the_tasks_does_not_matter(rates, random):
    before, after = by_task([old for old, _ in rates]), by_task([new for _, new in rates])
    shuffled = list(before)
    random.shuffle(shuffled)
    assert compare(before, after, n_resamples=50) == compare(
        {task: before[task] for task in shuffled}, after, n_resamples=50
    )


def test_pairing_makes_a_small_even_gain_certain():
    """Tasks differ by far more than the gain: only unpaired intervals overlap."""
    random = np.random.default_rng(0)
    old = random.random(60)
    new = old + 0.05 + random.normal(0, 0.02, 60)
    comparison = compare(by_task(old), by_task(new))
    assert comparison.before.high > comparison.after.low
    assert comparison.gain.low > 0.04
    assert comparison.permutation_p < 0.001


def test_exact_and_sampled_permutations_agree():
    gains = np.random.default_rng(3).normal(0.3, 1, 16)
    exact = permutation_p(gains)
    # A seventeenth task whose gain is next to nothing changes nothing but the method.
    sampled = permutation_p(np.append(gains, 1e-12), n_resamples=40_000)
    assert sampled == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("n_tasks", [17, 333, 700_000])
def test_signs_drawn_in_slices_are_those_of_one_draw(n_tasks):
    gains = np.random.default_rng(5).normal(0.01, 1, n_tasks)
    n_resamples = 9 if n_tasks > 1000 else 6001
    signs = np.random.default_rng(0).integers(0, 2, (n_resamples, n_tasks), dtype=np.int8)
    sums = np.abs((1 - 2.0 * signs) @ gains)
    expected = (1 + (sums >= abs(gains.sum()) - 1e-9).sum()) / (1 + n_resamples)
    assert permutation_p(gains, n_resamples=n_resamples) == pytest.approx(expected)


def test_no_change_at_all_is_no_evidence():
    comparison = compare(by_task([0.5, 1.0]), by_task([0.5, 1.0]))
    assert comparison.permutation_p == comparison.sign_p == 1.0
    assert comparison.gain.low == comparison.gain.high == 0.0
    assert comparison.n_equal == 2


def test_different_tasks_cannot_be_compared():
    with pytest.raises(DataError, match=r"1 tasks have only one value, such as 'b'"):
        compare({"a": 1.0, "b": 0.0}, {"a": 1.0})
