"""Trees that begin alike: pairs from one search tree, or several rows about one problem.

They stay separate samples with a loss each; only their common tokens are computed once. A prefix
that one tree scores may be another tree's context, so every path keeps its own mask.
"""

from collections.abc import Sequence

import numpy as np

from trillium.trees import Node, TokenPath, TokenTree

# A shared context must be at least this part of a tree: a system prompt alone is not worth it.
_WORTH_SHARING = 0.25


def find_families(trees: Sequence[TokenTree]) -> list[list[int]]:
    """Group trees, by index, of which one's context begins all the others' contexts.

    A context is what stands before the first scored token. A tree that shares too little with the
    shortest context of its group stays alone. Groups and members keep the order of the trees.
    """
    contexts = [_context(tree) for tree in trees]
    families: dict[int, list[int]] = {}
    head = -1
    # In lexicographic order everything that begins with a context follows right behind it.
    for index in sorted(range(len(trees)), key=lambda index: (contexts[index], index)):
        shared = contexts[head] if head >= 0 else ()
        is_alike = bool(shared) and contexts[index][: len(shared)] == shared
        if is_alike and len(shared) >= _WORTH_SHARING * trees[index].n_tokens:
            families[head].append(index)
        elif is_alike:
            families[index] = [index]
        else:
            head = index
            families[head] = [index]
    return sorted(sorted(members) for members in families.values())


def fit_families(
    trees: Sequence[TokenTree], families: Sequence[Sequence[int]], n_tokens: int
) -> list[list[int]]:
    """Cut each family into parts whose merged tree has at most `n_tokens` tokens, in order.

    A tree that exceeds the limit alone is a part of its own.
    """
    parts: list[list[int]] = []
    for members in families:
        part: list[int] = []
        for index in members:
            if part and _exceeds([trees[i] for i in [*part, index]], n_tokens):
                parts.append(part)
                part = []
            part.append(index)
        parts.append(part)
    return parts


def merge_trees(trees: Sequence[TokenTree]) -> TokenTree:
    """Return one tree that holds the paths of all, tree after tree; a token that any scores is one.

    Raises DataError when the trees do not begin with the same token.
    """
    if len(trees) == 1:
        return trees[0]
    paths = [tree.path(index) for tree in trees for index in range(tree.n_paths)]
    bare = [TokenPath(path.ids, (False,) * len(path.ids)) for path in paths]
    merged = TokenTree.from_paths("+".join(tree.id for tree in trees), bare)
    scored = [np.zeros(len(node.ids), np.bool_) for node in merged.nodes]
    for index, path in enumerate(paths):
        start = 0
        for node in merged.lineage(index):
            end = start + len(scored[node])
            scored[node] |= np.array(path.scored[start:end], np.bool_)
            start = end
    nodes = tuple(
        Node(node.ids, tuple(flags.tolist()), node.parent)
        for node, flags in zip(merged.nodes, scored, strict=True)
    )
    return TokenTree(merged.id, nodes, merged.leaves)


def _exceeds(trees: Sequence[TokenTree], n_tokens: int) -> bool:
    """Say whether the merged tree is larger; merging is only tried where it could decide."""
    apart = sum(tree.n_tokens for tree in trees)
    return apart > n_tokens and merge_trees(trees).n_tokens > n_tokens


def _context(tree: TokenTree) -> tuple[int, ...]:
    root = tree.nodes[0]
    length = root.scored.index(True) if True in root.scored else len(root.ids)
    return root.ids[:length]
