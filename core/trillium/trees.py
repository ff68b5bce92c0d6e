"""The one idea: a preference is a token tree.

A root holds the context, every node is a run of tokens with a mask of what the policy wrote, and a
leaf ends a response. Pairs, rankings, single labels, steps, tool trajectories and search trees are
all this. Nothing here knows templates, models or losses; `layouts.collate` turns trees into tensors.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from trillium.errors import DataError


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
        """Name the path by content: sha256 over its token ids and mask, whatever the layout."""
        text = ",".join(map(str, self.ids)) + "|" + "".join("01"[s] for s in self.scored)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TokenTree:
    """Hold one preference sample: shared prefixes once, one leaf per response.

    Parents come before children and node 0 is the root. `leaves[p]` is the node that ends path p, in
    the order the objective expects (a pair: chosen, rejected). `labels` hold one value per path,
    `columns` one value per tree.
    """

    id: str
    nodes: tuple[Node, ...]
    leaves: tuple[int, ...]
    labels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    columns: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_paths(
        cls,
        id: str,
        paths: Sequence[TokenPath],
        labels: Mapping[str, tuple[float, ...]] | None = None,
        columns: Mapping[str, float] | None = None,
    ) -> "TokenTree":
        """Merge the common prefixes of `paths` into a radix tree over (token, scored) pairs.

        Prefixes merge beyond the prompt too: two completions that start alike share that run. A path
        that is a prefix of another ends at an inner node. Raises DataError when there is no path, a
        path is empty, the paths differ in their first token, or a label has not one value per path.
        """
        _check_paths(id, paths, labels or {})
        nodes: list[Node] = []
        leaves = [-1] * len(paths)
        _grow(nodes, leaves, paths, list(range(len(paths))), start=0, parent=-1)
        return cls(id, tuple(nodes), tuple(leaves), labels or {}, columns or {})

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


def _check_paths(
    id: str, paths: Sequence[TokenPath], labels: Mapping[str, tuple[float, ...]]
) -> None:
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
    for name, values in labels.items():
        if len(values) != len(paths):
            raise DataError(
                f'tree {id}: label "{name}" has {len(values)} values for {len(paths)} paths; '
                "give one per path"
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
    shortest = min(len(path.ids) for path in paths)
    first = paths[0]
    stop = start
    while stop < shortest and all(
        path.ids[stop] == first.ids[stop] and path.scored[stop] == first.scored[stop]
        for path in paths
    ):
        stop += 1
    return stop
