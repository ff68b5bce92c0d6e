import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from trillium_rec.reward.config import HeadConfig, RewardConfig
from trillium_rec.reward.examples import RewardExamples
from trillium_rec.reward.fitting import build_reward_model
from trillium_rec.reward.logistic import fit_logistic, sigmoid
from trillium_rec.reward.quality import auc, auc_soft, expected_calibration_error, measure_reward
from trillium_rec.splits import pack


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


def shelves(random, popularity, n_lists):
    """Lists of five items of like popularity, liked by popularity alone."""
    lists = random.integers(0, 290, n_lists)[:, None] + np.stack(
        [random.choice(10, 5, replace=False) for _ in range(n_lists)]
    )
    liking = 0.5 * (np.log1p(popularity[lists]) - np.log1p(popularity).mean())
    labels = (random.random(lists.shape) < sigmoid(liking)).astype(np.float32)[..., None]
    users = tuple(str(number) for number in range(n_lists))
    return RewardExamples(users, pack([np.array([0])] * n_lists), lists, labels)


@pytest.mark.parametrize("pooling", ["items", "sum"])
def test_a_model_and_what_it_must_beat_tell_the_same_things_apart(pooling):
    random = np.random.default_rng(0)
    popularity = np.sort(random.integers(1, 1000, 300))
    train, unseen = (shelves(random, popularity, 2000) for _ in range(2))
    config = RewardConfig(heads=(HeadConfig(column="like"),), pooling=pooling, d_model=8)
    model = build_reward_model(config, 300, None, seed=0)
    head = measure_reward(model, unseen, train=train, popularity=popularity).heads[0]
    known, truth = np.log1p(popularity[unseen.lists]), unseen.labels[..., 0].astype(np.float64)
    by_item = auc(known.reshape(-1), truth.reshape(-1) >= 0.5)
    by_list = auc_soft(known.mean(axis=1), truth.mean(axis=1))
    # Per list popularity tells more: five items of one shelf are told apart as one.
    assert by_list > by_item + 0.05
    expected = by_list if pooling == "sum" else by_item
    assert head.baseline_auc == pytest.approx(expected, abs=0.003)
