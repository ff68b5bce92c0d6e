"""The stage that asks the value function about trajectories, and what its answers are worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trillium.runs import Stage

from trillium_math.agent.trajectory import Trajectory
from trillium_math.calibration import Calibration, calibrate
from trillium_math.records import read_records, write_records
from trillium_math.search_curves import SearchPoint, count_tokens, pool_curves, run_point
from trillium_math.voting import SameAnswer

if TYPE_CHECKING:
    from trillium_math.value.critic import Critic


@dataclass(frozen=True)
class Valued:
    """Hold what the value function expects of one trajectory: after its prompt, and at its end."""

    id: str
    at_start: float
    at_end: float


@dataclass(frozen=True)
class ValueReport:
    """Hold how good the values are, and what a search that reads them buys.

    `at_start` and `at_end` compare predictions with rewards, None where nothing was judged.
    """

    at_start: Calibration | None
    at_end: Calibration | None
    curve: tuple[SearchPoint, ...]


def value_stage(
    stage: Stage,
    output: str,
    trajectories: Sequence[Trajectory],
    open_critic: "Callable[[], Critic]",
) -> list[Valued]:
    """Return the values of trajectories in their order; those without a turn have none."""
    if stage.is_due:
        from trillium_math.value.critic import state_of

        found = [one for one in trajectories if one.spans]
        critic = open_critic()
        at_start = critic.values([one.token_ids[: one.spans[0][0]] for one in found])
        at_end = critic.values([state_of(one) for one in found])
        rows = [Valued(one.id, start, end)
                for one, start, end in zip(found, at_start, at_end, strict=True)]  # fmt: skip
        write_records(stage.work / output, rows)
        stage.finish([output], {"trajectories": len(rows)})
    return read_records(stage.path(output), Valued)


def report_values(
    pool: Sequence[Trajectory],
    valued: Sequence[Valued],
    guided: Sequence[Trajectory],
    guided_tokens: int,
    ks: Sequence[int],
    same: SameAnswer,
    *,
    strategy: str,
) -> ValueReport:
    """Judge the values on the pool that they are about, and draw accuracy against tokens.

    `guided_tokens` is everything that the guided search sampled, for all its problems.
    """
    known = {one.id: one for one in valued}
    judged = [one for one in pool if one.reward is not None and one.id in known]
    rewards = [float(one.is_right) for one in judged]
    curve = _curve(judged, known, ks, same)
    if any(one.reward is not None for one in guided):
        problems = {one.problem_id for one in guided}
        tokens = guided_tokens / len(problems)
        budget = round(tokens / max(1.0, sum(map(count_tokens, guided)) / len(guided)))
        curve = (*curve, run_point(strategy, budget, guided, tokens))
    return ValueReport(
        at_start=calibrate([known[one.id].at_start for one in judged], rewards) if judged else None,
        at_end=calibrate([known[one.id].at_end for one in judged], rewards) if judged else None,
        curve=curve,
    )


def _curve(
    judged: Sequence[Trajectory],
    known: Mapping[str, Valued],
    ks: Sequence[int],
    same: SameAnswer,
) -> tuple[SearchPoint, ...]:
    sizes: dict[str, int] = {}
    for one in judged:
        sizes[one.problem_id] = sizes.get(one.problem_id, 0) + 1
    if max(sizes.values(), default=0) < max(ks):
        return ()
    values = {one.id: known[one.id].at_end for one in judged}
    return pool_curves(judged, ks, same, values=values)
