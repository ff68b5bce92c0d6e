"""Turn token trees into a `TreeBatch`: padded, shared or packed.

The three layouts describe the same paths and differ only in where a token sits. Everything after
the flattening of the trees is array arithmetic: segments (a node, or a node of one path) are placed
in rows, and tokens, slots and entries follow from the segments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trillium.errors import ShapeError
from trillium.families import merge_trees
from trillium.tree_batch import TreeBatch
from trillium.tree_labels import stack_columns, stack_labels
from trillium.trees import Layout, TokenTree, path_digest

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]


def collate(
    trees: Sequence[TokenTree],
    *,
    layout: Layout,
    pad_id: int,
    row_tokens: int | None = None,
    families: Sequence[Sequence[int]] | None = None,
) -> TreeBatch:
    """Arrange `trees` in rows; trees and paths keep the caller's order in every layout.

    `padded`: a row per path, padded on the right. `shared`: a row per tree, its nodes depth first.
    `packed`: trees first-fit-decreasing into rows of at most `row_tokens`, which it requires; in
    the other layouts `row_tokens` is only the limit a row must keep. Trees of one of the
    `families`, lists of indices that name every tree once, are computed as one tree. Raises
    ShapeError when there is no tree, a row exceeds the limit, or the trees disagree on labels or
    columns.
    """
    if not trees:
        raise ShapeError("collate: no tree (needs at least one); check the data set is not empty")
    families = families or [[index] for index in range(len(trees))]
    forest = _flatten(trees, families)
    segments = _place(forest, layout, row_tokens)
    _check_limit(trees, families, forest, segments, layout, row_tokens)
    return _fill(trees, forest, segments, layout, pad_id)


@dataclass(frozen=True)
class _Forest:
    """All nodes of all trees side by side, each tree depth first; paths as lists of nodes.

    A tree here is a family; `scored` says of each token whether any path scores it, `path_scored`
    which tokens a path itself scores.
    """

    ids: _Ints
    scored: _Bools
    length: _Ints  # from here to `tree`: one value per node
    position: _Ints  # position of the node's first token in its paths
    parent: _Ints
    leave: _Ints  # one past the last node of the subtree; the node's own index is its enter
    tree: _Ints
    tree_tokens: _Ints  # one value per tree
    path_node: _Ints  # nodes from root to leaf, path after path
    path_n_nodes: _Ints  # one value per path
    path_scored: _Bools  # tokens from root to leaf, path after path
    path_tree: _Ints  # the caller's tree

    @property
    def start(self) -> _Ints:
        """Return where each node's tokens begin in `ids`."""
        return _starts(self.length)


@dataclass(frozen=True)
class _Segments:
    """Runs of tokens placed in rows, and the segments each path is made of."""

    node: _Ints
    row: _Ints
    column: _Ints
    previous: _Ints  # the segment whose last token precedes this one; -1 at a root
    path_segment: _Ints  # as _Forest.path_node, in segments


def _flatten(trees: Sequence[TokenTree], families: Sequence[Sequence[int]]) -> _Forest:
    bodies = [merge_trees([trees[index] for index in members]) for members in families]
    orders = [_preorder(body) for body in bodies]
    nodes = [body.nodes[i] for body, order in zip(bodies, orders, strict=True) for i in order]
    parent: list[int] = []
    position: list[int] = []
    lines: list[list[list[int]]] = [[] for _ in trees]
    for body, order, members in zip(bodies, orders, families, strict=True):
        place = {old: len(parent) + new for new, old in enumerate(order)}
        for old in order:
            up = body.nodes[old].parent
            parent.append(place[up] if up >= 0 else -1)
            position.append(position[place[up]] + len(body.nodes[up].ids) if up >= 0 else 0)
        paths = iter(range(body.n_paths))
        for member in members:
            for index in islice(paths, trees[member].n_paths):
                lines[member].append([place[old] for old in body.lineage(index)])
    length = _ints(len(node.ids) for node in nodes)
    node_tree = np.repeat(np.arange(len(bodies)), [len(order) for order in orders])
    paths_scored = (tree.path(index).scored for tree in trees for index in range(tree.n_paths))
    return _Forest(
        ids=_ints(chain.from_iterable(node.ids for node in nodes)),
        scored=np.fromiter(chain.from_iterable(node.scored for node in nodes), np.bool_),
        length=length,
        position=_ints(position),
        parent=_ints(parent),
        leave=_ints(_subtree_ends(parent)),
        tree=node_tree,
        tree_tokens=np.bincount(node_tree, weights=length).astype(np.int64),
        path_node=_ints(chain.from_iterable(chain.from_iterable(lines))),
        path_n_nodes=_ints(len(line) for own in lines for line in own),
        path_scored=np.fromiter(chain.from_iterable(paths_scored), np.bool_),
        path_tree=np.repeat(np.arange(len(trees)), [tree.n_paths for tree in trees]),
    )


