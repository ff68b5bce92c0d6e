"""The one idea: a preference is a token tree.

A root holds the context, every node is a run of tokens with a mask of what the policy wrote, and a
leaf ends a response. Pairs, rankings, single labels, steps, tool trajectories and search trees are
all this. Nothing here knows templates, models, losses or tensors; `layouts.collate` turns trees
into a `TreeBatch`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trillium.errors import DataError

Layout = Literal["padded", "shared", "packed"]


@dataclass(frozen=True)
class Node:
    """Hold a run of tokens that every path below shares."""

    ids: tuple[int, ...]
    scored: tuple[bool, ...]
    parent: int


@dataclass(frozen=True)
class TokenPath:
    """Hold one sequence from the first context token to the end of a response.

    `scored[i]` says that the policy wrote token i, so that its log-probability counts.
    """

    ids: tuple[int, ...]
    scored: tuple[bool, ...]

    @property
    def n_scored(self) -> int:
        """Count the tokens whose log-probability enters the path's sum."""
        return sum(self.scored)

    @cached_property
    def digest(self) -> str:
        """Name the path by content, whatever tree or layout it sits in."""
        return path_digest(np.array(self.ids, np.int64), np.array(self.scored, np.bool_))


@dataclass(frozen=True)
class TokenTree:
    """Hold one preference sample: shared prefixes once, one leaf per response.

    Parents come before children and node 0 is the root. `leaves[p]` is the node that ends path p,
    in the order the objective expects (a pair: chosen, rejected). `labels` hold one value per path,
    `columns` one value per tree. `steps` cut the scored tokens of each path into runs, by count:
    the steps of a search, or prompt and reply; empty where paths have no parts.
    """

    id: str
    nodes: tuple[Node, ...]
    leaves: tuple[int, ...]
    labels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    columns: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        """Raise DataError when the nodes are no tree or a label has not one value per path."""
        _check_tree(self)

    @classmethod
    def from_paths(
        cls,
        id: str,
        paths: Sequence[TokenPath],
        labels: Mapping[str, tuple[float, ...]] | None = None,
        columns: Mapping[str, float] | None = None,
        steps: tuple[tuple[int, ...], ...] = (),
    ) -> "TokenTree":
        """Merge the common prefixes of `paths` into a radix tree over (token, scored) pairs.

        Prefixes merge beyond the prompt too: two completions that start alike share that run. A
        path that is a prefix of another ends at an inner node. Raises DataError when there is no
        path, a path is empty, or the paths differ in their first token.
        """
        _check_paths(id, paths)
        nodes: list[Node] = []
        leaves = [-1] * len(paths)
        _grow(nodes, leaves, paths, list(range(len(paths))), start=0, parent=-1)
        return cls(id, tuple(nodes), tuple(leaves), labels or {}, columns or {}, steps)

    @property
    def n_paths(self) -> int:
        """Count the responses."""
        return len(self.leaves)

    @cached_property
    def n_tokens(self) -> int:
        """Count the tokens a shared layout computes."""
        return sum(len(node.ids) for node in self.nodes)

    @cached_property
    def n_path_tokens(self) -> int:
        """Count the tokens one row per path would compute."""
        return sum(len(self.path(index).ids) for index in range(self.n_paths))

    def lineage(self, index: int) -> tuple[int, ...]:
        """Return the nodes from the root to the end of path `index`."""
        node, line = self.leaves[index], []
        while node >= 0:
            line.append(node)
            node = self.nodes[node].parent
        return tuple(reversed(line))

    def path(self, index: int) -> TokenPath:
        """Return path `index` as one sequence."""
        ids: list[int] = []
        scored: list[bool] = []
        for node in self.lineage(index):
            ids.extend(self.nodes[node].ids)
            scored.extend(self.nodes[node].scored)
        return TokenPath(tuple(ids), tuple(scored))


def path_digest(ids: NDArray[np.int64], scored: NDArray[np.bool_]) -> str:
    """Return sha256 over token ids (int64, little endian) and then the mask (one byte each)."""
    digest = hashlib.sha256(ids.astype("<i8").tobytes())
    digest.update(scored.astype(np.uint8).tobytes())
    return digest.hexdigest()


