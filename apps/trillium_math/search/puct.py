"""The arithmetic of the search: which branch to follow, and what a visit tells its ancestors.

Pure functions over a list of nodes in which parents come before children (arXiv 2405.00451,
Section 2.2). Nothing here knows tokens or models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Branch:
    """Hold what the search knows of a node.

    `value` is what the node itself was judged to be worth and `reward` = value minus the parent's
    value. `n` counts visits, `q` is the expected gain over the parent of going here, `v` what is
    expected to be gained from here on.
    """

    parent: int
    prior: float = 1.0
    value: float = 0.0
    reward: float = 0.0
    n: int = 0
    q: float = 0.0
    v: float = 0.0
    children: list[int] = field(default_factory=list)

    @property
    def expected(self) -> float:
        """Return what the end is expected to be worth when the search comes here."""
        return self.value + self.v


def prior_of(logp: float, n_tokens: int, *, power: float = 1.25) -> float:
    """Return the prior of a step, exp(logp / length^power).

    `logp` is the sum over its tokens, in nats. Reading: the released code normalises inside the
    exponential; the paper divides the probability itself by the length.
    """
    return math.exp(logp / max(1, n_tokens) ** power)


def puct_score(q: float, prior: float, n_parent: int, n_child: int, *, weight: float) -> float:
    """Return q + weight * prior * sqrt(n_parent) / (1 + n_child) (arXiv 2405.00451, Eq. 2)."""
    return q + weight * prior * math.sqrt(n_parent) / (1 + n_child)


def choose_child(tree: Sequence[Branch], node: int, *, weight: float) -> int:
    """Return the child to follow; equal scores go to the likelier, then to the earlier child."""
    parent = tree[node]
    return max(
        parent.children,
        key=lambda index: (
            puct_score(tree[index].q, tree[index].prior, parent.n, tree[index].n, weight=weight),
            tree[index].prior,
            -index,
        ),
    )


def add_child(tree: list[Branch], parent: int, *, prior: float, value: float) -> int:
    """Append a node that nobody visited; its q is its reward until someone does."""
    reward = value - tree[parent].value
    tree[parent].children.append(len(tree))
    tree.append(Branch(parent, prior=prior, value=value, reward=reward, q=reward))
    return len(tree) - 1


def back_up(tree: Sequence[Branch], node: int, *, gamma: float = 1.0) -> None:
    """Count a visit of `node` and renew it and its ancestors (arXiv 2405.00451, Eq. 3 to 5).

        v = sum over children of max(1, n) q / sum over children of max(1, n)        0 at a leaf
        q = reward + gamma * v
        n = n + 1

    Differs from the released code, which counts the root twice.
    """
    while node >= 0:
        one = tree[node]
        children = [tree[index] for index in one.children]
        if children:
            weights = [max(1, child.n) for child in children]
            total = sum(w * child.q for w, child in zip(weights, children, strict=True))
            one.v = total / sum(weights)
        one.q = one.reward + gamma * one.v
        one.n += 1
        node = one.parent


def smoothing(n_chosen: int, n_rejected: int) -> float:
    """Return the label smoothing of a pair from the visits of its sides (arXiv 2405.00451, Eq. 6).

        alpha = min(1 / (n_chosen / n_rejected + 1), 1/2)

    A rejected side without visits gives 0, a chosen one counts as visited once.
    """
    return min(n_rejected / (n_rejected + max(1, n_chosen)), 0.5)
