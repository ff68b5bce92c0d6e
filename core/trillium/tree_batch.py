"""Token trees as the tensors of one forward pass; `layouts.collate` makes them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trillium.trees import Layout


@dataclass(frozen=True)
class TreeBatch:
    """Hold trees as the tensors a model's forward pass consumes, in one of three layouts.

    Query i of a row may attend key j of that row when
        enter[j] <= enter[i] < leave[j]  and  position[j] <= position[i]
    where [enter, leave) is the interval of the token's node in a depth-first walk. Padding has
    enter = -1 and attends only itself.

    A slot is one scored token: of a node in `shared` and `packed`, of a path in `padded`. The
    hidden state at flat index `predictor` (row * n_columns + column) predicts its token `target`.
    Path p is the sum of a slot statistic over the entries with entry_path == p, in token order.
    `path_digests` name paths by content, so a cache serves every layout. `steps` are those of the
    trees, path by path; empty when a tree has none.
    """

    layout: Layout
    input_ids: Int[Tensor, "row token"]
    position_ids: Int[Tensor, "row token"]
    enter: Int[Tensor, "row token"]
    leave: Int[Tensor, "row token"]
    predictor: Int[Tensor, " slot"]
    target: Int[Tensor, " slot"]
    entry_slot: Int[Tensor, " entry"]
    entry_path: Int[Tensor, " entry"]
    n_paths: int
    path_tree: Int[Tensor, " path"]
    labels: Mapping[str, Float[Tensor, " path"]]
    columns: Mapping[str, Float[Tensor, " tree"]]
    path_digests: tuple[str, ...]
    tree_ids: tuple[str, ...]
    steps: tuple[tuple[int, ...], ...] = ()

    @property
    def n_trees(self) -> int:
        """Count the trees."""
        return len(self.tree_ids)

    def to(self, device: torch.device | str) -> "TreeBatch":
        """Return the same batch with every tensor on `device`."""
        moved = {key: x.to(device) for key, x in vars(self).items() if torch.is_tensor(x)}
        labels = {key: x.to(device) for key, x in self.labels.items()}
        columns = {key: x.to(device) for key, x in self.columns.items()}
        return TreeBatch(**{**vars(self), **moved, "labels": labels, "columns": columns})

    def attention_mask(
        self, *, window: int | None = None
    ) -> Bool[Tensor, "row 1 token token"] | None:
        """Return who may attend whom (True: may); None for `padded`, where causality is enough.

        Right padding comes after every real token, so a causal model needs no mask for `padded`.
        With `window`, a token looks back at most so many positions, itself included.
        """
        if self.layout == "padded":
            return None
        enter, position = self.enter, self.position_ids
        inside = (enter[:, None, :] <= enter[:, :, None]) & (
            enter[:, :, None] < self.leave[:, None, :]
        )
        back = position[:, :, None] - position[:, None, :]
        near = back >= 0 if window is None else (back >= 0) & (back < window)
        itself = torch.eye(enter.shape[1], dtype=torch.bool, device=enter.device)
        return ((inside & near) | itself)[:, None]
