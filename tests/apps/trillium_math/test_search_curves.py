from dataclasses import replace
from itertools import combinations

import pytest
from trillium.errors import DataError
from trillium_math.agent.trajectory import Trajectory
from trillium_math.search_curves import best_of_k, pool_curves, run_point
from trillium_math.voting import majority_at_k


def rolled(problem, index, answer, n_tokens=1):
    return Trajectory(
        id=f"{problem}#{index}",
        problem_id=problem,
        gold="1",
        turns=(),
        token_ids=tuple(range(n_tokens + 1)),
        spans=((1, n_tokens + 1),),
        outcome="answered",
        answer=answer,
        reward=float(answer == "1"),
    )


POOL = [rolled("p", i, a) for i, a in enumerate("1213")] + [
    rolled("q", i, a, n_tokens=3) for i, a in enumerate("2214")
]


def same(one, other):
    return one == other


def test_a_curve_is_the_expectation_over_subsets_and_counts_its_tokens():
    values = {one.id: float(one.is_right) for one in POOL}
    points = {(p.strategy, p.budget): p for p in pool_curves(POOL, (1, 2), same, values=values)}
    # Right answers: 2 of 4 and 1 of 4; a vote of two ties unless both agree.
    assert points["majority", 1].accuracy.mean == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert points["oracle", 2].accuracy.mean == pytest.approx((5 / 6 + 3 / 6) / 2)
    # p: 4 subsets of a right and a wrong at 1/2, one right pair; q: 3 with the right one at 1/2.
    assert points["majority", 2].accuracy.mean == pytest.approx((3 / 6 + 1.5 / 6) / 2)
    # A perfect value function finds a right one whenever there is one.
    best = points["best of K by value", 2]
    assert best.accuracy.mean == pytest.approx(points["oracle", 2].accuracy.mean)
    assert best.tokens == 2 * 2.0


def test_best_of_k_agrees_with_counting_subsets():
    values, right = [0.3, 0.9, 0.5, 0.1], [True, False, True, False]
    for k in (1, 2, 3, 4):
        subsets = list(combinations(range(4), k))
        counted = sum(right[max(each, key=lambda i: values[i])] for each in subsets)
        assert best_of_k(values, right, k) == pytest.approx(counted / len(subsets))
    assert best_of_k([1.0, 1.0], [True, False], 2) == 0.5


def test_a_drawn_vote_is_close_to_the_counted_one():
    numbers, right = [0] * 11 + [1] * 9, [True] * 11 + [False] * 9
    # Hypergeometric: at least 3 of 5 from 11 of 20, counted by comb.
    assert majority_at_k(numbers, right, 5) == pytest.approx(0.6045, abs=0.03)
    assert majority_at_k(numbers, right, 5) == majority_at_k(numbers, right, 5)


def test_a_run_is_a_point_of_what_was_judged():
    lost = replace(POOL[0], reward=None)
    point = run_point("greedy", 1, [*POOL[:2], lost], 7.0)
    assert (point.accuracy.mean, point.tokens) == (0.5, 7.0)
    with pytest.raises(DataError, match="no trajectory was judged"):
        run_point("greedy", 1, [lost], 7.0)


def test_too_few_samples_are_refused():
    with pytest.raises(DataError, match="no problem has 5 judged samples"):
        pool_curves(POOL, (5,), same)
    with pytest.raises(DataError, match="k=3 with 2 samples"):
        best_of_k([0.1, 0.2], [True, False], 3)
    with pytest.raises(DataError, match="k=3 with 2 samples"):
        majority_at_k([0, 1], [True, False], 3)
