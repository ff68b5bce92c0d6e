import pytest
from trillium.errors import DataError
from trillium_math.calibration import calibrate, ranking_auc


def test_errors_bins_and_ranking_have_their_values():
    """Two bins of width 0.5: {0.1, 0.3} meets {0, 1}, {0.6, 1.0} meets {1, 1}.

    ece = 2/4 |0.2 - 0.5| + 2/4 |0.8 - 1| = 0.25; brier = (0.01 + 0.49 + 0.16 + 0) / 4 = 0.165.
    """
    found = calibrate([0.1, 0.3, 0.6, 1.0], [0, 1, 1, 1], n_bins=2)
    assert found.ece == pytest.approx(0.25)
    assert found.brier == pytest.approx(0.165)
    assert found.base_brier == pytest.approx(0.75 * 0.25)
    assert found.auc == 1.0
    assert [(one.low, one.high, one.n) for one in found.bins] == [(0, 0.5, 2), (0.5, 1, 2)]
    assert [one.prediction for one in found.bins] == pytest.approx([0.2, 0.8])
    assert [one.outcome for one in found.bins] == [0.5, 1.0]


def test_values_outside_the_unit_interval_are_clipped_and_counted():
    found = calibrate([-3.0, 1.5, 0.25], [0, 1, 1], n_bins=4)
    assert found.n_clipped == 2
    assert found.brier == pytest.approx(0.75**2 / 3)
    assert [(one.low, one.n) for one in found.bins] == [(0.0, 1), (0.25, 1), (0.75, 1)]


def test_the_ranking_counts_ties_half_and_needs_both_outcomes():
    # Right 0.7 and 0.4 against wrong 0.4 and 0.1: 1 + 1 + 0.5 + 1 of 4.
    assert ranking_auc([0.7, 0.4, 0.4, 0.1], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)
    assert ranking_auc([0.7, 0.4], [1, 1]) is None


@pytest.mark.parametrize(
    ("predictions", "outcomes", "said"),
    [
        ([], [], r"0 predictions and 0 outcomes"),
        ([0.5], [1, 0], r"1 predictions and 2 outcomes"),
        ([float("nan")], [1], r"not finite"),
        ([0.5], [0.5], r"neither 0 nor 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(predictions, outcomes, said):
    with pytest.raises(DataError, match=said):
        calibrate(predictions, outcomes)
