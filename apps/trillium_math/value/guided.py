"""Search by value: a beam over steps, and the best of K whole trajectories.

Both give one trajectory per problem. What has an answer is preferred to what has none; among
equals the highest value wins, and the first one where values are equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from trillium.generation import Generator, SamplingConfig

from trillium_math.agent.partial import Partial
from trillium_math.agent.rollout import Roller
from trillium_math.agent.trajectory import Trajectory
from trillium_math.problems import Problem
from trillium_math.value.config import BeamSearch
from trillium_math.value.critic import state_of

ValueFunction = Callable[[Sequence[Sequence[int]]], list[float]]
"""Prefixes in, the value of the state after each out; `Critic.values`."""


@dataclass
class _Beam:
    """The partial trajectories of one problem, best first, and those that have ended."""

    live: list[Partial]
    ended: list[tuple[float, Partial]] = field(default_factory=list)


def best_of_k(
    problems: Sequence[Problem],
    roller: Roller,
    values_of: ValueFunction,
    generator: Generator,
    sampling: SamplingConfig,
    *,
    seed: int,
) -> list[Trajectory]:
    """Return the best of `sampling.n_samples` trajectories of each problem."""
    found = roller.roll_out(problems, generator, sampling, seed=seed)
    values = values_of([state_of(one) for one in found])
    k = sampling.n_samples
    return [
        _best(values[start : start + k], found[start : start + k])
        for start in range(0, len(found), k)
    ]


def beam_search(
    problems: Sequence[Problem],
    roller: Roller,
    values_of: ValueFunction,
    generator: Generator,
    sampling: SamplingConfig,
    config: BeamSearch,
    *,
    seed: int,
) -> list[Trajectory]:
    """Return the trajectory that the beam of each problem ends with, all problems together.

    Every partial trajectory proposes `n_proposals` steps; of all proposals, equal ones counted
    once, the `n_beams` of highest value are kept. Those that have ended leave their places empty
    and compete at the end. What is still going on after `max_steps` ends there.
    """
    beams = [_Beam([roller.start(problem, 0)]) for problem in problems]
    for step in range(config.max_steps):
        proposals = [
            (place, one.fork(f"{one.id}.{number}"))
            for place, beam in enumerate(beams)
            for one in beam.live
            for number in range(config.n_proposals)
        ]
        if not proposals:
            break
        partials = [one for _, one in proposals]
        roller.take_step(partials, generator, sampling, seed=seed * 1009 + step, unit=config.unit)
        values = values_of([state_of(one) for one in partials])
        for place, beam in enumerate(beams):
            mine = [(value, one) for value, (own, one) in zip(values, proposals, strict=True)
                    if own == place]  # fmt: skip
            _keep(beam, mine, config.n_beams)
    return [_conclude(beam, roller, values_of) for beam in beams]


def _keep(beam: _Beam, proposals: Sequence[tuple[float, Partial]], n_beams: int) -> None:
    """Keep the best proposals in the places that are left.

    What has ended without an answer takes no place, and is there only if nothing else is.
    """
    different: dict[tuple[int, ...], tuple[float, Partial]] = {}
    for value, one in proposals:
        different.setdefault(tuple(one.ids), (value, one))
    # Sorting is stable, so equal values keep the order of the proposals.
    ranked = sorted(different.values(), key=lambda pair: -pair[0])
    dead = [pair for pair in ranked if pair[1].outcome is not None and pair[1].answer is None]
    hopeful = [pair for pair in ranked if pair[1].outcome is None or pair[1].answer is not None]
    n_answered = sum(one.answer is not None for _, one in beam.ended)
    kept = hopeful[: n_beams - n_answered]
    beam.ended += [pair for pair in kept if pair[1].outcome is not None] + dead[:1]
    beam.live = [one for _, one in kept if one.outcome is None]


def _conclude(beam: _Beam, roller: Roller, values_of: ValueFunction) -> Trajectory:
    left = list(zip(values_of([state_of(one) for one in beam.live]), beam.live, strict=True))
    every = [*beam.ended, *left]
    return _best([value for value, _ in every], [roller.finish(one) for _, one in every])


def _best(values: Sequence[float], found: Sequence[Trajectory]) -> Trajectory:
    """Return the trajectory to answer with; one that the sandbox lost only where all are lost."""
    places = range(len(found))
    return found[
        max(
            places,
            key=lambda place: (
                found[place].reward is not None,
                found[place].answer is not None,
                values[place],
                -place,
            ),
        )
    ]
