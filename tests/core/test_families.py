import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trillium.families import find_families, fit_families, merge_trees
from trillium.layouts import collate
from trillium.policies.tiny import tiny_policy
from trillium.scoring.scores import score
from trillium.training.steps import StepCollator
from trillium.trees import TokenPath, TokenTree

PROMPT = tuple(range(10, 30))


def pair(name, context, *replies):
    paths = [
        TokenPath((*context, *reply), (False,) * len(context) + (True,) * len(reply))
        for reply in replies
    ]
    labels = {"reward": tuple(float(len(reply)) for reply in replies)}
    return TokenTree.from_paths(name, paths, labels, {"margin": float(len(context))})


# A search tree as pairs of siblings: what the first pair scores is context of the second.
FIRST = pair("first", PROMPT, (41, 42, 43), (44, 45))
SECOND = pair("second", (*PROMPT, 41, 42, 43), (51, 52), (53, 54, 55))
THIRD = pair("third", (*PROMPT, 41, 42, 43), (51, 56), (57,))
OTHER = pair("other", (9, *PROMPT), (41, 42), (43,))
TREES = [OTHER, SECOND, FIRST, THIRD]


def test_trees_that_begin_with_the_context_of_another_are_a_family():
    assert find_families(TREES) == [[0], [1, 2, 3]]


def test_a_context_that_is_short_beside_its_tree_is_not_worth_sharing():
    long = pair("long", PROMPT, tuple(range(100, 170)), (60,))
    assert find_families([FIRST, long, SECOND]) == [[0, 2], [1]]


def test_a_merged_tree_holds_each_common_token_once():
    merged = merge_trees([FIRST, SECOND, THIRD])
    # 20 of the prompt, 3 + 2 of the first pair, 51 once, then 52, 56; 53 54 55; 57.
    assert merged.n_tokens == 20 + 5 + 3 + 3 + 1
    paths = [tree.path(i) for tree in (FIRST, SECOND, THIRD) for i in range(2)]
    assert [merged.path(i).ids for i in range(merged.n_paths)] == [path.ids for path in paths]
    assert sum(sum(node.scored) for node in merged.nodes) == 12


def test_families_are_cut_at_the_budget():
    trees = [FIRST, SECOND, THIRD]
    assert fit_families(trees, [[0, 1, 2]], 32) == [[0, 1, 2]]
    assert fit_families(trees, [[0, 1, 2]], 31) == [[0, 1], [2]]
    assert fit_families(trees, [[0, 1, 2]], 5) == [[0], [1], [2]]


@pytest.mark.parametrize("layout", ["shared", "packed"])
def test_a_family_gives_the_log_probabilities_and_gradients_of_its_trees(layout):
    model = tiny_policy().double()
    found = []
    for families in (None, find_families(TREES)):
        batch = collate(TREES, layout=layout, pad_id=0, row_tokens=80, families=families)
        logps = score(model, batch).logps
        model.zero_grad()
        (logps * torch.arange(1.0, 9.0)).sum().backward()
        gradient = torch.cat([each.grad.flatten() for each in model.parameters()])
        found.append((batch, logps, gradient))
    (apart, logps, gradient), (joined, joined_logps, joined_gradient) = found
    torch.testing.assert_close(joined_logps, logps, rtol=0, atol=1e-10)
    # The model normalises in float32 whatever its weights are.
    torch.testing.assert_close(joined_gradient, gradient, rtol=1e-4, atol=5e-5)
    assert gradient.abs().max() > 1
    assert joined.path_digests == apart.path_digests
    assert joined.path_tree.tolist() == apart.path_tree.tolist()
    assert joined.labels["reward"].tolist() == apart.labels["reward"].tolist()
    assert joined.columns["margin"].tolist() == apart.columns["margin"].tolist()
    n_tokens = [int((batch.enter >= 0).sum()) for batch, *_ in found]
    # 32 tokens for the family in place of 25 + 28 + 26, and 24 for the other tree.
    assert n_tokens == [25 + 28 + 26 + 24, 32 + 24]


def grow(drawn):
    trees = []
    for number, (length, replies) in enumerate(drawn):
        context = PROMPT[:length]
        trees.append(pair(str(number), context, *(tuple(reply) for reply in replies)))
    return trees


forests = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.lists(st.lists(st.integers(10, 14), min_size=1, max_size=4), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(forests, st.integers(6, 60))
def test_any_trees_are_batched_once_each_with_their_own_paths(drawn, budget):
    trees = grow(drawn)
    by_id = {tree.id: tree for tree in trees}
    seen = []
    for batch in StepCollator("shared", 0, budget).batch_rows(trees):
        seen += batch.tree_ids
        paths = [by_id[id].path(i) for id in batch.tree_ids for i in range(by_id[id].n_paths)]
        assert batch.path_digests == tuple(path.digest for path in paths)
        for index, path in enumerate(paths):
            slots = batch.entry_slot[batch.entry_path == index]
            own = [token for token, scored in zip(path.ids, path.scored, strict=True) if scored]
            assert batch.target[slots].tolist() == own
    assert sorted(seen, key=int) == [tree.id for tree in trees]
