"""From finished search trees to what objectives learn from: pairs, lists, labels, paths.

A prefix is context and a step is a leaf; what ends a turn is left out of a leaf unless the
trajectory ends there. Pure functions. Trees of one problem stand together, so that a trainer that
keeps their order computes their common prefixes once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from trillium.trees import TokenPath, TokenTree

from trillium_math.agent.steps import strip_end
from trillium_math.search.config import HarvestConfig
from trillium_math.search.puct import smoothing
from trillium_math.search.record import SearchTree

TreeForm = Literal["pairs", "lists", "labels", "paths", "trajectories"]
Harvester = Callable[[SearchTree, HarvestConfig, frozenset[int]], list[TokenTree]]


def harvest_pairs(
    tree: SearchTree, config: HarvestConfig, end_ids: frozenset[int]
) -> list[TokenTree]:
    """Return best against worst child of each node, with `label_smoothing` from their visits.

    Best and worst are those of Q (arXiv 2405.00451, Section 2.3), at equal Q the more visited one
    is better. Reading: the released code sorts by visits first, where one lucky sample that was
    never looked at again would lose against a step that was often seen to fail.
    """
    pairs = []
    for node in _parents(tree, config):
        ranked = sorted(
            tree.children[node], key=lambda i: (tree.nodes[i].q, tree.nodes[i].n), reverse=True
        )
        best, worst = ranked[0], ranked[-1]
        leaves = [_leaf(tree, index, end_ids) for index in (best, worst)]
        gap = tree.nodes[best].q - tree.nodes[worst].q
        if gap <= 0 or gap < config.min_gap or not all(leaves) or leaves[0] == leaves[1]:
            continue
        alpha = smoothing(tree.nodes[best].n, tree.nodes[worst].n)
        paths = [_step_path(tree, node, leaf) for leaf in leaves]
        id = f"{tree.problem_id}#mcts/{best}>{worst}"
        pairs.append(TokenTree.from_paths(id, paths, columns={"label_smoothing": alpha}))
    return pairs[: config.max_pairs]


def harvest_lists(
    tree: SearchTree, config: HarvestConfig, end_ids: frozenset[int]
) -> list[TokenTree]:
    """Return all children of each node as a list; `label` is what each is worth, from 0 to 1."""
    lists = []
    for node in _parents(tree, config):
        found = {}
        for index in tree.children[node]:
            leaf = _leaf(tree, index, end_ids)
            if leaf and leaf not in found:
                found[leaf] = tree.worth(index)
        labels = tuple(found.values())
        if len(found) > 1 and max(labels) > min(labels):
            paths = [_step_path(tree, node, leaf) for leaf in found]
            id = f"{tree.problem_id}#mcts/{node}"
            lists.append(TokenTree.from_paths(id, paths, {"label": labels}))
    return lists[: config.max_pairs]


def harvest_labels(
    tree: SearchTree, config: HarvestConfig, end_ids: frozenset[int]
) -> list[TokenTree]:
    """Return single steps that are surely good (label 1) or surely bad (0); the rest is left."""
    rows = []
    for node in _parents(tree, config):
        for index in tree.children[node]:
            worth, leaf = tree.worth(index), _leaf(tree, index, end_ids)
            if leaf and (worth >= config.good_from or worth <= config.bad_to):
                paths = (_step_path(tree, node, leaf),)
                labels = {"label": (float(worth >= config.good_from),)}
                rows.append(TokenTree.from_paths(f"{tree.problem_id}#mcts/{index}", paths, labels))
    return rows[: config.max_pairs]


def harvest_paths(
    tree: SearchTree, config: HarvestConfig, end_ids: frozenset[int]
) -> list[TokenTree]:
    """Return the tree itself: a path per end with its steps; `label` is what the end is worth."""
    ends = tree.ends
    labels = tuple(tree.worth(index) for index in ends)
    if len(ends) < 2 or max(labels) == min(labels):
        return []
    return [
        TokenTree.from_paths(
            f"{tree.problem_id}#mcts",
            [_whole_path(tree, index) for index in ends],
            {"label": labels},
            steps=tuple(_step_counts(tree, index) for index in ends),
        )
    ]


def harvest_trajectories(
    tree: SearchTree, config: HarvestConfig, end_ids: frozenset[int]
) -> list[TokenTree]:
    """Return each end as a trajectory with its `reward`, as offline reinforcement learning reads.

    Problems whose ends are all right or all wrong are there too.
    """
    return [
        TokenTree.from_paths(
            f"{tree.problem_id}#mcts/{index}",
            (_whole_path(tree, index),),
            {"reward": (tree.nodes[index].reward or 0.0,)},
            steps=(_step_counts(tree, index),),
        )
        for index in tree.ends
    ]


HARVESTERS: dict[TreeForm, Harvester] = {
    "pairs": harvest_pairs,
    "lists": harvest_lists,
    "labels": harvest_labels,
    "paths": harvest_paths,
    "trajectories": harvest_trajectories,
}
"""What each form makes of a tree."""


def _parents(tree: SearchTree, config: HarvestConfig) -> Iterator[int]:
    """Yield nodes whose children are compared, from the root on."""
    if config.every_node:
        yield from (index for index, children in enumerate(tree.children) if children)
        return
    node = 0
    while tree.children[node]:
        yield node
        node = max(
            tree.children[node],
            key=lambda i: (tree.nodes[i].n, tree.nodes[i].q, tree.nodes[i].v, -i),
        )


def _leaf(tree: SearchTree, index: int, end_ids: frozenset[int]) -> tuple[tuple[int, bool], ...]:
    """Return the tokens of a step with their mask, up to the last one that the policy wrote."""
    node = tree.nodes[index]
    length = max((place + 1 for place, flag in enumerate(node.scored) if flag), default=0)
    ids = node.ids[:length]
    if not node.outcome:
        ids = strip_end(ids, end_ids)
    return tuple(zip(ids, node.scored[: len(ids)], strict=True))


def _step_path(tree: SearchTree, parent: int, leaf: Sequence[tuple[int, bool]]) -> TokenPath:
    context = tree.path(parent).ids
    ids, scored = zip(*leaf, strict=True)
    return TokenPath((*context, *ids), (False,) * len(context) + tuple(scored))


def _whole_path(tree: SearchTree, index: int) -> TokenPath:
    """Return a path to its last token that the policy wrote."""
    path = tree.path(index)
    length = max(place + 1 for place, flag in enumerate(path.scored) if flag)
    return TokenPath(path.ids[:length], path.scored[:length])


def _step_counts(tree: SearchTree, index: int) -> tuple[int, ...]:
    """Return the scored tokens of each step on a path."""
    return tuple(sum(tree.nodes[i].scored) for i in tree.lineage(index)[1:])
