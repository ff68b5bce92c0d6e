"""Which layouts a model can take, and what a run says when it cannot take the one it was asked for.

Shared and packed rows need a model that lets us say, for every pair of tokens, who attends whom,
and for every token, which position it has. `padded` needs neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from trillium.layouts import collate
from trillium.scoring.flex import ATTENTION
from trillium.scoring.forward import LanguageModel, hidden_at_slots, open_model, takes_positions
from trillium.trees import Layout, Node, TokenTree

_MASKED_LAYERS = frozenset({"full_attention", "sliding_attention"})
_MASKED_ATTENTION = frozenset({"sdpa", "eager", ATTENTION})


@dataclass(frozen=True)
class LayoutDecision:
    """Hold the layout to use and, when it is not the one wanted, the sentence that says why."""

    layout: Layout
    sentence: str | None = None


def choose_layout(model: nn.Module, wanted: Layout | Literal["auto"]) -> LayoutDecision:
    """Return `wanted` if the model can take it, else `padded` and why.

    auto means packed for FlexAttention, which skips what trees do not share, else shared.
    """
    if wanted == "padded":
        return LayoutDecision("padded")
    reason = can_take_tree_mask(model)
    if reason is None:
        best: Layout = "packed" if open_model(model).attention == ATTENTION else "shared"
        return LayoutDecision(best if wanted == "auto" else wanted)
    return LayoutDecision(
        "padded",
        f"layout: padded instead of {wanted}, because {reason}; every path is computed whole",
    )


def can_take_tree_mask(model: nn.Module) -> str | None:
    """Return why the model cannot take a tree mask; None when it can.

    Looks at what the configuration declares, then tries: a small tree must give the same hidden
    states in the shared and the padded layout.
    """
    parts = open_model(model)
    reason = declared_reason(model)
    return reason if reason is not None else _observed_reason(model, parts)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off inside, and put every module back as it was."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def declared_reason(model: nn.Module) -> str | None:
    """Return why the configuration of the model rules out a tree mask; None when it does not."""
    parts = open_model(model)
    foreign = parts.layer_types - _MASKED_LAYERS
    if foreign:
        return f"its layers of kind {', '.join(sorted(foreign))} read tokens in row order"
    if any(getattr(module, "_is_stateful", False) for module in model.modules()):
        return "its recurrent layers read tokens in row order"
    if not takes_positions(parts.decoder) or getattr(parts.config, "alibi", False) is True:
        return "it numbers positions by column and cannot be given them"
    if parts.attention not in _MASKED_ATTENTION:
        return (
            f"attention {parts.attention} takes no mask between pairs of tokens "
            "(load the model with attention sdpa)"
        )
    return None


def _observed_reason(model: nn.Module, parts: LanguageModel) -> str | None:
    # Siblings of different length, a grandchild, and two rows of which one needs padding.
    nodes = [(range(3, 9), -1), (range(9, 13), 0), (range(13, 20), 0), (range(20, 23), 2)]
    tree = TokenTree(
        "layout probe",
        tuple(Node(tuple(ids), (parent >= 0,) * len(ids), parent) for ids, parent in nodes),
        leaves=(1, 3),
    )
    small = TokenTree("small", (tree.nodes[0], tree.nodes[1]), leaves=(1,))
    device = next(model.parameters()).device
    found = []
    with torch.no_grad(), evaluating(model):
        for layout in ("padded", "shared"):
            batch = collate([tree, small], layout=layout, pad_id=0).to(device)
            try:
                hidden = hidden_at_slots(parts, batch)
            except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
                # `padded` asks nothing unusual: if that fails, no layout will do.
                if layout == "padded":
                    raise
                lines = str(error).strip().splitlines() or ["no reason given"]
                return f"a trial with a tree mask failed ({type(error).__name__}: {lines[0][:160]})"
            found.append(hidden[batch.entry_slot].float())
    gap = ((found[0] - found[1]).norm() / found[0].norm().clamp(min=1e-12)).item()
    is_exact = next(parts.decoder.parameters()).dtype in (torch.float32, torch.float64)
    # A leak between siblings shows as tenths; rounding in bfloat16 as hundredths.
    if gap <= (1e-3 if is_exact else 5e-2):
        return None
    return f"a tree mask changed its hidden states by {gap:.2g} of their size in a trial"
