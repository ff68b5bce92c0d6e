"""Which nodes of the trie lead nowhere: no eligible item is left below them.

Two kinds: nodes that are dead for everybody, because their items are hidden or retired, and nodes
that a user's own history, or the session so far, has emptied. Masking whole prefixes, and not only
leaves, keeps beams from ending in dead ends, so that the search stays exact.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trillium_rec.trie import NO_NODE, Trie


@dataclass(frozen=True)
class Exclusion:
    """Hold who is alive at each depth, and for some beams the nodes that are dead for them alone.

    `dead[d]` lists nodes at depth d + 1, -1 as padding; one row of beams serves all beams of a
    user as long as they share what they have taken.
    """

    is_alive: tuple[Bool[Tensor, " node"], ...]
    dead: tuple[Int[Tensor, "user beam node"], ...]

    @classmethod
    def build(
        cls, trie: Trie, is_eligible: Bool[Tensor, " item"], taken: Int[Tensor, "user beam item"]
    ) -> "Exclusion":
        """Exclude ineligible items for all, and `taken` items (-1 as padding) for each beam."""
        leaves = trie.count_leaves(is_eligible)
        distinct = _first_occurrences(taken)
        counts_for = distinct & is_eligible[taken.clamp(min=0)]
        dead = []
        for nodes, below in zip(trie.ancestors, leaves, strict=True):
            node = nodes[taken.clamp(min=0)].masked_fill(~counts_for, NO_NODE)
            is_dead = (_count_equal(node) == below[node.clamp(min=0)]) & (node >= 0)
            dead.append(node.masked_fill(~is_dead, NO_NODE))
        return cls(tuple(count > 0 for count in leaves), tuple(dead))

    def of_beams(self, parents: Int[Tensor, "user beam"]) -> "Exclusion":
        """Return the same for beams that continue `parents`; a shared row stays shared."""
        if self.dead[0].shape[1] == 1:
            return self
        rows = torch.arange(len(parents), device=parents.device)[:, None]
        return Exclusion(self.is_alive, tuple(nodes[rows, parents] for nodes in self.dead))

    def mask(
        self,
        scores: Float[Tensor, "user beam child"],
        trie: Trie,
        depth: int,
        nodes: Int[Tensor, "user beam"],
        children: Int[Tensor, "user beam child"],
    ) -> Float[Tensor, "user beam child"]:
        """Return scores with -inf where a child is no node or is dead."""
        alive = self.is_alive[depth][children.clamp(min=0)] & (children >= 0)
        scores = scores.masked_fill(~alive, -torch.inf)
        dead, level = self.dead[depth], trie.levels[depth]
        parent = level.parents[dead.clamp(min=0)].masked_fill(dead < 0, NO_NODE - 1)
        user, beam, entry = (nodes[..., None] == parent).nonzero(as_tuple=True)
        which = dead.expand(-1, nodes.shape[1], -1)[user, beam, entry]
        scores[user, beam, level.places(which)] = -torch.inf
        return scores


# Both sort: a table of all pairs would need the square of the longest history for every user.
def _first_occurrences(taken: Int[Tensor, "user beam item"]) -> Bool[Tensor, "user beam item"]:
    ordered, order = taken.sort(dim=-1, stable=True)
    is_first = torch.ones_like(taken, dtype=torch.bool)
    is_first[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return torch.zeros_like(is_first).scatter(-1, order, is_first) & (taken >= 0)


def _count_equal(nodes: Int[Tensor, "user beam item"]) -> Int[Tensor, "user beam item"]:
    """Return how often each value stands in its row."""
    ordered, nodes = nodes.sort(dim=-1).values, nodes.contiguous()
    after = torch.searchsorted(ordered, nodes, right=True)
    return after - torch.searchsorted(ordered, nodes)
