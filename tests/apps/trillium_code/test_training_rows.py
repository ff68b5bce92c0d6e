from trillium.objectives.configs import DPOConfig, KTOConfig
from trillium_code.records import CodePair
from trillium_code.training_rows import training_trees

PAIRS = [
    CodePair("a/0", "a", (1, 2), (3, 9), (4, 9), "x", "y", 1.0),
    CodePair("a/1", "a", (1, 2), (3, 9), (5, 9), "x", "z", 1.0),
    CodePair("a/fast", "a", (1, 2), (6, 9), (3, 9), "w", "x", 1.5, "efficiency"),
    CodePair("b/0", "b", (1, 7), (3, 9), (4, 9), "x", "y", 1.0),
]


def test_objectives_of_pairs_get_both_kinds_of_pairs_as_they_are():
    trees = training_trees(PAIRS, DPOConfig())
    assert [tree.id for tree in trees] == ["a/0", "a/1", "a/fast", "b/0"]
    assert trees[2].path(0).ids == (1, 2, 6, 9)
    assert trees[2].columns == {"margin": 1.5}


def test_kto_gets_each_half_of_a_pair_once_and_leaves_out_what_contradicts_itself():
    """Program (3, 9) of task a is right but slow: one pair chooses it and one rejects it."""
    trees = training_trees(PAIRS, KTOConfig())
    rows = {(tree.path(0).ids, tree.labels["label"]) for tree in trees}
    assert rows == {
        ((1, 2, 4, 9), (0.0,)),
        ((1, 2, 5, 9), (0.0,)),
        ((1, 2, 6, 9), (1.0,)),
        ((1, 7, 3, 9), (1.0,)),
        ((1, 7, 4, 9), (0.0,)),
    }
    assert all(tree.path(0).scored == (False, False, True, True) for tree in trees)
    assert len({tree.id for tree in trees}) == 5
