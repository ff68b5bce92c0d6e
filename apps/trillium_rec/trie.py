"""The prefixes of semantic ids as tensors: which codes may follow, and which item a leaf is.

Nodes of a level are its distinct prefixes in lexicographic order, so the children of a node stand
side by side on the next level. The first two levels have a dense table from (node, code) to child;
below, children are found by their range (compressed rows), which costs memory for real nodes only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor
from trillium.errors import DataError

from trillium_rec.semantic_ids import SemanticIds

Ints = NDArray[np.int64]
_DENSE_LEVELS = 2
_MOST_DENSE_CELLS = 50_000_000
NO_NODE = -1


@dataclass(frozen=True)
class Children:
    """Hold the children of some nodes side by side, node -1 where there is none.

    `codes` leads to each child; None means that child c is reached by code c.
    """

    nodes: Int[Tensor, "user beam child"]
    codes: Int[Tensor, "user beam child"] | None


@dataclass(frozen=True)
class Level:
    """Hold the children of the nodes at one depth.

    Children of node n are first[n] to first[n + 1] - 1 at the next depth; `codes` and `parents`
    hold the code that leads to each child and where it comes from. `width` counts the children of
    the largest node.
    """

    first: Int[Tensor, " node_and_end"]
    codes: Int[Tensor, " child"]
    parents: Int[Tensor, " child"]
    width: int
    table: Int[Tensor, "node code"] | None

    def to(self, device: torch.device) -> "Level":
        """Return the same level on `device`."""
        table = None if self.table is None else self.table.to(device)
        first, codes, parents = (x.to(device) for x in (self.first, self.codes, self.parents))
        return Level(first, codes, parents, self.width, table)

    def children(self, nodes: Int[Tensor, "user beam"]) -> Children:
        """Return the children of nodes; -1 (no node) has none."""
        at = nodes.clamp(min=0)
        is_node = (nodes >= 0)[..., None]
        if self.table is not None:
            return Children(self.table[at].masked_fill(~is_node, NO_NODE), None)
        child = self.first[at][..., None] + torch.arange(self.width, device=nodes.device)
        is_child = (child < self.first[at + 1][..., None]) & is_node
        codes = self.codes[child.clamp(max=len(self.codes) - 1)]
        return Children(child.masked_fill(~is_child, NO_NODE), codes)

    def places(self, children: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """Return where each child stands among the children of its parent."""
        if self.table is not None:
            return self.codes[children]
        return children - self.first[self.parents[children]]


@dataclass(frozen=True)
class Trie:
    """Hold all levels; a node of the last depth is an item.

    `ancestors[d]` maps an item to its node at depth d + 1.
    """

    levels: tuple[Level, ...]
    item_of_leaf: Int[Tensor, " leaf"]
    ancestors: tuple[Int[Tensor, " item"], ...]

    @classmethod
    def build(cls, ids: SemanticIds) -> "Trie":
        """Build from ids; raises DataError when two items have the same codes."""
        codes = ids.codes
        order = np.lexsort(codes.T[::-1])
        ordered = codes[order]
        parent = np.zeros(len(ordered), np.int64)
        levels, ancestors = [], []
        for depth, size in enumerate(ids.sizes):
            changes = np.ones(len(ordered), np.bool_)
            changes[1:] = (np.diff(parent) != 0) | (np.diff(ordered[:, depth]) != 0)
            node = np.cumsum(changes) - 1
            parents = parent[changes]
            n_parents = int(parent[-1]) + 1
            levels.append(_level(parents, ordered[changes, depth], n_parents, size, depth))
            of_item = np.empty(len(order), np.int64)
            of_item[order] = node
            ancestors.append(torch.from_numpy(of_item))
            parent = node
        if int(parent[-1]) + 1 != len(ordered):
            raise DataError(
                f"trie: {len(ordered)} items have {int(parent[-1]) + 1} different ids (every item "
                "needs its own); fit ids, which tells items apart"
            )
        return cls(tuple(levels), torch.from_numpy(order.astype(np.int64)), tuple(ancestors))

    def to(self, device: torch.device) -> "Trie":
        """Return the same trie on `device`: that of the model whose codes are searched."""
        return Trie(
            tuple(level.to(device) for level in self.levels),
            self.item_of_leaf.to(device),
            tuple(nodes.to(device) for nodes in self.ancestors),
        )

    @property
    def n_items(self) -> int:
        """Count the items."""
        return len(self.item_of_leaf)

    def count_leaves(self, is_eligible: Bool[Tensor, " item"]) -> tuple[Int[Tensor, " node"], ...]:
        """Return how many eligible items lie below each node, by depth from 1."""
        return tuple(
            torch.bincount(nodes[is_eligible], minlength=len(level.codes))
            for nodes, level in zip(self.ancestors, self.levels, strict=True)
        )


def _level(parents: Ints, codes: Ints, n_parents: int, size: int, depth: int) -> Level:
    counts = np.bincount(parents, minlength=n_parents)
    first = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
    table = None
    if depth < _DENSE_LEVELS and n_parents * size <= _MOST_DENSE_CELLS:
        dense = np.full((n_parents, size), NO_NODE, np.int64)
        dense[parents, codes] = np.arange(len(codes))
        table = torch.from_numpy(dense)
    return Level(
        torch.from_numpy(first),
        torch.from_numpy(codes.copy()),
        torch.from_numpy(parents.copy()),
        int(counts.max()),
        table,
    )