def _subtree_ends(parent: Sequence[int]) -> list[int]:
    ends = list(range(1, len(parent) + 1))
    for index in range(len(parent) - 1, -1, -1):
        if parent[index] >= 0:
            ends[parent[index]] = max(ends[parent[index]], ends[index])
    return ends


def _preorder(tree: TokenTree) -> list[int]:
    children: list[list[int]] = [[] for _ in tree.nodes]
    for index, node in enumerate(tree.nodes[1:], start=1):
        children[node.parent].append(index)
    order, pending = [], [0]
    while pending:
        node_index = pending.pop()
        order.append(node_index)
        pending.extend(reversed(children[node_index]))
    return order


def _place(forest: _Forest, layout: Layout, row_tokens: int | None) -> _Segments:
    if layout == "padded":
        n_segments = len(forest.path_node)
        previous = np.arange(n_segments) - 1
        previous[_starts(forest.path_n_nodes)] = -1
        return _Segments(
            node=forest.path_node,
            row=np.repeat(np.arange(len(forest.path_n_nodes)), forest.path_n_nodes),
            column=forest.position[forest.path_node],
            previous=previous,
            path_segment=np.arange(n_segments),
        )
    if layout == "shared":
        tree_row = np.arange(len(forest.tree_tokens))
        tree_column = np.zeros_like(tree_row)
    else:
        tree_row, tree_column = _first_fit_decreasing(forest.tree_tokens, row_tokens)
    column_in_tree = forest.start - _starts(forest.tree_tokens)[forest.tree]
    return _Segments(
        node=np.arange(len(forest.length)),
        row=tree_row[forest.tree],
        column=tree_column[forest.tree] + column_in_tree,
        previous=forest.parent,
        path_segment=forest.path_node,
    )


def _first_fit_decreasing(sizes: _Ints, row_tokens: int | None) -> tuple[_Ints, _Ints]:
    """Return each tree's row and first column; larger trees first, equal sizes in order."""
    if row_tokens is None:
        raise ShapeError("collate: layout packed has no row_tokens; give the tokens of a row")
    free = np.full(len(sizes), row_tokens)
    row, column = np.zeros_like(sizes), np.zeros_like(sizes)
    n_rows = 0
    for tree in np.argsort(-sizes, kind="stable"):
        fits = free[:n_rows] >= sizes[tree]
        chosen = int(fits.argmax()) if fits.any() else n_rows
        n_rows = max(n_rows, chosen + 1)
        row[tree], column[tree] = chosen, row_tokens - free[chosen]
        free[chosen] -= sizes[tree]
    return row, column


def _check_limit(
    trees: Sequence[TokenTree],
    families: Sequence[Sequence[int]],
    forest: _Forest,
    segments: _Segments,
    layout: Layout,
    row_tokens: int | None,
) -> None:
    end = segments.column + forest.length[segments.node]
    if row_tokens is None or end.max() <= row_tokens:
        return
    worst = int(end.argmax())
    first = trees[families[forest.tree[segments.node[worst]]][0]]
    raise ShapeError(
        f"collate: tree {first.id} needs a row of {end[worst]} tokens in layout {layout} "
        f"(row_tokens is {row_tokens}); raise row_tokens or lower max_length"
    )


