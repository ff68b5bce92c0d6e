from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from trillium.errors import DataError
from trillium_code.ranking import (
    SCORERS,
    at_random,
    choose_pairs,
    codedpo,
    codet,
    pass_count,
    plum,
    single_test,
    take_census,
)

FOUR = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool)
matrices = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.bool_, shape)
)


def exact_codedpo(passed, *, damping=Fraction(17, 20), n_rounds=10):
    """Follow the plain recurrence in exact arithmetic, without any rescaling."""
    programs, tests = [Fraction(1)] * len(passed), [Fraction(1)] * len(passed[0])
    for _ in range(n_rounds):
        programs, tests = (
            [
                (1 - damping) * c + damping * sum(t for t, ok in zip(tests, row, strict=True) if ok)
                for c, row in zip(programs, passed, strict=True)
            ],
            [
                (1 - damping) * t
                + damping * sum(c for c, row in zip(programs, passed, strict=True) if row[j])
                for j, t in enumerate(tests)
            ],
        )
    return programs, tests


@pytest.mark.golden
def test_one_round_of_mutual_scoring_by_hand():
    """d = 0.85, P = [[1, 1], [0, 1]].

    c = .15 + .85 (2, 1) = (1.85, 1.00); t = .15 + .85 (1, 2) = (1.00, 1.85); joint maximum 1.85.
    """
    scores = codedpo(np.array([[1, 1], [0, 1]], dtype=bool), n_rounds=1)
    assert scores.programs.tolist() == pytest.approx([1.0, 1.0 / 1.85])
    assert scores.tests.tolist() == pytest.approx([1.0 / 1.85, 1.0])


@pytest.mark.golden
def test_ten_rounds_equal_the_exact_recurrence_up_to_one_joint_constant():
    programs, tests = exact_codedpo(FOUR.tolist())
    constant = max(*programs, *tests)
    assert float(constant) == pytest.approx(2160.125800994341)
    scores = codedpo(FOUR)
    assert scores.programs.tolist() == pytest.approx(
        [float(x / constant) for x in programs], rel=1e-12
    )
    assert scores.tests.tolist() == pytest.approx([float(x / constant) for x in tests], rel=1e-12)


@pytest.mark.golden
def test_trivial_tests_collect_the_most_trust_and_change_the_winner():
    """Two tests that everything passes, such as assert True, move the first place from 2 to 3."""
    passed = np.array(
        [[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 1]], dtype=bool
    )
    with_trivial = np.hstack([passed, np.ones((5, 2), dtype=bool)])
    for matrix, winner in ((passed, 2), (with_trivial, 3)):
        exact = exact_codedpo(matrix.tolist())[0]
        assert exact.index(max(exact)) == winner
        assert int(codedpo(matrix).programs.argmax()) == winner
    assert set(np.argsort(codedpo(with_trivial).tests)[-2:]) == {4, 5}
    census = take_census(with_trivial, stub_passed=[False] * 4 + [True] * 2)
    assert (census.kept, census.n_trivial) == ((0, 1, 2, 3), 2)


@pytest.mark.golden
def test_simpler_scores_by_hand():
    assert pass_count(FOUR).programs.tolist() == [3, 2, 2, 1]
    assert pass_count(FOUR).tests.tolist() == [3, 2, 1, 2]
    assert single_test(FOUR).programs.tolist() == [1, 1, 1, 0]
    consensus = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)
    assert codet(consensus).programs.tolist() == [4, 4, 2]
    assert codet(consensus).tests.tolist() == [4, 4, 2]


@pytest.mark.golden
def test_plum_believes_only_programs_that_pass_everything():
    passed = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 1]], dtype=bool)
    assert plum(passed).programs.tolist() == [0, 1, 0, 1]
    assert plum(passed).tests.tolist() == [2, 2, 2]
    assert plum(FOUR).programs.tolist() == [0, 0, 0, 0]


