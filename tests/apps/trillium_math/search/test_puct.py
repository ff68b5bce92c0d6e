import math

import pytest
from trillium_math.search.puct import (
    Branch,
    add_child,
    back_up,
    choose_child,
    prior_of,
    puct_score,
    smoothing,
)


def test_the_score_adds_what_is_known_and_what_is_worth_a_look():
    # 0.3 * sqrt(4) / (1 + 2) = 0.2
    assert puct_score(0.5, 0.3, 4, 2, weight=1.0) == pytest.approx(0.7)
    assert puct_score(0.5, 0.3, 4, 2, weight=0.0) == 0.5
    assert puct_score(0.5, 0.3, 0, 0, weight=1.0) == 0.5


def test_the_prior_is_the_likelihood_of_a_step_by_its_length():
    assert prior_of(-8.0, 16, power=1.25) == pytest.approx(math.exp(-8 / 32))
    assert prior_of(-0.5, 1) == pytest.approx(math.exp(-0.5))


def grow(*values, priors=None):
    """A root worth 0.4 with children of these values."""
    tree = [Branch(-1, value=0.4)]
    for index, value in enumerate(values):
        add_child(tree, 0, prior=priors[index] if priors else 0.5, value=value)
    return tree


def test_a_visit_renews_a_leaf_and_its_ancestors():
    """Rewards 0.6 and -0.2. The first visit of child 1: q = 0.6, root v = (0.6 - 0.2) / 2 = 0.2.

    Its child is worth 0.3 less. A visit there: q = -0.3, so v of child 1 = -0.3 and its q = 0.3;
    the root weighs it twice less one visit still: n is 1 when the root is renewed, then 2.
    """
    tree = grow(1.0, 0.2)
    back_up(tree, 1)
    assert [node.n for node in tree] == [1, 1, 0]
    assert tree[0].v == pytest.approx(0.2)
    child = add_child(tree, 1, prior=0.5, value=0.7)
    back_up(tree, child)
    assert [node.n for node in tree] == [2, 2, 0, 1]
    assert (tree[child].q, tree[1].v, tree[1].q) == pytest.approx((-0.3, -0.3, 0.3))
    # Child 1 has been counted before its parent is renewed: (2 * 0.3 - 0.2) / 3.
    assert tree[0].v == pytest.approx(0.4 / 3)
    assert tree[1].expected == pytest.approx(0.7)


def test_gains_from_later_steps_are_discounted():
    tree = grow(1.0)
    child = add_child(tree, 1, prior=0.5, value=2.0)
    back_up(tree, child, gamma=0.5)
    # v of child 1 is 1.0: q = 0.6 + 0.5.
    assert tree[1].q == pytest.approx(1.1)


def test_unvisited_branches_draw_the_search_by_their_prior():
    tree = grow(0.4, 0.4, priors=[0.2, 0.6])
    tree[0].n = 4
    # 0 + 0.2 * 2 against 0 + 0.6 * 2.
    assert choose_child(tree, 0, weight=1.0) == 2
    tree[2].n = 5
    # 0.4 against 1.2 / 6.
    assert choose_child(tree, 0, weight=1.0) == 1


def test_ties_go_to_the_likelier_then_to_the_earlier():
    assert choose_child(grow(0.4, 0.4, priors=[0.2, 0.6]), 0, weight=1.0) == 2
    assert choose_child(grow(0.4, 0.4), 0, weight=1.0) == 1


@pytest.mark.parametrize(
    ("n_chosen", "n_rejected", "alpha"),
    [(3, 1, 0.25), (9, 1, 0.1), (2, 2, 0.5), (1, 3, 0.5), (4, 0, 0.0), (0, 0, 0.0), (0, 3, 0.5)],
)
def test_smoothing_follows_the_visits(n_chosen, n_rejected, alpha):
    assert smoothing(n_chosen, n_rejected) == pytest.approx(alpha)
