import pytest
from trillium.objectives.recipe_configs import C3POConfig
from trillium.training.steps import Sample, StepCollator, row_tokens


@pytest.mark.parametrize("layout", ["padded", "shared", "packed"])
@pytest.mark.parametrize("micro_tokens", [1, 60, 200, 10_000])
def test_row_batches_keep_every_tree_and_the_budget(layout, micro_tokens, pairs):
    trees = pairs(20)
    batches = list(StepCollator(layout, 3, micro_tokens).batch_rows(trees))
    assert sorted(name for rows in batches for name in rows.tree_ids) == sorted(t.id for t in trees)
    for rows in batches:
        if rows.n_trees > 1 and layout != "packed":
            assert rows.input_ids.numel() <= micro_tokens
    lengths = [max(row_tokens(t, layout) for t in trees if t.id in b.tree_ids) for b in batches]
    assert lengths == sorted(lengths, reverse=True)
    if micro_tokens == 1:
        assert len(batches) == 20
    if micro_tokens == 10_000:
        assert len(batches) == 1


def test_a_step_counts_trees_and_chosen_tokens(pairs):
    trees = pairs(5)
    step = StepCollator("shared", 3, 64)([Sample(tree) for tree in trees])
    assert step.n_trees == 5
    assert step.n_tokens == sum(tree.n_tokens for tree in trees)
    assert step.path_tokens == (sum(sum(tree.path(0).scored) for tree in trees),)
    assert step.mismatched == ()


def test_further_paths_are_counted_when_an_objective_normalises_by_them(trees_for):
    trees = trees_for(C3POConfig(), 5)
    step = StepCollator("shared", 3, 64, n_counted=4)([Sample(tree) for tree in trees])
    assert step.path_tokens == tuple(
        sum(sum(tree.path(place).scored) for tree in trees) for place in range(4)
    )


def test_a_step_without_trees_is_empty_but_valid():
    step = StepCollator("shared", 3, 64)([])
    assert (step.rows, step.n_trees, step.n_tokens, step.path_tokens) == ((), 0, 0, (0,))