def test_random_scores_are_an_order_that_depends_on_the_seed_alone():
    first, again = at_random(FOUR, seed=3).programs, at_random(~FOUR, seed=3).programs
    assert sorted(first) == [0, 1, 2, 3]
    assert first.tolist() == again.tolist()
    assert {tuple(at_random(FOUR, seed=seed).programs) for seed in range(40)} > {tuple(first)}


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(
    matrices, st.randoms(use_true_random=False), st.sampled_from(["codedpo", "pass_count", "codet"])
)
def test_permuting_programs_and_tests_permutes_the_scores(passed, random, name):
    rows = random.sample(range(passed.shape[0]), passed.shape[0])
    columns = random.sample(range(passed.shape[1]), passed.shape[1])
    scores, permuted = SCORERS[name](passed), SCORERS[name](passed[rows][:, columns])
    assert permuted.programs.tolist() == scores.programs[rows].tolist()
    assert permuted.tests.tolist() == scores.tests[columns].tolist()


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(matrices)
def test_joint_rescaling_keeps_the_order_and_the_ratios(passed):
    programs, tests = exact_codedpo(passed.tolist())
    scores = codedpo(passed)
    ours = np.concatenate([scores.programs, scores.tests])
    exact = np.array([float(x) for x in (*programs, *tests)])
    np.testing.assert_allclose(ours * exact.max(), exact, rtol=1e-9)
    assert ours.max() == 1.0


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(matrices)
def test_a_program_that_passes_more_of_the_same_tests_never_scores_less(passed):
    more = np.vstack([passed, passed[0] | passed[-1]])
    for name in ("codedpo", "pass_count"):
        scores = SCORERS[name](more).programs
        assert scores[-1] >= scores[0] - 1e-12


def test_census_gives_each_test_the_first_reason_that_applies():
    passed = np.array([[1, 0, 1, 1, 0], [1, 0, 0, 1, 0]], dtype=bool)
    census = take_census(
        passed,
        stub_passed=[True, False, False, True, False],
        is_flaky=[False, False, False, True, False],
        calls_entry_point=[True, True, True, True, False],
    )
    assert census.kept == (2,)
    assert (census.n_uncalled, census.n_flaky) == (1, 1)
    assert (census.n_trivial, census.n_impossible) == (1, 1)


def test_the_default_pair_is_the_best_program_against_the_worst():
    (pair,) = choose_pairs(FOUR, codedpo(FOUR).programs)
    assert (pair.chosen, pair.rejected) == (0, 3)
    assert pair.gap == pytest.approx(float(np.ptp(codedpo(FOUR).programs)))


@pytest.mark.parametrize("columns", [range(5), range(4, -1, -1), [3, 0, 4, 1, 2]])
def test_programs_of_equal_trust_give_no_pair_in_any_order_of_the_tests(columns):
    """Both pass 3 tests, and share 1: floats differ by 1e-16, in the order of the tests."""
    passed = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1]], dtype=bool)[:, list(columns)]
    programs = codedpo(passed).programs
    assert programs[0] == programs[1]
    assert choose_pairs(passed, programs) == []


def test_no_chosen_program_below_the_gate():
    assert choose_pairs(FOUR, pass_count(FOUR).programs, min_chosen_pass_frac=0.8) == []


def test_no_pair_between_programs_that_pass_the_same_tests():
    same = np.array([[1, 0], [1, 0]], dtype=bool)
    assert choose_pairs(same, np.array([2.0, 1.0])) == []
    assert choose_pairs(np.ones((3, 2), dtype=bool), np.ones(3)) == []


def test_several_pairs_come_widest_gap_first():
    pairs = choose_pairs(FOUR, pass_count(FOUR).programs, n_chosen=2, n_rejected=2)
    assert [(pair.chosen, pair.rejected, pair.gap) for pair in pairs] == [
        (0, 3, 2.0),
        (0, 1, 1.0),
        (1, 3, 1.0),
    ]


def test_a_matrix_without_programs_or_tests_is_refused():
    with pytest.raises(DataError, match=r"shape \(0, 3\)"):
        codedpo(np.zeros((0, 3), dtype=bool))
    with pytest.raises(DataError, match="2 flags for 4 tests"):
        take_census(FOUR, stub_passed=[True, False])
    with pytest.raises(DataError, match="3 scores for 4 programs"):
        choose_pairs(FOUR, np.ones(3))
