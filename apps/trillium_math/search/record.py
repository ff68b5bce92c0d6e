"""A finished search tree, as it stands in the file of a run."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from trillium.trees import TokenPath


@dataclass(frozen=True)
class SearchNode:
    """Hold one step: what it adds to its parent's tokens, and what the search found out about it.

    Node 0 holds the prompt. `scored` are the tokens that the policy sampled. `confidence` is the
    policy's own judgement in [0, 1], `value` that and the outcome together; `n`, `q` and `v` are
    those of `puct.Branch`. `outcome` is empty while the trajectory goes on; `reward` is 1 or 0 at
    an end.
    """

    parent: int
    ids: tuple[int, ...]
    scored: tuple[bool, ...]
    prior: float
    confidence: float
    value: float
    n: int
    q: float
    v: float
    outcome: str = ""
    reward: float | None = None


@dataclass(frozen=True)
class SearchTree:
    """Hold the tree of one problem; parents come before children.

    `n_repeated` samples said what a sibling says, `n_faults` were lost by the sandbox.
    `self_evaluation` is the weight that confidence had in values.
    """

    problem_id: str
    nodes: tuple[SearchNode, ...]
    self_evaluation: float
    n_repeated: int = 0
    n_faults: int = 0

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Return the children of every node, in the order in which they were sampled."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes[1:], start=1):
            found[node.parent].append(index)
        return tuple(map(tuple, found))

    @property
    def ends(self) -> tuple[int, ...]:
        """Return the nodes at which a trajectory ended and was judged."""
        return tuple(i for i, node in enumerate(self.nodes) if node.reward is not None)

    def lineage(self, index: int) -> tuple[int, ...]:
        """Return the nodes from the root to `index`."""
        return tuple(reversed(tuple(self._upwards(index))))

    def path(self, index: int) -> TokenPath:
        """Return everything from the prompt to the end of node `index`."""
        line = [self.nodes[i] for i in self.lineage(index)]
        return TokenPath(
            tuple(token for node in line for token in node.ids),
            tuple(flag for node in line for flag in node.scored),
        )

    def worth(self, index: int) -> float:
        """Return what an end below node `index` is expected to be worth, from 0 to 1.

        Values reach from -1, a wrong end without confidence, to 1 + self_evaluation.
        """
        node = self.nodes[index]
        scaled = (node.value + node.v + 1) / (2 + self.self_evaluation)
        return min(1.0, max(0.0, scaled))

    def _upwards(self, index: int) -> Iterator[int]:
        while index >= 0:
            yield index
            index = self.nodes[index].parent
