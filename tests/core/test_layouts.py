import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from trillium.errors import ShapeError
from trillium.layouts import collate
from trillium.tree_batch import TreeBatch
from trillium.trees import Layout, Node, TokenPath, TokenTree

PAD = 99
LAYOUTS: tuple[Layout, ...] = ("padded", "shared", "packed")


def list_paths(trees: list[TokenTree]) -> list[TokenPath]:
    return [tree.path(index) for tree in trees for index in range(tree.n_paths)]


def collate_all(trees: list[TokenTree]) -> dict[Layout, TreeBatch]:
    widest = max(*(tree.n_tokens for tree in trees), *(len(path.ids) for path in list_paths(trees)))
    return {
        layout: collate(trees, layout=layout, pad_id=PAD, row_tokens=2 * widest)
        for layout in LAYOUTS
    }


# Plain values, built into trees inside the test: runtime type checks draw random numbers, which a
# strategy must not do.
Drawn = tuple[list[tuple[int, list[tuple[int, bool]]]], list[int]]
runs = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=4)
forests = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 9), runs), max_size=6),
        st.lists(st.integers(0, 9), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=5,
)


def grow(drawn: list[Drawn]) -> list[TokenTree]:
    """Build any legal trees: nodes in any order, siblings alike, paths that end at inner nodes."""
    trees = []
    for number, (branches, ends) in enumerate(drawn):
        nodes = [Node((7,), (False,), -1)]
        for parent, run in branches:
            ids, scored = zip(*run, strict=True)
            nodes.append(Node(ids, scored, parent % len(nodes)))
        leaves = tuple(end % len(nodes) for end in ends)
        labels = {"reward": tuple(float(leaf) for leaf in leaves)}
        columns = {"margin": float(len(nodes))}
        trees.append(TokenTree(str(number), tuple(nodes), leaves, labels, columns))
    return trees


def rebuild_path(batch: TreeBatch, row: int, last: int) -> list[tuple[int, int, int]]:
    """Return (position, id, flat index) of every token that the token at (row, last) may attend."""
    mask = batch.attention_mask()
    n_columns = batch.input_ids.shape[1]
    seen = torch.arange(n_columns) <= last if mask is None else mask[row, 0, last]
    columns = seen.nonzero().flatten().tolist()
    return sorted(
        (
            int(batch.position_ids[row, column]),
            int(batch.input_ids[row, column]),
            row * n_columns + column,
        )
        for column in columns
    )


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(forests)
def test_every_layout_describes_the_same_scored_paths(drawn: list[Drawn]) -> None:
    """Read each path back from the batch: what predicts a scored token attends its whole prefix."""
    trees = grow(drawn)
    paths = list_paths(trees)
    for batch in collate_all(trees).values():
        n_columns = batch.input_ids.shape[1]
        for index, path in enumerate(paths):
            slots = batch.entry_slot[batch.entry_path == index]
            where = [i for i, scored in enumerate(path.scored) if scored]
            assert batch.target[slots].tolist() == [path.ids[i] for i in where]
            for slot, position in zip(slots.tolist(), where, strict=True):
                row, column = divmod(int(batch.predictor[slot]), n_columns)
                prefix = rebuild_path(batch, row, column)
                assert [entry[0] for entry in prefix] == list(range(position))
                assert [entry[1] for entry in prefix] == list(path.ids[:position])


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(forests)
def test_layouts_agree_on_everything_per_path_and_per_tree(drawn: list[Drawn]) -> None:
    trees = grow(drawn)
    batches = collate_all(trees)
    digests = tuple(path.digest for path in list_paths(trees))
    path_tree = [index for index, tree in enumerate(trees) for _ in range(tree.n_paths)]
    for batch in batches.values():
        assert batch.path_digests == digests
        assert batch.path_tree.tolist() == path_tree
        assert batch.n_paths == len(path_tree)
        assert batch.n_trees == len(trees)
        assert batch.labels["reward"].tolist() == [v for t in trees for v in t.labels["reward"]]
        assert batch.columns["margin"].tolist() == [t.columns["margin"] for t in trees]
    n_node_slots = sum(sum(node.scored) for tree in trees for node in tree.nodes)
    assert len(batches["shared"].target) == len(batches["packed"].target) == n_node_slots
    assert len(batches["padded"].target) == sum(path.n_scored for path in list_paths(trees))


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(forests, st.sampled_from(["shared", "packed"]))
def test_mask_is_ancestor_or_self_by_brute_force(drawn: list[Drawn], layout: Layout) -> None:
    batch = collate_all(grow(drawn))[layout]
    mask = batch.attention_mask()
    assert mask is not None
    for row in range(mask.shape[0]):
        # A token is named by its node's interval and its position; ancestors contain the interval.
        owners = list(zip(batch.enter[row].tolist(), batch.position_ids[row].tolist(), strict=True))
        parent_of = _parents(batch.enter[row], batch.leave[row])
        for query, (node, position) in enumerate(owners):
            line = _ancestors(node, parent_of)
            expected = [
                query == key
                or (node >= 0 and other in line and (other != node or where <= position))
                for key, (other, where) in enumerate(owners)
            ]
            assert mask[row, 0, query].tolist() == expected


