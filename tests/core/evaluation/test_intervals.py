import numpy as np
import pytest
from trillium.errors import DataError
from trillium.evaluation import bootstrap_mean


def test_the_interval_of_a_large_sample_is_that_of_the_normal_approximation():
    values = np.random.default_rng(5).normal(0.3, 0.2, 2_000)
    interval = bootstrap_mean(values.tolist())
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    n_covered = 0
    for trial in range(200):
        values = random.random(40) < 0.4
        interval = bootstrap_mean(values.tolist(), seed=trial, n_resamples=400)
        n_covered += interval.low <= 0.4 <= interval.high
    assert 180 <= n_covered <= 199


def test_the_same_seed_gives_the_same_interval_and_a_wider_level_a_wider_one():
    values = [0.0, 0.5, 1.0, 0.25, 0.75]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    narrow, wide = (bootstrap_mean(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_values_that_agree_have_no_width():
    interval = bootstrap_mean([0.5] * 4)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "message"), [([], "no values"), ([0.1, float("nan")], "finite")]
)
def test_nothing_and_not_a_number_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        bootstrap_mean(values)
