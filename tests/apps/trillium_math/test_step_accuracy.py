import pytest
from trillium.errors import DataError
from trillium_math.step_accuracy import judge_steps, measure_steps


def test_the_first_step_whose_rollouts_all_fail_is_the_error():
    assert judge_steps([0.5, 0.25, 0.0, 0.5]) == (True, True, False, False)
    assert judge_steps([0.5, 0.25, 0.1], threshold=0.25) == (True, False, False)
    assert judge_steps([1.0, 1.0]) == (True, True)
    with pytest.raises(DataError, match=r"success rate 2 of step 1"):
        judge_steps([0.5, 2])


def test_steps_are_counted_by_trajectory_and_by_position():
    """Shares 1, 1/2 and 0 of 2, 2 and 1 steps; first errors at positions 1 and 0."""
    found = measure_steps({"a": (True, True), "b": (True, False), "c": (False,)})
    assert (found.n_trajectories, found.n_steps) == (3, 5)
    assert found.accuracy.mean == pytest.approx(0.5)
    assert found.without_error.mean == pytest.approx(1 / 3)
    assert found.by_position == ((3, 2), (2, 1))
    assert found.first_error == {0: 1, 1: 1}


@pytest.mark.parametrize("verdicts", [{}, {"a": ()}])
def test_nothing_to_measure_is_refused(verdicts):
    with pytest.raises(DataError, match="measure_steps"):
        measure_steps(verdicts)
