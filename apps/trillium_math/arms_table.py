"""What a comparison of arms found: a row per arm, as numbers, for the terminal and for a report.

Where some held-out problems are new numbers in templates that training saw, and others are of
templates that it never saw, each kind has a table of its own beside that of all. An arm has a row
as soon as one seed has it; its row is about the seeds that have it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from trillium.evaluation import Comparison, compare
from trillium.report.arms import ArmsReport, render_arms, write_arms
from trillium.report.content import Cell, Headline, Table

from trillium_math.agent.trajectory import Trajectory
from trillium_math.arms import ArmResult, Results, SeedResult
from trillium_math.arms_config import ArmsConfig

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class ArmRow:
    """Hold one arm over all seeds; numbers per seed where they are lists.

    `gain` compares accuracy with the warm-up policy per problem, as a mean over the seeds that have
    the problem; None when a seed had nothing to learn from. `is_real` says that the gain or loss
    would be seen by chance in less than one of twenty comparisons like this whole table (Holm
    1979).
    """

    name: str
    n_trees: tuple[int, ...]
    sampled: tuple[int, ...]
    trained: tuple[int, ...]
    gain: Comparison | None
    seed_gains: tuple[float, ...]
    is_real: bool
    seconds: float


def tabulate(results: Results) -> list[ArmRow]:
    """Return a row per arm, in the order of the run file as far as the seeds tell it."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for seed in results.values():
        for before, name in zip((None, *seed.arms), seed.arms, strict=False):
            order.add(name, *([] if before is None else [before]))
    having = {
        name: [seed for seed in results.values() if name in seed.arms]
        for name in order.static_order()
    }
    gains = {name: _gain(name, seeds) for name, seeds in having.items()}
    known = {name: gain.permutation_p for name, gain in gains.items() if gain is not None}
    real = holm(known)
    return [_row(name, seeds, gains[name], name in real) for name, seeds in having.items()]


def split_results(results: Results) -> dict[str, Results]:
    """Return the results by kind of held-out problem, or nothing where all are of one kind."""
    parts: dict[str, Results] = {
        "new numbers in templates of the training problems": _only(results, is_practised=True),
        "templates that no training saw": _only(results, is_practised=False),
    }
    is_mixed = all(seed.before for part in parts.values() for seed in part.values())
    return parts if is_mixed else {}


def holm(p_values: Mapping[str, float], *, level: float = 0.05) -> frozenset[str]:
    """Return the names whose hypotheses fall when all are tested together (Holm 1979).

    The i-th smallest of m values, from 1, is compared with level / (m - i + 1); the first that is
    larger ends the list.
    """
    fallen = []
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        if p_values[name] > level / (len(p_values) - place):
            break
        fallen.append(name)
    return frozenset(fallen)


def _only(results: Results, *, is_practised: bool) -> Results:
    """Return results on the held-out problems of one kind."""

    def keep(found: Sequence[Trajectory], seed: SeedResult) -> tuple[Trajectory, ...]:
        return tuple(one for one in found if (one.problem_id in seed.practised) == is_practised)

    return {
        number: replace(
            seed,
            before=keep(seed.before, seed),
            arms={
                name: replace(arm, after=keep(arm.after, seed)) for name, arm in seed.arms.items()
            },
        )
        for number, seed in results.items()
    }


def _gain(name: str, seeds: Sequence[SeedResult]) -> Comparison | None:
    """Compare over the problems of all seeds; one that several seeds share is one problem."""
    if not all(seed.arms[name].after for seed in seeds):
        return None
    sides = [_shared(seed.before, seed.arms[name].after) for seed in seeds]
    old, new = _mean([side[0] for side in sides]), _mean([side[1] for side in sides])
    return compare(old, new) if old else None


