"""From trees to one micro step: row batches that fit a token budget, and the counts they share.

Cutting a step into row batches is a matter of memory and speed alone. Everything that a loss is
divided by is counted over the whole optimizer batch, never over a row batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trillium.layouts import collate
from trillium.trees import Layout, TokenTree, TreeBatch


@dataclass(frozen=True)
class Sample:
    """Hold one tree to train on and, for KTO, the same prompt with another prompt's response."""

    tree: TokenTree
    mismatched: TokenTree | None = None


@dataclass(frozen=True)
class StepBatch:
    """Hold the trees of one micro step on one process, cut into row batches.

    `n_chosen_tokens` counts the scored tokens of each tree's first path. All counts may be 0 in the
    ragged last step of a distributed epoch.
    """

    rows: tuple[TreeBatch, ...]
    mismatched: tuple[TreeBatch, ...]
    n_trees: int
    n_tokens: int
    n_chosen_tokens: int


@dataclass(frozen=True)
class StepCollator:
    """Turn samples into a `StepBatch`; picklable, so that loader workers can run it."""

    layout: Layout
    pad_id: int
    micro_tokens: int

    def __call__(self, samples: Sequence[Sample]) -> StepBatch:
        """Collate the samples of one micro step."""
        trees = [sample.tree for sample in samples]
        mismatched = [sample.mismatched for sample in samples if sample.mismatched is not None]
        return StepBatch(
            rows=tuple(self.batch_rows(trees)),
            mismatched=tuple(self.batch_rows(mismatched)),
            n_trees=len(trees),
            n_tokens=sum(tree.n_tokens for tree in trees),
            n_chosen_tokens=sum(tree.path(0).n_scored for tree in trees),
        )

    def batch_rows(self, trees: Sequence[TokenTree]) -> Iterator[TreeBatch]:
        """Yield trees, longest first, in batches of at most `micro_tokens` tokens with padding.

        A tree that exceeds the budget alone becomes a batch of its own.
        """
        groups: list[list[TokenTree]] = []
        for tree in sorted(trees, key=lambda tree: -row_tokens(tree, self.layout)):
            if groups and self._cost([*groups[-1], tree]) <= self.micro_tokens:
                groups[-1].append(tree)
            else:
                groups.append([tree])
        yield from map(self._collate, groups)

    def _cost(self, trees: Sequence[TokenTree]) -> int:
        """Count the tokens, padding included, that one batch of `trees` computes."""
        if self.layout == "packed":
            return sum(tree.n_tokens for tree in trees)
        n_rows = sum(tree.n_paths for tree in trees) if self.layout == "padded" else len(trees)
        return n_rows * max(row_tokens(tree, self.layout) for tree in trees)

    def _collate(self, trees: Sequence[TokenTree]) -> TreeBatch:
        limit = max(self.micro_tokens, *(tree.n_tokens for tree in trees))
        return collate(
            trees,
            layout=self.layout,
            pad_id=self.pad_id,
            row_tokens=limit if self.layout == "packed" else None,
        )


def row_tokens(tree: TokenTree, layout: Layout) -> int:
    """Return the length of the longest row that a tree needs."""
    if layout == "padded":
        return max(len(tree.path(index).ids) for index in range(tree.n_paths))
    return tree.n_tokens
