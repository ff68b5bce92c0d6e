"""Beam search over the trie, for all users and beams at once: one item, or a session of items.

Log-probabilities are those of the whole level's softmax, as in training; codes that lead to no
allowed item are masked afterwards, as a prefix function does. With a beam as wide as the widest
level the result is exact.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trillium.errors import ConfigError

from trillium_rec.decoding.exclusion import Exclusion
from trillium_rec.trie import NO_NODE, Trie

NO_ITEM = -1


class CodeDecoder(Protocol):
    """Hold what a model knows about users and beams; beams share what the history gave.

    Beams are reordered by `parents`, the place of each new beam's origin among the old ones.
    """

    def first(self) -> Float[Tensor, "user 1 code"]:
        """Return the logits of the first code, one beam per user."""
        ...

    def advance(
        self, parents: Int[Tensor, "user beam"], codes: Int[Tensor, "user beam"]
    ) -> Float[Tensor, "user beam code"]:
        """Take one more code per beam and return the logits of the next level."""
        ...

    def finish_item(
        self,
        parents: Int[Tensor, "user beam"],
        codes: Int[Tensor, "user beam"],
        items: Int[Tensor, "user beam"],
    ) -> Float[Tensor, "user beam code"]:
        """Take the last code of an item and return the logits of the next item's first code."""
        ...


@dataclass(frozen=True)
class Beams:
    """Hold the best lists of items per user, best first; -inf and -1 where there are fewer."""

    items: Int[Tensor, "user beam place"]
    logps: Float[Tensor, "user beam"]


@dataclass(frozen=True)
class _Front:
    """The beams at one moment: nodes, log-probabilities, and how the last step reached them."""

    nodes: Int[Tensor, "user beam"]
    logps: Float[Tensor, "user beam"]
    parents: Int[Tensor, "user beam"]
    codes: Int[Tensor, "user beam"]


@torch.inference_mode()
def search_items(
    decoder: CodeDecoder,
    trie: Trie,
    is_eligible: Bool[Tensor, " item"],
    taken: Int[Tensor, "user item"],
    *,
    width: int,
    n_groups: int = 1,
) -> Beams:
    """Return the `width` likeliest items of each user; each list of the beams is one item.

    With `n_groups` above 1 the beams are diverse: that many first codes, the likeliest, get an
    equal share of the beams, and do not compete with one another.
    Raises ConfigError when the groups do not divide the beams or outnumber the first codes.
    """
    return search_sessions(
        decoder, trie, is_eligible, taken, n_items=1, width=width, n_groups=n_groups
    )


@torch.inference_mode()
def search_sessions(
    decoder: CodeDecoder,
    trie: Trie,
    is_eligible: Bool[Tensor, " item"],
    taken: Int[Tensor, "user item"],
    *,
    n_items: int,
    width: int,
    n_groups: int = 1,
) -> Beams:
    """Return the likeliest sessions of `n_items` different items; none repeats what was taken.

    Groups of diverse beams are formed by the first code of the first item.
    Raises ConfigError when the groups do not divide the beams or outnumber the first codes.
    """
    _check_groups(width, n_groups, n_codes=len(trie.levels[0].codes))
    device = trie.item_of_leaf.device
    is_eligible, taken = is_eligible.to(device), taken.to(device)
    n_users, n_levels = len(taken), len(trie.levels)
    chosen = torch.zeros(n_users, 1, 0, dtype=torch.int64, device=device)
    root = torch.zeros(n_users, 1, dtype=torch.int64, device=device)
    logits = decoder.first()
    front = _Front(root, logits.new_zeros(n_users, 1), root, root)
    excluded = Exclusion.build(trie, is_eligible, taken[:, None])
    for item in range(n_items):
        for depth in range(n_levels):
            is_first = item == 0 and depth == 0
            if depth > 0:
                logits = decoder.advance(front.parents, front.codes)
            n_kept = n_groups if is_first and n_groups > 1 else width
            scores = _score_children(front, logits, trie, depth, excluded)
            front = _keep_best(scores, n_kept, 1 if is_first else n_groups)
            excluded = excluded.of_beams(front.parents)
            chosen = chosen.gather(1, front.parents[..., None].expand(-1, -1, item))
        found = trie.item_of_leaf[front.nodes.clamp(min=0)].masked_fill(front.nodes < 0, NO_ITEM)
        chosen = torch.cat([chosen, found[..., None]], dim=2)
        if item + 1 < n_items:
            logits = decoder.finish_item(front.parents, front.codes, found)
            of_user = taken[:, None].expand(-1, chosen.shape[1], -1)
            excluded = Exclusion.build(trie, is_eligible, torch.cat([of_user, chosen], dim=2))
            front = replace(front, nodes=front.nodes.clamp(max=0))
    return _best_first(chosen, front.logps)


@dataclass(frozen=True)
class _Candidates:
    """What the beams may become: children with the log-probability of the way to them."""

    scores: Float[Tensor, "user beam child"]
    nodes: Int[Tensor, "user beam child"]
    codes: Int[Tensor, "user beam child"] | None


def _check_groups(width: int, n_groups: int, *, n_codes: int) -> None:
    if width % n_groups:
        raise ConfigError(
            f"search: {width} beams in {n_groups} groups (a group needs an equal share); choose a "
            "width that is a multiple of the groups"
        )
    if n_groups > n_codes:
        raise ConfigError(
            f"search: {n_groups} groups and {n_codes} first codes (a group needs one of its own); "
            "lower the groups"
        )


def _best_first(chosen: Int[Tensor, "user beam place"], logps: Float[Tensor, "user beam"]) -> Beams:
    order = logps.argsort(dim=1, descending=True, stable=True)
    items = chosen.gather(1, order[..., None].expand(-1, -1, chosen.shape[2]))
    return Beams(items, logps.gather(1, order))


def _score_children(
    front: _Front,
    logits: Float[Tensor, "user beam code"],
    trie: Trie,
    depth: int,
    excluded: Exclusion,
) -> _Candidates:
    logps = logits.float().log_softmax(dim=-1)
    children = trie.levels[depth].children(front.nodes)
    own = logps if children.codes is None else logps.gather(2, children.codes)
    scores = own + front.logps[..., None]
    scores = excluded.mask(scores, trie, depth, front.nodes, children.nodes)
    return _Candidates(scores, children.nodes, children.codes)


def _keep_best(candidates: _Candidates, n_kept: int, n_groups: int) -> _Front:
    """Keep the best candidates of each group; beams of a group stand side by side."""
    n_users, _, n_children = candidates.scores.shape
    grouped = candidates.scores.reshape(n_users, n_groups, -1)
    top = grouped.topk(min(n_kept // n_groups, grouped.shape[2]), dim=2)
    offset = torch.arange(n_groups, device=grouped.device)[:, None] * grouped.shape[2]
    place = (top.indices + offset).reshape(n_users, -1)
    logps = top.values.reshape(n_users, -1)
    nodes = candidates.nodes.reshape(n_users, -1).gather(1, place)
    parents, child = place // n_children, place % n_children
    codes = child
    if candidates.codes is not None:
        codes = candidates.codes.reshape(n_users, -1).gather(1, place)
    is_dead = torch.isneginf(logps)
    return _Front(nodes.masked_fill(is_dead, NO_NODE), logps, parents, codes)
