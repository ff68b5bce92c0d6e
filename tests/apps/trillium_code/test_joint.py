import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from trillium_code.joint import JointConfig, choose_joint

DEFAULT = JointConfig()
# Programs by the tests they pass; the tests are passed by 3, 2, 1 and 2 programs.
FOUR = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool)


def choice(passed, **options):
    found = choose_joint(passed, JointConfig(**options))
    return found and (found.chosen, found.chosen_test, found.rejected, found.rejected_test)


@pytest.mark.golden
def test_minimax_selection_by_hand():
    """Program 0 passes most (3), program 3 least (1); test 0 is passed by most on both sides."""
    assert choice(FOUR) == (0, 0, 3, 0)
    assert choose_joint(FOUR, DEFAULT).gap == 2
    assert choice(FOUR, chosen_test="least_passed") == (0, 2, 3, 0)
    assert choice(FOUR, chosen_test="least_passed", rejected_test="same_as_chosen") == (0, 2, 3, 2)
    assert choice(FOUR, min_gap=3) is None


def test_the_rejected_program_must_fail_the_chosen_ones_test_when_both_share_it():
    passed = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    assert choice(passed, rejected_test="same_as_chosen") is None
    assert choice(passed) == (0, 0, 1, 1)


def test_tests_that_all_pass_or_all_fail_are_never_used():
    passed = np.array([[1, 0, 1], [1, 0, 0]], dtype=bool)
    assert choice(passed) == (0, 2, 1, 2)
    assert choice(passed[:, :2]) is None


def test_rows_that_may_not_be_chosen_leave_the_place_to_the_next():
    allowed = np.array([False, True, True, True])
    found = choose_joint(FOUR, DEFAULT, allowed=allowed)
    assert (found.chosen, found.rejected) == (1, 3)
    assert choose_joint(FOUR, DEFAULT, allowed=np.zeros(4, bool)) is None


def test_random_tests_are_drawn_from_those_that_pass():
    config = JointConfig(chosen_test="random")
    drawn = {choose_joint(FOUR, config, seed=seed).chosen_test for seed in range(40)}
    assert drawn == {0, 1, 2}


@pytest.mark.property
@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda s: arrays(np.bool_, s)),
    st.sampled_from(["most_passed", "least_passed", "random"]),
    st.sampled_from(["most_passed", "same_as_chosen"]),
)
def test_the_chosen_passes_its_test_and_the_rejected_fails_its_own(passed, chosen, rejected):
    found = choose_joint(passed, JointConfig(chosen_test=chosen, rejected_test=rejected))
    if found is not None:
        assert passed[found.chosen, found.chosen_test]
        assert not passed[found.rejected, found.rejected_test]
        assert passed[found.chosen].sum() - passed[found.rejected].sum() == found.gap >= 1


def test_selection_turns_inverted_pairs_into_pairs_that_say_nothing():
    """With planted truth, single-test pairs are inverted (wrong chosen, right rejected) in some
    percent of the tasks, minimax pairs hardly ever; and as (program, test) couples none is, because
    a right program never fails a right test.
    """
    random = np.random.default_rng(0)
    naive = minimax = rejected_is_right = n_naive = n_minimax = 0
    for _ in range(1500):
        code_ok, test_ok, passed = planted_world(random, p_code=0.5, p_test=0.6)
        column = int(random.integers(passed.shape[1]))
        good, bad = np.flatnonzero(passed[:, column]), np.flatnonzero(~passed[:, column])
        if good.size and bad.size:
            n_naive += 1
            naive += not code_ok[random.choice(good)] and bool(code_ok[random.choice(bad)])
        found = choose_joint(passed, DEFAULT)
        if found is not None:
            n_minimax += 1
            minimax += not code_ok[found.chosen] and bool(code_ok[found.rejected])
            rejected_is_right += bool(code_ok[found.rejected] and test_ok[found.rejected_test])
    assert n_minimax > 1400
    assert 0.03 < naive / n_naive < 0.20
    assert minimax / n_minimax <= 0.005
    assert rejected_is_right == 0


def planted_world(random, *, p_code, p_test, n=15):
    """Draw programs and tests; half of the wrong programs share a bug that half of the wrong tests
    expect. Other wrong programs pass a right test now and then, and a wrong one hardly ever.
    """
    code_ok, test_ok = random.random(n) < p_code, random.random(n) < p_test
    has_bug = ~code_ok & (random.random(n) < 0.5)
    wants_bug = ~test_ok & (random.random(n) < 0.5)
    chance = np.where(test_ok, 0.2, 0.05)
    passed = random.random((n, n)) < chance
    passed[np.ix_(code_ok, test_ok)] = True
    passed[np.ix_(code_ok, ~test_ok)] = False
    passed[np.ix_(has_bug, wants_bug)] = True
    return code_ok, test_ok, passed
