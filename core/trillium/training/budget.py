"""How many tokens to hold in memory at once, and whether to recompute activations.

On a processor the budget is a constant, chosen for speed. On a GPU one forward pass over a few
trees is measured: what it leaves behind per token, against what is free, says how large a row batch
may be, and whether the longest tree fits at all without recomputation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

import torch
from torch import nn

from trillium.layouts import collate
from trillium.scoring.forward import hidden_at_slots, open_model
from trillium.scoring.head import CHUNKS
from trillium.training.config import TrainConfig
from trillium.training.sharding import is_sharded, largest
from trillium.training.steps import MICRO_TOKENS, row_tokens
from trillium.trees import Layout, TokenTree

_PROBE_TOKENS = 2048
# Of what is free; the rest is for what a backward pass needs beside what was kept, and for gaps.
_SHARE = 0.7
_ROUND = 256


@dataclass(frozen=True)
class Budget:
    """Hold the tokens of a row batch, padding included, and whether activations are recomputed."""

    micro_tokens: int
    recomputes: bool


def plan_budget(
    config: TrainConfig, policy: nn.Module, trees: Sequence[TokenTree], layout: Layout
) -> Budget:
    """Choose what `config` leaves open; what it says is kept."""
    device = next(policy.parameters()).device
    usual = MICRO_TOKENS.get(device.type, MICRO_TOKENS["cpu"])
    micro_tokens = config.micro_tokens or usual
    is_open = config.micro_tokens is None or config.gradient_checkpointing is None
    if device.type != "cuda" or not trees or not is_open:
        return Budget(micro_tokens, config.gradient_checkpointing is True)
    longest = max(row_tokens(tree, layout) for tree in trees)
    if config.gradient_checkpointing:
        return fit(config, 0, longest=longest)
    fitting = int(free_bytes(policy, device) / kept_bytes(policy, trees, layout))
    if is_sharded(policy):
        # Cut alike, trees that all processes score take each of them equally many passes.
        fitting = -largest(-fitting)
    return fit(config, fitting, longest=longest)


def fit(config: TrainConfig, n_fitting: int, *, longest: int) -> Budget:
    """Choose for `n_fitting` tokens that fit without recomputation; `longest` is one tree's row."""
    usual = config.micro_tokens or MICRO_TOKENS["cuda"]
    if config.gradient_checkpointing or (
        config.gradient_checkpointing is None and longest > n_fitting
    ):
        return Budget(max(usual, longest), recomputes=True)
    if config.micro_tokens is not None:
        return Budget(usual, recomputes=False)
    fitting = max(n_fitting // _ROUND * _ROUND, longest)
    return Budget(min(usual, fitting), recomputes=False)


def free_bytes(policy: nn.Module, device: torch.device) -> float:
    """Return what row batches may take: what is free, less gradients, moments and the head."""
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    trained = sum(p.nbytes for p in policy.parameters() if p.requires_grad)
    config = open_model(policy).config
    logits = CHUNKS["cuda"] * int(getattr(config, "vocab_size", 0)) * 6
    return max(_SHARE * (free + cached) - 3 * trained - logits, 0.0)


def kept_bytes(policy: nn.Module, trees: Sequence[TokenTree], layout: Layout) -> float:
    """Return what a forward pass keeps for the backward pass, per token; runs one on few trees.

    Infinity where not even these fit.
    """
    device = next(policy.parameters()).device
    few = _choose_few(trees, layout)
    limit = sum(tree.n_tokens for tree in few) if layout == "packed" else None
    rows = collate(few, layout=layout, pad_id=0, row_tokens=limit).to(device)
    was_training = policy.training
    policy.train()
    before = torch.cuda.memory_allocated(device)
    kept = math.inf
    try:
        hidden = hidden_at_slots(open_model(policy), rows)
        kept = torch.cuda.memory_allocated(device) - before
        del hidden
    except torch.OutOfMemoryError:
        if is_sharded(policy):
            raise  # the others are still gathering layers
    finally:
        policy.train(was_training)
    if kept == math.inf:
        torch.cuda.empty_cache()  # only now, without the traceback, does nothing hold the pass
    return max(kept / rows.input_ids.numel(), 1.0)


def _choose_few(trees: Sequence[TokenTree], layout: Layout) -> list[TokenTree]:
    """Return the longest trees that make a probe of about `_PROBE_TOKENS`, else the shortest.

    A longer tree could take more memory than there is, which is what the probe shall find out.
    """
    order = sorted(trees, key=lambda tree: row_tokens(tree, layout))
    short = [tree for tree in order if row_tokens(tree, layout) <= _PROBE_TOKENS] or order[:1]
    sums = accumulate(tree.n_tokens for tree in reversed(short))
    return short[::-1][: 1 + sum(1 for _ in takewhile(lambda total: total < _PROBE_TOKENS, sums))]
