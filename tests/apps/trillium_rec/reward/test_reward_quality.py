import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from trillium_rec.reward.logistic import fit_logistic, sigmoid
from trillium_rec.reward.quality import auc, expected_calibration_error


def test_auc_counts_pairs_and_ties_half():
    assert auc(np.array([0.1, 0.9]), np.array([False, True])) == 1.0
    assert auc(np.array([0.5, 0.5]), np.array([False, True])) == 0.5
    assert auc(np.array([0.5, 0.7]), np.array([True, True])) is None
    random = np.random.default_rng(0)
    scores, truth = random.integers(0, 9, 200) / 9.0, random.random(200) < 0.3
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_the_calibration_error_is_the_gap_of_rates_in_bins():
    chances = np.repeat([0.2, 0.8], 50)
    # Ten bins of ten: 0.2 is right in each of the lower five; 0.8 is said in five, and 0.6 is so.
    labels = np.concatenate([np.tile([1.0] * 2 + [0.0] * 8, 5), np.tile([1.0] * 6 + [0.0] * 4, 5)])
    assert expected_calibration_error(chances, labels) == pytest.approx(0.5 * 0.2)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0


def test_logistic_regression_finds_the_weights_that_made_the_labels():
    random = np.random.default_rng(0)
    features = np.stack([np.ones(20_000), random.normal(size=20_000)], axis=1)
    labels = (random.random(20_000) < sigmoid(features @ np.array([-1.0, 2.0]))).astype(float)
    assert fit_logistic(features, labels, ridge=1e-9) == pytest.approx([-1.0, 2.0], abs=0.1)


def test_separable_data_end_in_finite_weights():
    features = np.array([[1.0, -1.0], [1.0, 1.0]])
    weights = fit_logistic(features, np.array([0.0, 1.0]))
    assert np.isfinite(weights).all()
    assert weights[1] > 1
