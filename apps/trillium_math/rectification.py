"""Mend wrong trajectories: continue the right steps, and keep a first step that led to the answer.

The right step is the policy's own, sampled from where the wrong one began (arXiv 2406.18629,
Section 3.2): pairs of steps that the policy would write teach more than steps from elsewhere.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trillium.trees import TokenPath, TokenTree

from trillium_math.agent.steps import StepUnit, split_steps, strip_end
from trillium_math.agent.trajectory import Trajectory
from trillium_math.localisation.mistake import Located, Mistake, Toolbox
from trillium_math.selection import SelectConfig, sort_trajectories

End = Literal["paired", "not_located", "no_right_continuation", "same_step"]


@dataclass(frozen=True)
class Mended:
    """Hold what became of one wrong trajectory, and the pair of steps where there is one.

    `n_right` counts the different continuations that ended well.

    `prefix`, `chosen` and `rejected` are token ids: the problem with its right steps, and one step
    each without what ends a turn.
    """

    id: str
    problem_id: str
    step: int | None
    n_steps: int
    why: str
    rates: tuple[float, ...]
    end: End
    n_right: int = 0
    prefix: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()

    @property
    def tree(self) -> TokenTree:
        """Return the pair: a root that is not scored, and two leaves of one step."""
        root = len(self.prefix)
        paths = [
            TokenPath((*self.prefix, *leaf), (False,) * root + (True,) * len(leaf))
            for leaf in (self.chosen, self.rejected)
        ]
        return TokenTree.from_paths(f"{self.id}@{self.step}", paths)


def rectify(
    mistakes: Sequence[Mistake],
    found: Sequence[Located],
    toolbox: Toolbox,
    select: SelectConfig,
    *,
    unit: StepUnit,
    n_samples: int,
    seed: int,
) -> list[Mended]:
    """Continue every trajectory before its first wrong step, `n_samples` times, and pair steps."""
    located = [(one, place.step) for one, place in zip(mistakes, found, strict=True)
               if place.step is not None]  # fmt: skip
    partials = [
        toolbox.roller.cut(
            one.trajectory,
            one.problem,
            one.prefix_length(step),
            id=f"{one.trajectory.id}/{step}.{number}",
        )
        for one, step in located
        for number in range(n_samples)
    ]
    done = toolbox.roller.complete(partials, toolbox.generator, toolbox.sampling, seed=seed)
    groups = iter([done[start : start + n_samples] for start in range(0, len(done), n_samples)])
    return [
        _describe(one, place, "not_located")
        if place.step is None
        else _pair(one, place, place.step, next(groups), toolbox, select, unit=unit, seed=seed)
        for one, place in zip(mistakes, found, strict=True)
    ]


def _pair(
    one: Mistake,
    place: Located,
    step: int,
    continued: Sequence[Trajectory],
    toolbox: Toolbox,
    select: SelectConfig,
    *,
    unit: StepUnit,
    seed: int,
) -> Mended:
    """Choose a first step among the continuations that ended well."""
    winners = [winner for group in sort_trajectories(continued, select) for winner in group.winners]
    if not winners:
        return _describe(one, place, "no_right_continuation")
    decode, end_ids = toolbox.dialogue.decode, toolbox.dialogue.end_ids
    start, end = one.steps[step]
    wrong = strip_end(one.trajectory.token_ids[start:end], end_ids)
    steps: dict[str, tuple[int, ...]] = {}
    for winner in winners:
        own = split_steps(winner.token_ids, winner.spans, decode, unit=unit)[step]
        leaf = strip_end(winner.token_ids[own[0] : own[1]], end_ids)
        # Only space at the end means nothing: indents are Python.
        steps.setdefault(decode(leaf).rstrip(), leaf)
    steps.pop(decode(wrong).rstrip(), None)
    usable = [leaf for text, leaf in sorted(steps.items()) if text]
    if not usable or not wrong:
        return _describe(one, place, "same_step", n_right=len(winners))
    chosen = random.Random(f"{seed}/{one.trajectory.id}").choice(usable)
    return _describe(
        one,
        place,
        "paired",
        n_right=len(winners),
        prefix=one.trajectory.token_ids[:start],
        chosen=chosen,
        rejected=wrong,
    )


def _describe(
    one: Mistake,
    place: Located,
    end: End,
    *,
    n_right: int = 0,
    prefix: tuple[int, ...] = (),
    chosen: tuple[int, ...] = (),
    rejected: tuple[int, ...] = (),
) -> Mended:
    return Mended(
        id=one.trajectory.id,
        problem_id=one.problem.id,
        step=place.step,
        n_steps=len(one.steps),
        why=place.why,
        rates=place.rates,
        end=end,
        n_right=n_right,
        prefix=prefix,
        chosen=chosen,
        rejected=rejected,
    )
