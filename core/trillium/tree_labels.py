"""Labels and columns of trees as tensors; all trees of a batch have the same ones."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trillium.errors import ShapeError
from trillium.trees import TokenTree


def stack_labels(trees: Sequence[TokenTree]) -> dict[str, Float[Tensor, " path"]]:
    """Return each label, path after path; raises ShapeError when trees disagree on the names."""
    _check_same_keys(trees, [tree.labels for tree in trees], "labels")
    return {
        name: _floats(value for tree in trees for value in tree.labels[name])
        for name in trees[0].labels
    }


def stack_columns(trees: Sequence[TokenTree]) -> dict[str, Float[Tensor, " tree"]]:
    """Return each column, tree after tree; raises ShapeError when trees disagree on the names."""
    _check_same_keys(trees, [tree.columns for tree in trees], "columns")
    return {name: _floats(tree.columns[name] for tree in trees) for name in trees[0].columns}


def _check_same_keys(
    trees: Sequence[TokenTree], mappings: Iterable[Mapping[str, object]], kind: str
) -> None:
    expected = trees[0]
    names: set[str] | None = None
    for tree, mapping in zip(trees, mappings, strict=True):
        names = set(mapping) if names is None else names
        if set(mapping) != names:
            raise ShapeError(
                f"collate: tree {tree.id} has {kind} {sorted(mapping)}, tree {expected.id} has "
                f"{sorted(names)}; give every row of a data set the same fields"
            )


def _floats(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32)