def _check_tree(tree: TokenTree) -> None:
    where = f"tree {tree.id}"
    if not tree.nodes or not tree.leaves:
        raise DataError(
            f"{where}: {len(tree.nodes)} nodes and {len(tree.leaves)} paths (needs at least one "
            "of each); drop the row"
        )
    for index, node in enumerate(tree.nodes):
        if not node.ids or len(node.ids) != len(node.scored):
            raise DataError(
                f"{where}: node {index} has {len(node.ids)} tokens and {len(node.scored)} mask "
                "entries (needs equal counts, at least one); leave empty nodes out"
            )
        if (node.parent != -1) if index == 0 else not 0 <= node.parent < index:
            raise DataError(
                f"{where}: node {index} has parent {node.parent} (node 0 has -1, any other an "
                "earlier node); put parents before children"
            )
    if tree.nodes[0].scored[0]:
        raise DataError(
            f"{where}: the first token is scored, but nothing predicts it; start with a context "
            "token, for example BOS"
        )
    if not all(0 <= leaf < len(tree.nodes) for leaf in tree.leaves):
        raise DataError(
            f"{where}: leaves {tree.leaves} name a node that is not there "
            f"({len(tree.nodes)} nodes); correct the leaves"
        )
    for name, values in tree.labels.items():
        if len(values) != tree.n_paths:
            raise DataError(
                f'{where}: label "{name}" has {len(values)} values for {tree.n_paths} paths; '
                "give one per path"
            )
    if tree.steps:
        scored = [tree.path(index).n_scored for index in range(tree.n_paths)]
        if [sum(counts) for counts in tree.steps] != scored:
            raise DataError(
                f"{where}: steps {tree.steps} do not add up to the scored tokens of its paths "
                f"({scored}); give the counts of every path"
            )


def _check_paths(id: str, paths: Sequence[TokenPath]) -> None:
    if not paths:
        raise DataError(f"tree {id}: no path (needs at least one); drop the row")
    for index, path in enumerate(paths):
        if not path.ids or len(path.ids) != len(path.scored):
            raise DataError(
                f"tree {id}: path {index} has {len(path.ids)} tokens and {len(path.scored)} mask "
                "entries (needs equal counts, at least one); drop the row"
            )
        if (path.ids[0], path.scored[0]) != (paths[0].ids[0], paths[0].scored[0]):
            raise DataError(
                f"tree {id}: path {index} starts with another token than path 0 (all paths share "
                "a context); give the context at least one common token, for example BOS"
            )


def _grow(
    nodes: list[Node],
    leaves: list[int],
    paths: Sequence[TokenPath],
    members: list[int],
    *,
    start: int,
    parent: int,
) -> None:
    """Append the subtree of the paths `members`, which agree before position `start`."""
    pending = [(members, start, parent)]
    while pending:
        members, start, parent = pending.pop()
        stop = _common_stop([paths[m] for m in members], start)
        first = paths[members[0]]
        nodes.append(Node(first.ids[start:stop], first.scored[start:stop], parent))
        here = len(nodes) - 1
        branches: dict[tuple[int, bool], list[int]] = {}
        for member in members:
            path = paths[member]
            if len(path.ids) == stop:
                leaves[member] = here
            else:
                branches.setdefault((path.ids[stop], path.scored[stop]), []).append(member)
        pending.extend((branch, stop, here) for branch in reversed(branches.values()))


def _common_stop(paths: Sequence[TokenPath], start: int) -> int:
    """Return the first position from `start` on where the paths end or disagree."""
    first = paths[0]
    stop = len(first.ids)
    for path in paths[1:]:
        stop = min(stop, len(path.ids))
        # Halving compares whole slices, which is far cheaper than one token at a time.
        low = start
        while low < stop:
            middle = (low + stop + 1) // 2
            run = slice(low, middle)
            if (first.ids[run], first.scored[run]) == (path.ids[run], path.scored[run]):
                low = middle
            else:
                stop = middle - 1
    return stop