def _parents(enter: Tensor, leave: Tensor) -> dict[int, int]:
    """Return the innermost interval around each node's, by trying all."""
    spans = {(a, b) for a, b in zip(enter.tolist(), leave.tolist(), strict=True) if a >= 0}
    parents = {}
    for start, stop in spans:
        around = [s for s in spans if s[0] < start and stop <= s[1]]
        parents[start] = max(around)[0] if around else -1
    return parents


def _ancestors(node: int, parent_of: dict[int, int]) -> set[int]:
    line = set()
    while node >= 0:
        line.add(node)
        node = parent_of[node]
    return line


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(forests)
def test_packed_rows_keep_the_budget_and_hold_every_tree_once(drawn: list[Drawn]) -> None:
    trees = grow(drawn)
    budget = max(tree.n_tokens for tree in trees) + 3
    batch = collate(trees, layout="packed", pad_id=PAD, row_tokens=budget)

    used = (batch.enter >= 0).sum(dim=1)
    assert int(used.max()) <= budget
    assert int(used.sum()) == sum(tree.n_tokens for tree in trees)
    # First fit: no two rows could have been one.
    assert all(int(a + b) > budget for i, a in enumerate(used) for b in used[i + 1 :])


def pair(id: str, prompt: int, chosen: int, rejected: int) -> TokenTree:
    context = tuple(range(1, prompt + 1))
    return TokenTree.from_paths(
        id,
        [
            TokenPath(context + (first,) * count, (False,) * prompt + (True,) * count)
            for first, count in ((50, chosen), (60, rejected))
        ],
    )


def test_shared_row_lays_a_pair_out_depth_first() -> None:
    batch = collate([pair("a", 3, 2, 1)], layout="shared", pad_id=PAD)

    assert batch.input_ids.tolist() == [[1, 2, 3, 50, 50, 60]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch.enter.tolist() == [[0, 0, 0, 1, 1, 2]]
    assert batch.leave.tolist() == [[3, 3, 3, 2, 2, 3]]
    assert batch.predictor.tolist() == [2, 3, 2]
    assert batch.target.tolist() == [50, 50, 60]
    assert batch.entry_slot.tolist() == [0, 1, 2]
    assert batch.entry_path.tolist() == [0, 0, 1]


def test_padded_rows_hold_one_path_each_and_need_no_mask() -> None:
    batch = collate([pair("a", 2, 2, 1)], layout="padded", pad_id=PAD)

    assert batch.input_ids.tolist() == [[1, 2, 50, 50], [1, 2, 60, PAD]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0]]
    assert batch.enter.tolist() == [[0, 0, 0, 0], [0, 0, 0, -1]]
    assert batch.predictor.tolist() == [1, 2, 5]
    assert batch.attention_mask() is None


def test_packing_is_first_fit_decreasing_with_ties_in_order() -> None:
    trees = [pair("small", 1, 1, 1), pair("big", 4, 2, 2), pair("twin", 1, 1, 1)]

    batch = collate(trees, layout="packed", pad_id=PAD, row_tokens=11)

    assert batch.tree_ids == ("small", "big", "twin")
    assert batch.input_ids.tolist() == [
        [1, 2, 3, 4, 50, 50, 60, 60, 1, 50, 60],
        [1, 50, 60, PAD, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
    ]


def test_paths_through_a_shared_scored_token_both_count_its_slot() -> None:
    paths = [TokenPath((1, 5, 6), (False, True, True)), TokenPath((1, 5, 7), (False, True, True))]

    batch = collate([TokenTree.from_paths("a", paths)], layout="shared", pad_id=PAD)

    assert batch.target.tolist() == [5, 6, 7]
    assert batch.entry_slot.tolist() == [0, 1, 0, 2]
    assert batch.entry_path.tolist() == [0, 0, 1, 1]


def test_path_without_scored_tokens_has_no_entries() -> None:
    batch = collate(
        [TokenTree("a", (Node((1, 2), (False, False), -1),), (0,))], layout="shared", pad_id=PAD
    )

    assert batch.n_paths == 1
    assert batch.entry_path.numel() == 0


def test_a_batch_moves_to_another_device_whole() -> None:
    batch = collate([pair("a", 2, 1, 1)], layout="shared", pad_id=PAD).to("meta")

    tensors = [value for value in vars(batch).values() if isinstance(value, Tensor)]
    assert len(tensors) == 9
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_packed_without_a_budget_is_refused() -> None:
    with pytest.raises(ShapeError, match="packed has no row_tokens"):
        collate([pair("a", 2, 1, 1)], layout="packed", pad_id=PAD)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tree_longer_than_a_row_is_named(layout: Layout) -> None:
    with pytest.raises(ShapeError, match=rf"tree long needs .* tokens in layout {layout}"):
        collate([pair("a", 2, 1, 1), pair("long", 9, 9, 9)], layout=layout, pad_id=0, row_tokens=8)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match="no tree"):
        collate([], layout="padded", pad_id=PAD)


def test_trees_that_disagree_on_labels_are_refused() -> None:
    labelled = TokenTree("b", pair("b", 2, 1, 1).nodes, (1, 2), {"reward": (0.0, 1.0)})

    with pytest.raises(ShapeError, match=r"tree b has labels \['reward'\], tree a has \[\]"):
        collate([pair("a", 2, 1, 1), labelled], layout="shared", pad_id=PAD)
