"""From trees to one micro step: row batches that fit a token budget, and the counts they share.

Cutting a step into row batches is a matter of memory and speed alone. Everything that a loss is
divided by is counted over the whole optimizer batch, never over a row batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from trillium.families import find_families, fit_families, merge_trees
from trillium.layouts import collate
from trillium.tree_batch import TreeBatch
from trillium.trees import Layout, TokenTree

# Tokens in memory at once. On a processor small batches are faster and lighter: no row is padded.
MICRO_TOKENS = {"cpu": 512, "cuda": 16384}


@dataclass(frozen=True)
class Sample:
    """Hold one tree to train on and, for KTO, the same prompt with another prompt's response."""

    tree: TokenTree
    mismatched: TokenTree | None = None


@dataclass(frozen=True)
class StepBatch:
    """Hold the trees of one micro step on one process, cut into row batches.

    `path_tokens` counts the scored tokens of each tree's first path, second path, and so on. There
    may be no tree in the ragged last step of a distributed epoch.
    """

    rows: tuple[TreeBatch, ...]
    mismatched: tuple[TreeBatch, ...]
    n_trees: int
    n_tokens: int
    path_tokens: tuple[int, ...]


@dataclass(frozen=True)
class StepCollator:
    """Turn samples into a `StepBatch`; picklable, so that loader workers can run it.

    The scored tokens of the first `n_counted` paths of each tree are counted over the step. Trees
    that begin alike are computed as one, unless the layout is padded or `joins_families` is false.
    """

    layout: Layout
    pad_id: int
    micro_tokens: int
    n_counted: int = 1
    joins_families: bool = True

    def __call__(self, samples: Sequence[Sample]) -> StepBatch:
        """Collate the samples of one micro step."""
        trees = [sample.tree for sample in samples]
        mismatched = [sample.mismatched for sample in samples if sample.mismatched is not None]
        return StepBatch(
            rows=tuple(self.batch_rows(trees)),
            mismatched=tuple(self.batch_rows(mismatched)),
            n_trees=len(trees),
            n_tokens=sum(tree.n_tokens for tree in trees),
            path_tokens=self._count_paths(trees),
        )

    def _count_paths(self, trees: Sequence[TokenTree]) -> tuple[int, ...]:
        """Count the scored tokens of the paths that are normalised over a whole step."""
        return tuple(
            sum(tree.path(index).n_scored for tree in trees if index < tree.n_paths)
            for index in range(self.n_counted)
        )

    def batch_rows(self, trees: Sequence[TokenTree]) -> Iterator[TreeBatch]:
        """Yield trees, longest first, in batches of at most `micro_tokens` tokens with padding.

        A tree that exceeds the budget alone becomes a batch of its own.
        """
        groups: list[list[_Family]] = []
        for family in sorted(self._families(trees), key=lambda family: -family.longest_row):
            if groups and self._cost([*groups[-1], family]) <= self.micro_tokens:
                groups[-1].append(family)
            else:
                groups.append([family])
        yield from map(self._collate, groups)

    def _families(self, trees: Sequence[TokenTree]) -> list["_Family"]:
        """Group what is computed together, each group within the budget."""
        if self.layout == "padded" or not self.joins_families:
            return [
                _Family((tree,), tree.n_tokens, row_tokens(tree, self.layout)) for tree in trees
            ]
        families = []
        for part in fit_families(trees, find_families(trees), self.micro_tokens):
            members = tuple(trees[index] for index in part)
            size = merge_trees(members).n_tokens
            families.append(_Family(members, size, size))
        return families

    def _cost(self, families: Sequence["_Family"]) -> int:
        """Count the tokens, padding included, that one batch of `families` computes."""
        if self.layout == "packed":
            return sum(family.n_tokens for family in families)
        n_rows = len(families)
        if self.layout == "padded":
            n_rows = sum(tree.n_paths for family in families for tree in family.trees)
        return n_rows * max(family.longest_row for family in families)

    def _collate(self, families: Sequence["_Family"]) -> TreeBatch:
        trees = [tree for family in families for tree in family.trees]
        ends = list(accumulate(len(family.trees) for family in families))
        limit = max(self.micro_tokens, *(family.n_tokens for family in families))
        return collate(
            trees,
            layout=self.layout,
            pad_id=self.pad_id,
            row_tokens=limit if self.layout == "packed" else None,
            families=[list(range(start, end)) for start, end in pairwise([0, *ends])],
        )


@dataclass(frozen=True)
class _Family:
    """Hold trees that are computed as one, and what that costs: its tokens, its longest row."""

    trees: tuple[TokenTree, ...]
    n_tokens: int
    longest_row: int


def row_tokens(tree: TokenTree, layout: Layout) -> int:
    """Return the length of the longest row that a tree needs."""
    if layout == "padded":
        return max(len(tree.path(index).ids) for index in range(tree.n_paths))
    return tree.n_tokens
