import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trillium.errors import DataError
from trillium.trees import Node, TokenPath, TokenTree


def path(ids: list[int], n_context: int = 1) -> TokenPath:
    return TokenPath(tuple(ids), tuple(index >= n_context for index in range(len(ids))))


def test_common_prefix_becomes_the_root() -> None:
    tree = TokenTree.from_paths("a", [path([1, 2, 3], 2), path([1, 2, 4, 5], 2)])

    assert tree.nodes == (
        Node((1, 2), (False, False), -1),
        Node((3,), (True,), 0),
        Node((4, 5), (True, True), 0),
    )
    assert tree.leaves == (1, 2)
    assert (tree.n_paths, tree.n_tokens, tree.n_path_tokens) == (2, 5, 7)


def test_completions_that_start_alike_share_scored_tokens() -> None:
    tree = TokenTree.from_paths("a", [path([1, 7, 7, 3]), path([1, 7, 7, 4])])

    assert tree.nodes[0] == Node((1, 7, 7), (False, True, True), -1)
    assert tree.path(0).n_scored == tree.path(1).n_scored == 3


def test_equal_tokens_with_different_masks_are_not_shared() -> None:
    scored = TokenPath((1, 2, 3), (False, True, True))
    context = TokenPath((1, 2, 3), (False, False, True))

    tree = TokenTree.from_paths("a", [scored, context])

    assert tree.nodes[0].ids == (1,)
    assert [tree.path(index) for index in range(2)] == [scored, context]


def test_a_path_that_is_a_prefix_ends_at_an_inner_node() -> None:
    tree = TokenTree.from_paths("a", [path([1, 2, 3, 4]), path([1, 2])])

    assert tree.leaves == (1, 0)
    assert tree.nodes[0].ids == (1, 2)
    assert tree.path(1) == path([1, 2])


def test_identical_paths_end_at_the_same_node() -> None:
    tree = TokenTree.from_paths("a", [path([1, 2]), path([1, 2])])

    assert tree.leaves == (0, 0)
    assert len(tree.nodes) == 1


tails = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=6)


@pytest.mark.property
@given(st.lists(tails, min_size=1, max_size=6))
def test_every_path_is_kept_and_no_prefix_is_stored_twice(
    drawn: list[list[tuple[int, bool]]],
) -> None:
    paths = [
        TokenPath((9, *(token for token, _ in tail)), (False, *(scored for _, scored in tail)))
        for tail in drawn
    ]
    tree = TokenTree.from_paths("a", paths)

    assert [tree.path(index) for index in range(tree.n_paths)] == paths
    assert tree.n_path_tokens == sum(len(path.ids) for path in paths)
    prefixes = {
        tuple(zip(path.ids[:stop], path.scored[:stop], strict=True))
        for path in paths
        for stop in range(1, len(path.ids) + 1)
    }
    assert tree.n_tokens == len(prefixes)


def test_digest_is_a_function_of_ids_and_mask_alone() -> None:
    shared = TokenTree.from_paths("a", [path([1, 2, 3]), path([1, 2, 4])])
    alone = TokenTree.from_paths("b", [path([1, 2, 3])])

    assert shared.path(0).digest == alone.path(0).digest
    assert shared.path(0).digest != shared.path(1).digest
    assert path([1, 2, 3], 1).digest != path([1, 2, 3], 2).digest
    # sha256 of three little-endian int64 and three mask bytes
    assert path([1, 2, 3]).digest.startswith("88003fbc027ab167")


def test_trees_survive_pickling() -> None:
    tree = TokenTree.from_paths("a", [path([1, 2])], {"reward": (1.0,)}, {"margin": 2.0})

    assert pickle.loads(pickle.dumps(tree)) == tree


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no path"),
        ([TokenPath((), ())], "0 tokens and 0 mask entries"),
        ([TokenPath((1, 2), (False,))], "2 tokens and 1 mask entries"),
        ([path([1, 2]), path([3, 2])], "path 1 starts with another token"),
        ([path([1, 2], 0)], "the first token is scored"),
    ],
)
def test_paths_that_make_no_tree_are_refused(paths: list[TokenPath], message: str) -> None:
    with pytest.raises(DataError, match=f"tree a: {message}|tree a: path 0 has {message}"):
        TokenTree.from_paths("a", paths)


@pytest.mark.parametrize(
    ("nodes", "leaves", "message"),
    [
        ((), (0,), "0 nodes and 1 paths"),
        ((Node((1,), (False,), -1),), (), "1 nodes and 0 paths"),
        ((Node((1,), (False,), -1), Node((), (), 0)), (1,), "node 1 has 0 tokens"),
        ((Node((1,), (False,), -1), Node((2,), (True,), 1)), (1,), "node 1 has parent 1"),
        ((Node((1,), (False,), 0),), (0,), "node 0 has parent 0"),
        ((Node((1,), (False,), -1),), (1,), "a node that is not there"),
    ],
)
def test_nodes_that_make_no_tree_are_refused(
    nodes: tuple[Node, ...], leaves: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        TokenTree("a", nodes, leaves)


def test_a_label_needs_one_value_per_path() -> None:
    with pytest.raises(DataError, match='tree a: label "reward" has 1 values for 2 paths'):
        TokenTree.from_paths("a", [path([1, 2]), path([1, 3])], {"reward": (1.0,)})