def _fill(
    trees: Sequence[TokenTree],
    forest: _Forest,
    segments: _Segments,
    layout: Layout,
    pad_id: int,
) -> TreeBatch:
    length = forest.length[segments.node]
    shape = (int(segments.row.max()) + 1, int((segments.column + length).max()))
    source = _ranges(forest.start[segments.node], length)
    begin = segments.row * shape[1] + segments.column
    flat = _ranges(begin, length)
    if layout == "padded":
        enter, leave = np.zeros_like(length), np.ones_like(length)
    else:
        enter, leave = segments.node, forest.leave[segments.node]

    last = np.where(segments.previous >= 0, (begin + length - 1)[segments.previous], -1)
    before = flat - 1
    before[_starts(length)] = last
    scored = forest.scored[source]
    n_slots = np.bincount(np.repeat(np.arange(len(length)), length)[scored], minlength=len(length))
    path_segment = segments.path_segment
    path = np.repeat(np.arange(len(forest.path_n_nodes)), forest.path_n_nodes)
    # Of the slots on its way a path takes those that it scores itself.
    is_own = forest.path_scored[forest.scored[_path_tokens(forest)]]
    entry_slot = _ranges(_starts(n_slots)[path_segment], n_slots[path_segment])[is_own]
    entry_path = np.repeat(path, n_slots[path_segment])[is_own]
    return TreeBatch(
        layout=layout,
        input_ids=_grid(shape, flat, forest.ids[source], pad_id),
        position_ids=_grid(shape, flat, _ranges(forest.position[segments.node], length), 0),
        enter=_grid(shape, flat, np.repeat(enter, length), -1),
        leave=_grid(shape, flat, np.repeat(leave, length), -1),
        predictor=torch.from_numpy(before[scored]),
        target=torch.from_numpy(forest.ids[source][scored]),
        entry_slot=torch.from_numpy(entry_slot),
        entry_path=torch.from_numpy(entry_path),
        n_paths=len(forest.path_n_nodes),
        path_tree=torch.from_numpy(forest.path_tree),
        labels=stack_labels(trees),
        columns=stack_columns(trees),
        path_digests=_digests(forest),
        tree_ids=tuple(tree.id for tree in trees),
        steps=(
            tuple(chain.from_iterable(tree.steps for tree in trees))
            if all(tree.steps for tree in trees)
            else ()
        ),
    )


def _path_tokens(forest: _Forest) -> _Ints:
    """Return the places in `ids` of each path's tokens, from root to leaf, path after path."""
    return _ranges(forest.start[forest.path_node], forest.length[forest.path_node])


def _digests(forest: _Forest) -> tuple[str, ...]:
    ids, scored = forest.ids[_path_tokens(forest)], forest.path_scored
    node_ends = np.cumsum(forest.length[forest.path_node])
    path_ends = node_ends[np.cumsum(forest.path_n_nodes) - 1].tolist()
    path_starts = [0, *path_ends[:-1]]
    return tuple(
        path_digest(ids[start:end], scored[start:end])
        for start, end in zip(path_starts, path_ends, strict=True)
    )


def _grid(shape: tuple[int, int], flat: _Ints, values: _Ints, fill: int) -> Tensor:
    grid = np.full(shape[0] * shape[1], fill, np.int64)
    grid[flat] = values
    return torch.from_numpy(grid.reshape(shape))


def _ranges(starts: _Ints, lengths: _Ints) -> _Ints:
    """Return start, start+1, ..., start+length-1 for each pair, one after the other."""
    return np.repeat(starts - _starts(lengths), lengths) + np.arange(lengths.sum())


def _starts(lengths: _Ints) -> _Ints:
    return np.cumsum(lengths) - lengths


def _ints(values: Iterable[int]) -> _Ints:
    return np.fromiter(values, np.int64)
