"""Grow search trees of many problems in lockstep, so that all of them sample together.

An iteration descends from the root to an end: it follows PUCT through what is there, and where
nothing is there samples steps and follows them on. Then it tells every node on its way. All trees
take each level of an iteration together: one batch of steps, one batch of tool calls, one batch of
judgements. The same seed gives the same trees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trillium.generation import Generator, SamplingConfig

from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.partial import Partial
from trillium_math.agent.rollout import Roller
from trillium_math.agent.trajectory import Trajectory, mask_of
from trillium_math.problems import Problem
from trillium_math.search.config import SearchConfig
from trillium_math.search.puct import Branch, add_child, back_up, choose_child, prior_of
from trillium_math.search.record import SearchNode, SearchTree

if TYPE_CHECKING:
    from trillium_math.search.self_evaluation import Judge


@dataclass
class _Growing:
    """A tree that grows: per node its statistics, its trajectory so far, and how that ended."""

    problem: Problem
    branches: list[Branch]
    partials: list[Partial]
    ends: list[Trajectory | None]
    depths: list[int]
    confidences: list[float]
    barren: set[int] = field(default_factory=set)
    n_repeated: int = 0
    n_faults: int = 0

    def descend(self, node: int, weight: float) -> int:
        """Return the childless node that PUCT leads to."""
        while self.branches[node].children:
            node = choose_child(self.branches, node, weight=weight)
        return node

    def is_growing(self, node: int) -> bool:
        """Say whether steps can follow."""
        return self.ends[node] is None and node not in self.barren


@dataclass(frozen=True)
class _Sprout:
    """A step just sampled below a node of a tree."""

    tree: _Growing
    parent: int
    partial: Partial


class Search:
    """Search for solutions; holds what all searches share."""

    def __init__(
        self,
        roller: Roller,
        dialogue: Dialogue,
        generator: Generator,
        sampling: SamplingConfig,
        judge: "Judge | None",
        config: SearchConfig,
    ) -> None:
        """Use an open agent; without a judge the outcome alone counts."""
        self._roller = roller
        self._dialogue = dialogue
        self._generator = generator
        self._sampling = sampling
        self._judge = judge
        self._config = config

    def grow(self, problems: Sequence[Problem], *, seed: int) -> list[SearchTree]:
        """Return a tree per problem, in their order."""
        trees = [self._plant(problem) for problem in problems]
        for iteration in range(self._config.n_iterations):
            self._iterate(trees, seed=seed * 10_007 + iteration)
        return [self._keep(tree) for tree in trees]

    def _plant(self, problem: Problem) -> _Growing:
        root = self._roller.start(problem, 0)
        return _Growing(problem, [Branch(-1)], [root], [None], [0], [0.0])

    def _iterate(self, trees: Sequence[_Growing], *, seed: int) -> None:
        """Take every tree from its root to an end, and back up."""
        config = self._config
        places = [0] * len(trees)
        for level in range(config.max_depth + 1):
            places = [
                tree.descend(place, config.exploration)
                for tree, place in zip(trees, places, strict=True)
            ]
            waiting = [
                (tree, place)
                for tree, place in zip(trees, places, strict=True)
                if tree.is_growing(place)
            ]
            if not waiting:
                break
            self._expand(waiting, seed=seed * 31 + level)
        for tree, place in zip(trees, places, strict=True):
            back_up(tree.branches, place, gamma=config.gamma)

    def _expand(self, waiting: Sequence[tuple[_Growing, int]], *, seed: int) -> None:
        """Sample steps below nodes, judge them, and add those that are new."""
        config = self._config
        sprouts = [
            _Sprout(tree, place, tree.partials[place].fork(f"{tree.partials[place].id}.{number}"))
            for tree, place in waiting
            for number in range(config.n_actions if place else config.n_first)
        ]
        ends = self._sample(sprouts, seed=seed)
        kept = self._without_repeats(sprouts, ends)
        new = [sprout.partial for sprout, _ in kept]
        assessed = self._judge.assess(new) if self._judge is not None and new else [0.0] * len(new)
        for (sprout, end), confidence in zip(kept, assessed, strict=True):
            self._add(sprout, end, confidence)
        for sprout, end in zip(sprouts, ends, strict=True):
            if end is not None and _is_barred(sprout, end):
                _close(sprout.tree, sprout.parent, end)
        for tree, place in waiting:
            if not tree.branches[place].children:
                tree.barren.add(place)

    def _sample(self, sprouts: Sequence[_Sprout], *, seed: int) -> list[Trajectory | None]:
        """Write one step of each, or all the rest at the greatest depth; return what ended."""
        config, roller = self._config, self._roller
        is_last = [each.tree.depths[each.parent] + 1 == config.max_depth for each in sprouts]
        last = [each.partial for each, flag in zip(sprouts, is_last, strict=True) if flag]
        going = [each.partial for each, flag in zip(sprouts, is_last, strict=True) if not flag]
        roller.take_step(going, self._generator, self._sampling, seed=2 * seed, unit=config.unit)
        done = iter(roller.complete(last, self._generator, self._sampling, seed=2 * seed + 1))
        ends: list[Trajectory | None] = []
        for each, flag in zip(sprouts, is_last, strict=True):
            if flag:
                ends.append(next(done))
            else:
                ended = each.partial.outcome is not None
                ends.append(roller.finish(each.partial) if ended else None)
        return ends

    def _without_repeats(
        self, sprouts: Sequence[_Sprout], ends: Sequence[Trajectory | None]
    ) -> list[tuple[_Sprout, Trajectory | None]]:
        """Leave out what a sibling says already, and what the sandbox lost; count both.

        What a limit barred is no repeat: it was never said.
        """
        kept = []
        seen: set[tuple[str, int, str]] = set()
        for sprout, end in zip(sprouts, ends, strict=True):
            tree, parent = sprout.tree, sprout.parent
            start = len(tree.partials[parent].ids)
            # Only space at the end means nothing: indents are Python.
            said = self._dialogue.decode(sprout.partial.ids[start:]).rstrip()
            key = (tree.problem.id, parent, said)
            if end is not None and end.reward is None:
                tree.n_faults += 1
            elif _is_barred(sprout, end):
                continue
            elif key in seen or len(sprout.partial.ids) == start:
                tree.n_repeated += 1
            else:
                kept.append((sprout, end))
            seen.add(key)
        return kept

    def _add(self, sprout: _Sprout, end: Trajectory | None, confidence: float) -> None:
        config, tree, one = self._config, sprout.tree, sprout.partial
        above = tree.partials[sprout.parent]
        outcome = 0.0 if end is None else (1.0 if end.is_right else -1.0)
        known = one.sum_logp is not None and above.sum_logp is not None
        logp = (one.sum_logp or 0.0) - (above.sum_logp or 0.0) if known else 0.0
        length = one.n_policy_tokens - above.n_policy_tokens
        add_child(
            tree.branches,
            sprout.parent,
            prior=prior_of(logp, length, power=config.prior_power),
            value=outcome + config.self_evaluation * confidence,
        )
        tree.partials.append(one)
        tree.ends.append(end)
        tree.depths.append(tree.depths[sprout.parent] + 1)
        tree.confidences.append(confidence)

    def _keep(self, tree: _Growing) -> SearchTree:
        """Return the tree as a record."""
        nodes = []
        for index, (branch, one, end) in enumerate(
            zip(tree.branches, tree.partials, tree.ends, strict=True)
        ):
            ids = one.ids if end is None else list(end.token_ids)
            start = 0 if index == 0 else len(tree.partials[branch.parent].ids)
            nodes.append(
                SearchNode(
                    parent=branch.parent,
                    ids=tuple(ids[start:]),
                    scored=mask_of(one.spans, len(ids))[start:],
                    prior=branch.prior,
                    confidence=tree.confidences[index],
                    value=branch.value,
                    n=branch.n,
                    q=branch.q,
                    v=branch.v,
                    outcome="" if end is None else end.outcome,
                    reward=None if end is None else end.reward,
                )
            )
        return SearchTree(
            tree.problem.id,
            tuple(nodes),
            self._config.self_evaluation,
            tree.n_repeated,
            tree.n_faults,
        )


def _is_barred(sprout: _Sprout, end: Trajectory | None) -> bool:
    """Say whether a limit ended the trajectory before this step began."""
    is_limit = end is not None and end.outcome in {"token_limit", "turn_too_long"}
    return is_limit and len(sprout.partial.ids) == len(sprout.tree.partials[sprout.parent].ids)


def _close(tree: _Growing, node: int, end: Trajectory) -> None:
    """Make a node an end, as no step can follow. A prompt that is too long stays what it is."""
    if not node or tree.ends[node] is not None:
        return
    tree.ends[node] = end
    branch = tree.branches[node]
    branch.value -= 1.0
    branch.reward -= 1.0
