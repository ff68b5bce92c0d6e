"""FlexAttention for tree masks: on a GPU, blocks of pairs that no path joins are never computed.

A model loaded with attention `ATTENTION` computes with SDPA as long as it is given tensors as masks
or none, and with FlexAttention when it is given the `BlockMask` made here. So one model generates
the ordinary way and is scored in packed rows; a block's mask goes with it into recomputation.

Kernels are compiled once per process and serve every length: rows are filled up to whole blocks.
They exist for GPUs; on a processor the same mask is written out for SDPA, so that it can be tested.
"""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trillium.errors import BackendError
from trillium.tree_batch import TreeBatch

_MayAttend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

ATTENTION = "tree_flex"
BLOCK = 128
# Rows of blocks whose pairs are looked at together: bounds the memory of making a mask.
_BLOCK_ROWS = 8
# What some models add to their scores before the softmax.
_UNSUPPORTED = ("s_aux", "softcap", "position_bias")


def register_attention() -> str:
    """Make `ATTENTION` known to transformers; returns its name."""
    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    return ATTENTION


def block_mask(batch: TreeBatch, *, window: int | None = None) -> BlockMask:
    """Return who may attend whom in `batch`, whose rows are whole blocks long.

    The rule is that of `TreeBatch`; with `window`, a token looks back at most so many positions,
    itself included.
    """
    # The kernel reads these for every pair of a block that is not full.
    enter, leave, position = (grid.int() for grid in (batch.enter, batch.leave, batch.position_ids))

    def may_attend(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = (enter[row, key] <= enter[row, query]) & (enter[row, query] < leave[row, key])
        back = position[row, query] - position[row, key]
        near = back >= 0 if window is None else (back >= 0) & (back < window)
        return (inside & near) | (query == key)

    length = enter.shape[1]
    some, all_ = _summarise_blocks(may_attend, len(enter), length, enter.device)
    partial_counts, partial_order = _order(some & ~all_)
    full_counts, full_order = _order(all_)
    found: BlockMask = BlockMask.from_kv_blocks(
        partial_counts,
        partial_order,
        full_counts,
        full_order,
        BLOCK_SIZE=BLOCK,
        mask_mod=may_attend,
        seq_lengths=(length, length),
    )
    return found


def fill_blocks(batch: TreeBatch) -> TreeBatch:
    """Return the batch with rows of whole blocks: what is added attends itself and is not scored.

    `predictor` goes on to count columns of the rows as they were.
    """
    missing = -batch.input_ids.shape[1] % _granularity(batch.input_ids.shape[1])
    if missing == 0:
        return batch
    fill = {"input_ids": 0, "position_ids": 0, "enter": -1, "leave": -1}
    grids = {
        name: nn.functional.pad(getattr(batch, name), (0, missing), value=value)
        for name, value in fill.items()
    }
    return TreeBatch(**{**vars(batch), **grids})


def _granularity(length: int) -> int:
    """Return what row lengths are a multiple of: few lengths mean few plans of matrix products."""
    return BLOCK * max(1, length // (16 * BLOCK))


@cache
def _compiled() -> Callable[..., Tensor]:
    """Return FlexAttention's kernels, compiled at the first call, for every length at once."""
    kernel: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return kernel


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """Attend as transformers' layers ask: [row head token width] in, [row token head width] out."""
    if isinstance(attention_mask, BlockMask):
        _check_plain(options)
        if query.device.type != "cpu":
            return _attend_by_block(query, key, value, attention_mask, scaling), None
        column = torch.arange(query.shape[2])
        attention_mask = _ask(attention_mask.mask_mod, len(query), column, column)[:, None]
    return sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=dropout,
        scaling=scaling,
        **options,  # type: ignore[arg-type]
    )


def _attend_by_block(
    query: Float[Tensor, "row head token width"],
    key: Float[Tensor, "row key_head token width"],
    value: Float[Tensor, "row key_head token width"],
    mask: BlockMask,
    scale: float | None,
) -> Float[Tensor, "row token head width"]:
    n_groups = query.shape[1] // key.shape[1]
    # The kernels share keys and values among heads in groups of a power of two only.
    is_shared = n_groups & (n_groups - 1) == 0
    if not is_shared:
        key, value = repeat_kv(key, n_groups), repeat_kv(value, n_groups)
    out = _compiled()(
        query, key, value, block_mask=mask, scale=scale, enable_gqa=is_shared and n_groups > 1
    )
    return out.transpose(1, 2).contiguous()


def _check_plain(options: Mapping[str, object]) -> None:
    """Raise BackendError when the model adds to its scores what the kernels would leave out."""
    unknown = sorted(name for name in _UNSUPPORTED if options.get(name) is not None)
    if unknown:
        raise BackendError(
            f"attention {ATTENTION}: the model passes {', '.join(unknown)}, which it cannot do "
            "(needs plain scores); set policy.attention=sdpa"
        )


def _ask(may_attend: _MayAttend, n_rows: int, query: Tensor, key: Tensor) -> Tensor:
    """Return a mask rule's answer for every pair of the query and key columns of every row."""
    row = torch.arange(n_rows, device=query.device)[:, None, None]
    return may_attend(row, row, query[:, None], key)


def _summarise_blocks(
    may_attend: _MayAttend, n_rows: int, length: int, device: torch.device
) -> tuple[Bool[Tensor, "row 1 block block"], Bool[Tensor, "row 1 block block"]]:
    """Say of each block of queries and keys whether any pair may attend, and whether all may."""
    some, all_ = [], []
    column = torch.arange(length, device=device)
    for part in torch.split(column, _BLOCK_ROWS * BLOCK):
        tiles = _ask(may_attend, n_rows, part, column).view(
            n_rows, -1, BLOCK, length // BLOCK, BLOCK
        )
        some.append(tiles.any(-1).any(2))
        all_.append(tiles.all(-1).all(2))
    return torch.cat(some, 1)[:, None], torch.cat(all_, 1)[:, None]


def _order(
    chosen: Bool[Tensor, "row 1 block block"],
) -> tuple[Int[Tensor, "row 1 block"], Int[Tensor, "row 1 block block"]]:
    """Return how many key blocks each query block reads, and their indices before all others."""
    order = torch.argsort(chosen.int(), dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32), order.int()
