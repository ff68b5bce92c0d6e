"""A tree written by hand, and what each form makes of it."""

from dataclasses import replace

import pytest
from trillium_math.search.config import HarvestConfig
from trillium_math.search.preferences import HARVESTERS
from trillium_math.search.record import SearchNode, SearchTree

END = frozenset({2})


def node(parent, ids, *, n, q, value=0.0, v=0.0, outcome="", reward=None, given=0):
    """`given` tokens at the end were not written by the policy."""
    scored = (True,) * (len(ids) - given) + (False,) * given
    return SearchNode(parent, tuple(ids), scored, 0.5, 0.0, value, n, q, v, outcome, reward)


# The prompt; three first turns, of which the first two get tool output; ends below them.
TREE = SearchTree(
    "p",
    (
        SearchNode(-1, (9, 8, 7), (False,) * 3, 1.0, 0.0, 0.0, 6, 0.0, 0.0),
        node(0, (20, 21, 2, 5, 6), n=4, q=0.5, v=0.5, given=2),
        node(0, (22, 2, 5), n=1, q=-1.0, v=-1.0, given=1),
        node(0, (23, 2), n=1, q=-0.25, value=-0.25, outcome="no_answer", reward=0.0),
        node(1, (30, 31, 2), n=3, q=1.0, value=1.0, outcome="answered", reward=1.0),
        node(1, (32, 2), n=1, q=-1.0, value=-1.0, outcome="answered", reward=0.0),
        node(2, (33, 2), n=1, q=-1.0, value=-1.0, outcome="answered", reward=0.0),
    ),
    self_evaluation=0.0,
)


def harvest(form, tree=TREE, **settings):
    return HARVESTERS[form](tree, HarvestConfig(**settings), END)


def written(tree, index):
    path = tree.path(index)
    return [token for token, flag in zip(path.ids, path.scored, strict=True) if flag]


def test_pairs_are_best_and_worst_siblings_along_the_most_visited_path():
    first, second = harvest("pairs")
    assert [one.id for one in (first, second)] == ["p#mcts/1>2", "p#mcts/4>5"]
    # A step keeps neither what ends its turn nor what the tool said; an end keeps its end.
    assert [written(first, i) for i in range(2)] == [[20, 21], [22]]
    assert [written(second, i) for i in range(2)] == [[30, 31, 2], [32, 2]]
    assert second.path(0).ids == (9, 8, 7, 20, 21, 2, 5, 6, 30, 31, 2)
    # Visits 4 and 1, then 3 and 1: the rejected one's share.
    assert [one.columns["label_smoothing"] for one in (first, second)] == [0.2, 0.25]


def test_a_gap_that_is_too_small_is_no_preference():
    assert [one.id for one in harvest("pairs", min_gap=1.6)] == ["p#mcts/4>5"]
    assert harvest("pairs", min_gap=2.5) == []
    assert len(harvest("pairs", max_pairs=1)) == 1


def test_steps_that_are_the_same_without_their_end_are_no_pair():
    nodes = list(TREE.nodes)
    nodes[2] = replace(nodes[2], ids=(20, 21, 5), scored=(True, True, False))
    assert [one.id for one in harvest("pairs", replace(TREE, nodes=tuple(nodes)))] == ["p#mcts/4>5"]


def test_lists_hold_all_siblings_with_what_they_are_worth():
    """Worth is (value + v + 1) / 2 here: 0.75, 0 and 0.375 below the root."""
    first, second = harvest("lists")
    assert first.labels["label"] == pytest.approx((0.75, 0.0, 0.375))
    assert [written(first, i) for i in range(3)] == [[20, 21], [22], [23, 2]]
    assert second.labels["label"] == (1.0, 0.0)


def test_every_node_can_teach():
    assert [one.id for one in harvest("labels", every_node=True)] == [
        *("p#mcts/1", "p#mcts/2", "p#mcts/4", "p#mcts/5", "p#mcts/6")
    ]
    assert len(harvest("labels")) == 4


def test_labels_leave_out_what_is_in_doubt():
    rows = harvest("labels", every_node=True)
    assert [row.labels["label"] for row in rows] == [(1.0,), (0.0,), (1.0,), (0.0,), (0.0,)]
    assert written(rows[0], 0) == [20, 21]


def test_paths_are_the_tree_itself_with_its_steps():
    (tree,) = harvest("paths")
    assert tree.n_paths == 4
    assert tree.labels["label"] == (0.375, 1.0, 0.0, 0.0)
    assert tree.steps == ((2,), (3, 3), (3, 2), (2, 2))
    # Node 1 is shared by two ends and computed once.
    assert tree.n_tokens == sum(len(each.ids) for each in TREE.nodes)
    assert written(tree, 1) == [20, 21, 2, 30, 31, 2]


def test_trajectories_carry_their_rewards_and_need_no_contrast():
    rows = harvest("trajectories")
    assert [row.labels["reward"] for row in rows] == [(0.0,), (1.0,), (0.0,), (0.0,)]
    assert rows[1].steps == ((3, 3),)
    nodes = [replace(each, reward=0.0 if each.outcome else None) for each in TREE.nodes]
    failed = replace(TREE, nodes=tuple(nodes))
    assert len(harvest("trajectories", failed)) == 4


def test_a_tree_of_one_path_teaches_only_by_itself():
    alone = SearchTree("p", (TREE.nodes[0], TREE.nodes[1], TREE.nodes[4]), 0.0)
    assert [len(harvest(form, alone)) for form in ("pairs", "lists", "paths")] == [0, 0, 0]
    root = SearchTree("p", TREE.nodes[:1], 0.0)
    assert [harvest(form, root) for form in HARVESTERS] == [[]] * 5