def _mean(by_seed: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average each problem over the seeds that have it: generated problems differ by seed."""
    values: dict[str, list[float]] = {}
    for side in by_seed:
        for id, value in side.items():
            values.setdefault(id, []).append(value)
    return {id: sum(found) / len(found) for id, found in values.items()}


def _row(name: str, seeds: Sequence[SeedResult], gain: Comparison | None, is_real: bool) -> ArmRow:
    arms: list[ArmResult] = [seed.arms[name] for seed in seeds]
    gains = [
        compare(*_shared(seed.before, arm.after)).gain.mean
        for seed, arm in zip(seeds, arms, strict=True)
        if gain is not None
    ]
    return ArmRow(
        name,
        tuple(arm.n_trees for arm in arms),
        tuple(arm.sampled for arm in arms),
        tuple(arm.trained for arm in arms),
        gain,
        tuple(gains),
        is_real,
        sum(arm.seconds for arm in arms) / len(arms),
    )


def render_table(results: Results, kind: str = "held-out problems") -> "RichTable":
    """Return the closing table; the report has all of its columns."""
    n_problems = len({one.problem_id for one in next(iter(results.values())).before})
    title = f"accuracy on {n_problems} {kind} a seed, {len(results)} seeds"
    shown = ("arm", "trees", "before", "after", "gain", "real", "by seed")
    return render_arms(title, _table("Accuracy", results), shown=shown)


def render_tables(results: Results) -> list["RichTable"]:
    """Return the closing table, and one per kind of held-out problem where there are two."""
    parts = split_results(results)
    further = [render_table(part, f"held-out problems ({kind})") for kind, part in parts.items()]
    return [render_table(results), *further]


def write_results(config: ArmsConfig, results: Results) -> Path:
    """Write `arms.json` and `report.html` into the output folder; returns the report."""
    rows = tabulate(results)
    report = ArmsReport(
        title="Mathematics: methods compared",
        subtitle=(
            f"{config.run.policy.base}, {len(results)} seeds, one warm-up policy and one sampling "
            "budget for all methods"
        ),
        headlines=tuple(
            Headline(row.name, f"{row.gain.gain.mean:+.3f}", detail="gain of accuracy")
            for row in rows
            if row.gain is not None
        )[:4],
        section="Methods",
        settings=config.model_dump(mode="json"),
        command="trillium math arms",
        seeds=tuple(results),
        shared_seconds=sum(seed.shared_seconds for seed in results.values()) / len(results),
        further=tuple(
            _table(f"Accuracy: {kind}", part) for kind, part in split_results(results).items()
        ),
    )
    return write_arms(config.output, "arms.json", _table("Accuracy", results), report)


def _table(title: str, results: Results) -> Table:
    return Table(title, _COLUMNS, tuple(map(_cells, tabulate(results))), note=_NOTE)


_COLUMNS = (
    "arm",
    "trees",
    "sampled",
    "trained",
    "before",
    "after",
    "gain",
    "p",
    "real",
    "by seed",
    "seconds",
)
_NOTE = (
    "Sampled and trained are tokens. Gains are paired over the held-out problems of all seeds, "
    "where one that several seeds share counts once, with a bootstrap over problems; p is from "
    "exchanging before and after, and real says that the gain or loss stands at 5 % after Holm's "
    "correction for the number of arms. An arm without a gain found nothing to learn from with at "
    "least one seed."
)


def _cells(row: ArmRow) -> tuple[Cell, ...]:
    gain = row.gain
    return (
        row.name,
        _joined(row.n_trees),
        _joined(row.sampled),
        _joined(row.trained),
        gain.before if gain else None,
        gain.after if gain else None,
        gain.gain if gain else None,
        gain.permutation_p if gain else None,
        None if gain is None else ("yes" if row.is_real else "no"),
        " ".join(f"{value:+.3f}" for value in row.seed_gains) or None,
        round(row.seconds, 1),
    )


def _joined(numbers: Sequence[int]) -> str:
    return " + ".join(f"{number:,}" for number in numbers)


def _accuracy(found: Sequence[Trajectory]) -> dict[str, float]:
    """Return the share of right trajectories of each problem, without what the sandbox lost."""
    groups: dict[str, list[bool]] = {}
    for one in found:
        if one.reward is not None:
            groups.setdefault(one.problem_id, []).append(one.is_right)
    return {id: sum(group) / len(group) for id, group in groups.items()}


def _shared(
    before: Sequence[Trajectory], after: Sequence[Trajectory]
) -> tuple[dict[str, float], dict[str, float]]:
    old, new = _accuracy(before), _accuracy(after)
    both = [id for id in old if id in new]
    return {id: old[id] for id in both}, {id: new[id] for id in both}
