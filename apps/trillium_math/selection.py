"""From graded trajectories to preference trees: filters, pairs, labelled rows.

The filters are those of arXiv 2409.02392, Section 4: environment faults are dropped, and so are
trajectories that reached a limit and winners that boxed an answer right after a tool error, which
they cannot have computed.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from trillium.trees import TokenPath, TokenTree

from trillium_math.agent.trajectory import Outcome, Trajectory


class SelectConfig(BaseModel):
    """Choose which trajectories may teach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_pairs: int = Field(1, gt=0, description="pairs per problem, or rows of each label")
    winner_calls_tool: bool = Field(True, description="drop right trajectories without the tool")
    loser_outcomes: tuple[Outcome, ...] = Field(
        ("answered", "no_answer"), min_length=1, description="ends that make a wrong one usable"
    )


@dataclass(frozen=True)
class Sorted:
    """Hold the usable trajectories of one problem, and how many were dropped for what."""

    problem_id: str
    winners: tuple[Trajectory, ...]
    losers: tuple[Trajectory, ...]
    dropped: Counter[str]


def sort_trajectories(trajectories: Sequence[Trajectory], config: SelectConfig) -> list[Sorted]:
    """Group by problem and keep what may teach; token-identical trajectories count once."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.problem_id, []).append(trajectory)
    return [_sort(problem_id, group, config) for problem_id, group in groups.items()]


def make_pairs(
    found: Sequence[Sorted], n_pairs: int, *, is_masked: bool, seed: int
) -> list[TokenTree]:
    """Pair random winners with random losers of the same problem, none of them twice."""
    trees = []
    for group in found:
        rng = random.Random(f"{seed}/{group.problem_id}")
        winners = rng.sample(group.winners, len(group.winners))
        losers = rng.sample(group.losers, len(group.losers))
        # The shorter list ends the pairs of this problem.
        couples = list(zip(winners, losers, strict=False))[:n_pairs]
        for winner, loser in couples:
            paths = [path_of(winner, is_masked=is_masked), path_of(loser, is_masked=is_masked)]
            trees.append(TokenTree.from_paths(f"{winner.id}>{loser.id}", paths))
    return trees


def make_labelled(
    found: Sequence[Sorted], n_pairs: int, *, is_masked: bool, seed: int
) -> list[TokenTree]:
    """Return trees of one path with label 1 or 0; problems of one kind only are used too."""
    trees = []
    for group in found:
        rng = random.Random(f"{seed}/{group.problem_id}")
        for label, side in ((1.0, group.winners), (0.0, group.losers)):
            for one in rng.sample(side, len(side))[:n_pairs]:
                paths = (path_of(one, is_masked=is_masked),)
                trees.append(TokenTree.from_paths(one.id, paths, {"label": (label,)}))
    return trees


def choose_right(
    found: Sequence[Sorted], n_pairs: int, *, is_masked: bool, seed: int
) -> list[TokenTree]:
    """Return right trajectories to imitate, the same number per problem: rejection sampling."""
    trees = []
    for group in found:
        rng = random.Random(f"{seed}/{group.problem_id}")
        winners = rng.sample(group.winners, len(group.winners))
        chosen = winners[:n_pairs]
        trees += [
            TokenTree.from_paths(one.id, (path_of(one, is_masked=is_masked),)) for one in chosen
        ]
    return trees


def shuffled(found: Sequence[Trajectory], problem_id: str, seed: int) -> list[Trajectory]:
    """Return trajectories of a problem in an order that depends on the seed alone."""
    return random.Random(f"{seed}/{problem_id}").sample(found, len(found))


def path_of(one: Trajectory, *, is_masked: bool) -> TokenPath:
    """Return a trajectory as a path; unmasked, everything after the prompt is scored."""
    if is_masked:
        return one.path
    start, length = one.spans[0][0], len(one.token_ids)
    return TokenPath(one.token_ids, (False,) * start + (True,) * (length - start))


def count_sorted(found: Sequence[Sorted]) -> dict[str, int]:
    """Count problems by what they offer, and dropped trajectories by reason."""
    dropped = sum((group.dropped for group in found), Counter())
    return {
        "problems": len(found),
        "problems_with_both": sum(bool(g.winners and g.losers) for g in found),
        "problems_all_right": sum(bool(g.winners and not g.losers) for g in found),
        "problems_all_wrong": sum(bool(g.losers and not g.winners) for g in found),
        **{f"dropped_{reason}": count for reason, count in sorted(dropped.items())},
    }


def _sort(problem_id: str, group: Sequence[Trajectory], config: SelectConfig) -> Sorted:
    winners: list[Trajectory] = []
    losers: list[Trajectory] = []
    dropped: Counter[str] = Counter()
    seen: set[tuple[int, ...]] = set()
    for one in group:
        reason = _reason_to_drop(one, config)
        if reason is None and one.token_ids in seen:
            reason = "repeated"
        if reason is not None:
            dropped[reason] += 1
            continue
        seen.add(one.token_ids)
        (winners if one.is_right else losers).append(one)
    return Sorted(problem_id, tuple(winners), tuple(losers), dropped)


def _reason_to_drop(one: Trajectory, config: SelectConfig) -> str | None:
    if one.reward is None:
        return "environment_fault"
    if not one.spans:
        return "nothing_sampled"
    if one.is_right:
        if one.tool_statuses and one.tool_statuses[-1] != "ok":
            return "right_after_tool_error"
        if config.winner_calls_tool and not one.tool_statuses:
            return "right_without_tool"
        return None
    return None if one.outcome in config.loser_outcomes else one.outcome
