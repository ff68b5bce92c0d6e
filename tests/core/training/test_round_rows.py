from trillium.objectives.recipe_configs import DOVEConfig, TreeTPOConfig
from trillium.training.round_rows import hash_trees, read_trees, write_trees


def test_trees_come_back_with_their_steps(trees_for, tmp_path):
    trees = [*trees_for(TreeTPOConfig(), 2), *trees_for(DOVEConfig(), 2)]
    write_trees(tmp_path / "trees.jsonl", trees)
    assert read_trees(tmp_path / "trees.jsonl") == trees
    assert all(tree.steps for tree in trees)
    assert hash_trees(trees[:1]) != hash_trees(trees_for(TreeTPOConfig(), 1, seed=1))
